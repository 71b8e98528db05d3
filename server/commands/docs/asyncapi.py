"""`/asyncapi.json`: the socket, in AsyncAPI 3.0.

One channel is the socket itself: its CONNECT, its `hello`, and every command with its ack. The others are the kinds of
rooms, and what is pushed to each.
"""

from collections.abc import Iterable
from typing import Any

from server.commands.docs import prose
from server.commands.docs.model import CommandDoc, Model, PushDoc
from server.commands.docs.openapi import failed, succeeded
from server.commands.docs.shapes import INSTANT, REF, Schema
from server.wire import CODECS

Json = dict[str, Any]

CONNECT_CODES = ("invalid", "unauthenticated", "too_large", "rate_limited", "unavailable")
_AT: Schema = {"type": "string", "format": "date-time", "pattern": INSTANT, "description": "When it happened."}
_ROOM: Schema = {"type": "string", "description": "Its name: `kind:id`."}
_SEQ: Schema = {"type": "integer", "minimum": 1, "description": "Its place in the room's log."}
DURABLE_META: Schema = {
    "type": "object",
    "properties": {"room": _ROOM, "seq": _SEQ, "at": _AT},
    "required": ["room", "seq", "at"],
}
EPHEMERAL_META: Schema = {
    "type": "object",
    "properties": {"room": _ROOM, "at": _AT},
    "required": ["room", "at"],
}


def document(model: Model) -> Json:
    """The whole document."""
    commands = [one for one in model.commands if one.on_socket]
    to_sockets = [one for one in model.pushes if not one.push.rooms]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Parley on the socket",
            "version": str(model.protocol),
            "description": prose.SOCKET,
            "tags": [{"name": noun} for noun in model.nouns],
        },
        "defaultContentType": "application/json",
        "servers": {"socket": _server()},
        "channels": {
            "socket": _channel(
                "/",
                "The namespace `/` of a socket.",
                ["connect", "connect_error", *_both(commands), *(one.id for one in to_sockets)],
            ),
            **{kind: _room(kind, model.pushes) for kind in model.room_kinds},
        },
        "operations": {
            "connect": _connect([one.id for one in to_sockets]),
            **{one.id: _call(one) for one in commands},
            **{
                f"{one.id}_to_{kind}": _send(one, kind) for one in model.pushes for kind in one.push.rooms or ["socket"]
            },
        },
        "components": {
            "schemas": _schemas(model),
            "messages": _messages(model, commands),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The access token: on the socket it is `auth.token` of the CONNECT packet.",
                }
            },
        },
    }


def _schemas(model: Model) -> Json:
    metas = {"DurableMeta": DURABLE_META, "EphemeralMeta": EPHEMERAL_META}
    errors = {one.name: one.schema for one in model.failures.values()}
    return {name: _older(schema) for name, schema in {**model.shapes.named, **errors, **metas}.items()}


def _server() -> Json:
    return {
        "host": "{host}",
        "pathname": "/socket.io/",
        "protocol": "wss",
        "protocolVersion": "13",
        "description": f"Socket.IO v5 (EIO=4) by WebSocket, or polling with upgrade; {prose.codecs(CODECS)}. Without TLS "
        "the protocol is `ws`.",
        "variables": {"host": {"default": "127.0.0.1:8080", "description": "Where the server is."}},
        "security": [{"$ref": "#/components/securitySchemes/token"}],
    }


def _both(commands: Iterable[CommandDoc]) -> list[str]:
    return [name for one in commands for name in (one.id, f"{one.id}_ack")]


def _channel(address: str, doc: str, messages: list[str], **more: Any) -> Json:
    refs = {name: {"$ref": f"#/components/messages/{name}"} for name in messages}
    return {"address": address, "description": doc, "messages": refs, **more}


def _room(kind: str, pushes: Iterable[PushDoc]) -> Json:
    return _channel(
        f"{kind}:{{id}}",
        prose.ROOMS.get(kind, f"A room of the kind {kind}."),
        [one.id for one in pushes if kind in one.push.rooms],
        parameters={"id": {"description": f"The {kind}'s id."}},
    )


def _in(channel: str, message: str) -> Json:
    return {"$ref": f"#/channels/{channel}/messages/{message}"}


def _connect(hello: list[str]) -> Json:
    return {
        "action": "receive",
        "channel": {"$ref": "#/channels/socket"},
        "summary": "Connect: the CONNECT packet of the namespace `/`, with its auth.",
        "messages": [_in("socket", "connect")],
        "reply": {
            "channel": {"$ref": "#/channels/socket"},
            "messages": [_in("socket", name) for name in (*hello, "connect_error")],
        },
    }


def _call(one: CommandDoc) -> Json:
    told: Json = {
        "action": "receive",
        "channel": {"$ref": "#/channels/socket"},
        "summary": one.name,
        "description": f"{one.doc}\n\nFor: {one.permission}; it needs {one.token}.",
        "tags": [{"name": one.noun}],
        "messages": [_in("socket", one.id)],
        "reply": {"channel": {"$ref": "#/channels/socket"}, "messages": [_in("socket", f"{one.id}_ack")]},
    }
    if one.command.limit is not None:
        told["x-parley-limit"] = one.command.limit.upper()
    if one.command.further:
        told["x-parley-further-limits"] = [limit.upper() for limit in one.command.further]
    return told


def _send(one: PushDoc, kind: str) -> Json:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{kind}"},
        "summary": f"{one.name} to {kind}" if one.push.rooms else one.name,
        "description": one.push.doc,
        "messages": [_in(kind, one.id)],
    }


def _messages(model: Model, commands: Iterable[CommandDoc]) -> Json:
    refused = [model.failures[code] for code in CONNECT_CODES]
    messages: Json = {
        "connect": _message("CONNECT", "What a client connects with: `auth`.", model.auth, model.example(model.auth)),
        "connect_error": _message(
            "CONNECT_ERROR",
            "The connect was refused.",
            {
                "type": "object",
                "properties": {
                    "message": {"type": "string"},
                    "data": {
                        "type": "object",
                        "description": "The code, and what the error has beside it.",
                        "properties": {"code": {"enum": [*(one.code for one in refused), "internal"]}},
                        "required": ["code"],
                    },
                },
                "required": ["message", "data"],
            },
            {"message": model.failures["unauthenticated"].doc, "data": {"code": "unauthenticated"}},
        ),
    }
    for one in commands:
        messages[one.id] = _message(one.name, one.doc, one.takes, one.example)
        answer = {"oneOf": [succeeded(one.answers), failed(*one.failures)]}
        example = None if one.answer_example is None else {"ok": True, "data": one.answer_example}
        messages[f"{one.id}_ack"] = _message(f"{one.name} (ack)", "The ack's one argument.", answer, example)
    for push in model.pushes:
        messages[push.id] = _pushed(push)
    return messages


def _message(name: str, doc: str, payload: Schema, example: Any) -> Json:
    told: Json = {"name": name, "title": name, "summary": doc, "payload": _older(payload)}
    if example is not None:
        told["examples"] = [{"payload": example}]
    return told


def _pushed(one: PushDoc) -> Json:
    told = _message(one.name, one.push.doc, one.payload, one.example)
    if not one.has_meta:
        return told
    metas = [{"$ref": REF + meta} for meta in one.metas]
    told["headers"] = metas[0] if len(metas) == 1 else {"type": "object", "anyOf": metas}
    logged = {"durable": "", "ephemeral": " It is not in the room's log."}
    told["description"] = "`payload` is the event's first argument, `headers` its second." + logged.get(
        one.push.sending, " Where it is ephemeral it has no seq, and is not in the room's log."
    )
    return told


def _older(schema: Any) -> Any:
    """A schema in the words of JSON Schema draft 7, which AsyncAPI's own stand on."""
    if isinstance(schema, list):
        return [_older(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    told = {key: _older(value) for key, value in schema.items()}
    if isinstance(told.get("prefixItems"), list):
        told["items"] = told.pop("prefixItems")
        told["additionalItems"] = False
    if isinstance(told.get("discriminator"), dict):
        told["discriminator"] = told["discriminator"]["propertyName"]
    return told
