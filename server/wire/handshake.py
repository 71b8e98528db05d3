"""The handshake of RFC 6455: whether a request asks for a WebSocket, and how that is accepted."""

import base64
import hashlib

from aiohttp import HttpVersion11, web

from server.wire.refusals import BAD_REQUEST, Refusal

VERSION = "13"
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # what a key is hashed with (RFC 6455, 1.3)


def accepted(request: web.Request, *, is_upgrade: bool) -> dict[str, str]:
    """The headers that accept a handshake; `is_upgrade` where its Connection says so. Raises `Refusal`."""
    headers = request.headers
    is_asked = is_upgrade and headers.get("Upgrade", "").strip().lower() == "websocket"
    if request.method != "GET" or request.version < HttpVersion11 or not is_asked:
        raise _no_handshake("there is no upgrade")
    if headers.get("Sec-WebSocket-Version") != VERSION:
        raise _no_handshake(f"speak version {VERSION}")
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except ValueError:
        is_key = False
    if not is_key:
        raise _no_handshake("there is no key")
    accept = base64.b64encode(hashlib.sha1(key.encode() + GUID, usedforsecurity=False).digest()).decode()
    return {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}


def _no_handshake(why: str) -> Refusal:
    code, _ = BAD_REQUEST
    return Refusal(code, f"This is no WebSocket handshake: {why}.", headers={"Sec-WebSocket-Version": VERSION})
