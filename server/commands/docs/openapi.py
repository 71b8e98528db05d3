"""`/openapi.json`: the commands as HTTP has them, in OpenAPI 3.1, and what stands beside them."""

from typing import Any

import msgspec

from rules.attachments import CONTENT_TYPES
from server.commands.docs import prose
from server.commands.docs.failures import Failure
from server.commands.docs.model import CommandDoc, Model
from server.commands.docs.shapes import REF, Schema
from server.commands.registry import Limit

Json = dict[str, Any]

_HEADERS: dict[str, Json] = {
    "rate_limited": {
        "Retry-After": {"description": "Seconds until the next call fits.", "schema": {"type": "integer"}}
    },
    "unauthenticated": {"WWW-Authenticate": {"schema": {"const": "Bearer"}}},
}
_DOWNLOAD: dict[str, Json] = {
    name: {"description": doc, "required": True, "schema": {"type": "string"} if value is None else {"const": value}}
    for name, value, doc in (
        ("Accept-Ranges", "bytes", "Parts can be asked for."),
        ("Cache-Control", None, "Private, for as long as the link is valid."),
        ("Content-Disposition", None, "A download, under the attachment's name."),
        ("Content-Security-Policy", "sandbox; default-src 'none'", "Nothing of it runs."),
        ("Cross-Origin-Resource-Policy", None, "`cross-origin` where the server lists origins, else `same-origin`."),
        ("ETag", None, "The attachment's sha256."),
        ("X-Content-Type-Options", "nosniff", "It is what it was judged to be."),
    )
}
"""The headers of what is served."""
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
            "/attachments/{attachment_id}": _files(model),
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
    if command.further:
        told["x-parley-further-limits"] = [limit.upper() for limit in command.further]
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


def _files(model: Model) -> Json:
    """The bytes of attachments, by the links of attachment:create and attachment:get."""
    refused = [model.failures[code] for code in ("forbidden", "not_found", "internal", "unavailable")]
    ends = [model.failures[code] for code in ("invalid", "conflict", "too_large", "rate_limited")]
    kept = {name: _DOWNLOAD[name] for name in ("Cache-Control", "Cross-Origin-Resource-Policy", "ETag")}
    part = {"Content-Range": {"required": True, "schema": {"type": "string"}}}
    bytes_: Json = {one: {} for one in sorted(CONTENT_TYPES)}
    unsatisfiable = {
        "description": "The range asked for has no byte of it.",
        "headers": part,
        "content": _content(failed(model.failures["invalid"])),
    }
    asked = {
        "Range": "One range of bytes; all is served where it is more than one, or not understood.",
        "If-Range": "The ETag of what one has a part of; all is served where it is another.",
        "If-None-Match": "The ETags of what one has already.",
    }
    upload = {
        "operationId": "attachment_upload",
        "tags": ["attachment"],
        "summary": "Upload the bytes of an attachment.",
        "description": "To the upload_url of attachment:create, as many bytes as were declared; attachment:complete follows.",
        "security": [],
        "requestBody": {"required": True, "content": {"*/*": {}}},
        "responses": {"204": {"description": "They are kept."}, **_failures((*ends, *refused))},
        "x-parley-limit": Limit.WRITES.upper(),
    }
    download = {
        "operationId": "attachment_download",
        "tags": ["attachment"],
        "summary": "Download the bytes of an attachment.",
        "description": "By the url of attachment:get. HEAD answers the headers alone.",
        "security": [],
        "parameters": [_parameter(name, "header", doc, required=False) for name, doc in asked.items()],
        "responses": {
            "200": {"description": "All of them.", "headers": _DOWNLOAD, "content": bytes_},
            "206": {"description": "The range asked for.", "headers": {**_DOWNLOAD, **part}, "content": bytes_},
            "304": {"description": "One has them already.", "headers": kept},
            "416": unsatisfiable,
            **_failures(tuple(refused)),
        },
    }
    link = [
        {**_parameter("attachment_id", "path", "Which attachment."), "schema": {"type": "string", "format": "uuid"}},
        {**_parameter("user", "query", "Whose link it is."), "schema": {"type": "string", "format": "uuid"}},
        {**_parameter("expires", "query", "When it ends: seconds since 1970."), "schema": {"type": "integer"}},
        _parameter("signature", "query", "The server's signature on all of this: take the link as it is."),
    ]
    return {"parameters": link, "put": upload, "get": download}


def _parameter(name: str, where: str, doc: str, *, required: bool = True) -> Json:
    return {"name": name, "in": where, "description": doc, "required": required, "schema": {"type": "string"}}


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
