"""`/openapi.json`: the commands as HTTP has them, in OpenAPI 3.1, and what stands beside them."""

from typing import Any

import msgspec

from server.commands.docs import prose
from server.commands.docs.failures import Failure
from server.commands.docs.model import CommandDoc, Model
from server.commands.docs.shapes import REF, Schema

Json = dict[str, Any]

_HEADERS: dict[str, Json] = {
    "rate_limited": {
        "Retry-After": {"description": "Seconds until the next call fits.", "schema": {"type": "integer"}}
    },
    "unauthenticated": {"WWW-Authenticate": {"schema": {"const": "Bearer"}}},
}
_BUS: Json = {"enum": ["ok", "degraded"], "description": "Reported; it does not decide."}


def document(model: Model) -> Json:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Parley over HTTP",
            "version": str(model.protocol),
            "summary": "Every command that may be called over HTTP.",
            "description": prose.HTTP,
        },
        "servers": [{"url": "/"}],
        "tags": [*({"name": noun} for noun in model.nouns), {"name": "operations"}],
        "paths": {
            **{one.command.path: {"post": _operation(one)} for one in model.commands if one.over_http},
            **_beside(),
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The `access_token` of account:login, account:register or account:refresh.",
                }
            },
            "schemas": {**model.shapes.named, **{one.name: one.schema for one in model.failures.values()}},
            "responses": {one.code: _failure(one) for one in model.failures.values()},
        },
    }


def _operation(one: CommandDoc) -> Json:
    command = one.command
    told: Json = {
        "operationId": one.id,
        "tags": [one.noun],
        "summary": one.name,
        "description": f"{one.doc}\n\nFor: {one.permission}; it needs {one.token}.",
        "security": [] if command.allow.public else [{"token": []}],
        "requestBody": {"required": bool(_required(one)), "content": _content(one.takes, one.example)},
        "responses": {"200": _success(one), **_failures(one.failures)},
    }
    if command.limit is not None:
        told["x-parley-limit"] = command.limit.upper()
    if not command.allow.public:
        told["x-parley-scope"] = str(command.scope)
    return told


def _required(one: CommandDoc) -> bool:
    """Whether a body has to be sent: none at all counts as an empty object."""
    return any(field.required for field in msgspec.structs.fields(one.command.payload))


def _content(schema: Schema, example: Any = None) -> Json:
    media: Json = {"schema": schema}
    if example is not None:
        media["example"] = example
    return {"application/json": media}


def _success(one: CommandDoc) -> Json:
    example = None if one.answer_example is None else {"ok": True, "data": one.answer_example}
    return {"description": "It is done.", "content": _content(succeeded(one.answers), example)}


def succeeded(answers: Schema) -> Schema:
    """The envelope of a result."""
    return {"type": "object", "properties": {"ok": {"const": True}, "data": answers}, "required": ["ok", "data"]}


def failed(*failures: Failure) -> Schema:
    """The envelope of an error, of one of these."""
    options = [{"$ref": REF + one.name} for one in failures]
    error = options[0] if len(options) == 1 else {"oneOf": options}
    return {"type": "object", "properties": {"ok": {"const": False}, "error": error}, "required": ["ok", "error"]}


def _failures(failures: tuple[Failure, ...]) -> Json:
    """The responses by status. Two codes of one status share a response."""
    by_status: dict[str, list[Failure]] = {}
    for one in failures:
        by_status.setdefault(str(one.status), []).append(one)
    return {
        status: {"$ref": f"#/components/responses/{these[0].code}"}
        if len(these) == 1
        else {"description": " ".join(one.doc for one in these), "content": _content(failed(*these))}
        for status, these in sorted(by_status.items())
    }


def _failure(one: Failure) -> Json:
    told: Json = {
        "description": one.doc,
        "content": _content(failed(one), {"ok": False, "error": one.example}),
    }
    if one.code in _HEADERS:
        told["headers"] = _HEADERS[one.code]
    return told


def _beside() -> Json:
    """What is for whatever watches the server."""
    ready = _status("ready", database={"const": "ok"}, bus=_BUS)
    not_ready = {
        "type": "object",
        "properties": {
            "status": {"enum": ["draining", "unavailable"]},
            "bus": _BUS,
            "database": {"const": "down"},
            "migrations": {"type": "array", "items": {"type": "string"}, "description": "Those that are missing."},
        },
        "required": ["status", "bus"],
    }
    return {
        "/healthz": {"get": _get("healthz", "Alive: the process answers.", {"200": _json(_status("ok"))})},
        "/readyz": {
            "get": _get(
                "readyz",
                "Ready: PostgreSQL answers, migrations are current, and the server does not stop.",
                {"200": _json(ready), "503": _json(not_ready)},
            )
        },
        "/metrics": {
            "get": _get(
                "metrics",
                "What Prometheus scrapes.",
                {"200": {"description": "Figures.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
            )
        },
    }


def _status(status: str, **more: Schema) -> Schema:
    properties = {"status": {"const": status}, **more}
    return {"type": "object", "properties": properties, "required": [*properties]}


def _get(name: str, doc: str, responses: Json) -> Json:
    return {"operationId": name, "tags": ["operations"], "summary": doc, "security": [], "responses": responses}


def _json(schema: Schema) -> Json:
    return {"description": "Its state.", "content": _content(schema)}
