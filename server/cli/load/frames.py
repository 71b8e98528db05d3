"""WebSocket as a client speaks it: masked frames out, the server's frames in. Pure. RFC 6455."""

import base64
import hashlib
import os
import random
from collections.abc import Iterator

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
MOST_BYTES = 16 * 1024 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Malformed(ValueError):
    """The server sent what is no frame, no packet, or no answer to a handshake."""


class TurnedAway(Exception):
    """A handshake was refused; `retry_after_s` is when the server would have it tried again, if it says."""

    def __init__(self, status: str, retry_after_s: float | None) -> None:
        super().__init__(status)
        self.retry_after_s = retry_after_s


def masked(payload: bytes, opcode: int = TEXT) -> bytes:
    """A final frame as clients send them."""
    size = len(payload)
    key = random.randbytes(4)
    # One long number instead of byte by byte: it is a hundred times as fast.
    pad = int.from_bytes((key * ((size + 3) >> 2))[:size])
    body = (int.from_bytes(payload) ^ pad).to_bytes(size)
    if size < 126:
        return bytes((0x80 | opcode, 0x80 | size)) + key + body
    if size < 65_536:
        return bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2) + key + body
    return bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8) + key + body


def handshake(host: str) -> tuple[bytes, bytes]:
    """A request for an Engine.IO session over a WebSocket, and what the answer must accept it with."""
    key = base64.b64encode(os.urandom(16))
    request = (
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: %b\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % (host.encode(), key)
    )
    return request, base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def judge_answer(head: bytes, accept: bytes) -> None:
    """The head of the answer to a handshake. Raises `TurnedAway`, or `Malformed` for what is none."""
    status, *lines = head.split(b"\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    if not status.startswith(b"HTTP/1."):
        raise Malformed(f"no answer to a handshake: {status[:80]!r}")
    if status.split(b" ")[1:2] != [b"101"]:
        after = fields.get(b"retry-after", b"")
        raise TurnedAway(status.decode(errors="replace"), float(after) if after.isdigit() else None)
    if fields.get(b"sec-websocket-accept") != accept:
        raise Malformed("the handshake was not accepted as the protocol has it")


class Frames:
    """Bytes in, whole frames out; what is not whole waits for more."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The frames that are whole, as opcode and payload. Raises `Malformed`."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= 2:
            first, size, start = data[at], data[at + 1], at + 2
            if size > 125:
                start = at + (4 if size == 126 else 10)
                if size > 127:
                    raise Malformed("a masked frame of a server")
                size = int.from_bytes(data[at + 2 : start])
            if first & 0xF0 != 0x80 or size > MOST_BYTES:
                raise Malformed("a frame in parts, compressed, or beyond all measure")
            if start + size > end:
                break
            at = start + size
            yield first & 0x0F, data[start:at]
        self._rest = data[at:]
