"""Engine.IO payloads and WebSocket frames as bytes. Pure: no connection, no clock.

RFC 6455 for the frames, RFC 7692 for compressed ones, engine.io-protocol revision 4 for the payloads of polling.
"""

import base64
import binascii
import zlib
from collections.abc import Iterable
from enum import IntEnum

SEPARATOR = "\x1e"  # between the packets of a payload


class Kind(IntEnum):
    """The opcodes that a server sends."""

    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PONG = 0xA


class CloseCode(IntEnum):
    """Why a WebSocket is closed."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011


def frame(kind: Kind, payload: bytes, *, rsv1: bool = False) -> bytes:
    """A final frame, not masked, as servers send them."""
    size = len(payload)
    first = 0x80 | kind | (0x40 if rsv1 else 0)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return bytes((first, 126)) + size.to_bytes(2) + payload
    return bytes((first, 127)) + size.to_bytes(8) + payload


def deflated_frame(kind: Kind, payload: bytes, least: int) -> bytes:
    """A final frame, compressed by itself where it has `least` bytes: it depends on no connection's past."""
    if len(payload) < least:
        return frame(kind, payload)
    compressor = zlib.compressobj(wbits=-15)
    squeezed = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return frame(kind, squeezed.removesuffix(b"\0\0\xff\xff"), rsv1=True)


def close_frame(code: int) -> bytes:
    return frame(Kind.CLOSE, code.to_bytes(2))


def fault_of(text: bytes) -> CloseCode:
    """Why a text that could not be understood ends the WebSocket."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return CloseCode.INVALID_TEXT
    return CloseCode.PROTOCOL_ERROR


def encode_payload(messages: Iterable[str | bytes]) -> bytes:
    """Engine.IO packets, one behind the other; bytes are messages in base64."""
    return SEPARATOR.join(
        each if isinstance(each, str) else "b" + base64.b64encode(each).decode() for each in messages
    ).encode()


def decode_payload(body: bytes) -> list[str | bytes]:
    """The Engine.IO packets of a payload; a message in base64 as its bytes. Raises ValueError."""
    return [_decoded(each) for each in body.decode().split(SEPARATOR)]


def _decoded(packet: str) -> str | bytes:
    if packet[:1] != "b":
        return packet
    try:
        return base64.b64decode(packet[1:], validate=True)
    except binascii.Error:
        raise ValueError("not base64") from None
