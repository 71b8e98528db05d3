"""Socket.IO packets as bytes and back, in JSON and in msgpack. Pure: no connection, no clock.

What comes from above is JSON already: a pushed payload is stored, sent between instances and written to sockets as the
same bytes. A packet on its way out is encoded at most once for each codec, however many connections it goes to.

The formats are those of socket.io-protocol revision 5 with its default parser, and of socket.io-msgpack-parser 3.
"""

import json
import re
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple, NoReturn

import msgpack
import orjson

from server.wire.frames import Kind, deflated_frame, encode_payload, frame
from server.wire.unpacking import unpacked

CODECS = ("json", "msgpack")
"""What packets may travel in, as Socket.IO names it."""

ATTACHMENTS = 10  # binary attachments of one packet
ACK_DIGITS = 15  # of an ack's id: it stays exact in every client's numbers
DEFLATE_BYTES = 1024  # what is shorter is not worth compressing

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = range(7)


class Encoding(IntEnum):
    """How a connection's packets are written: its codec, and whether it takes compressed frames."""

    JSON = 0
    MSGPACK = 1
    JSON_DEFLATED = 2
    MSGPACK_DEFLATED = 3

    @property
    def is_msgpack(self) -> bool:
        return bool(self & 1)

    def deflated(self) -> "Encoding":
        return Encoding(self | 2)

    def packed(self) -> "Encoding":
        return Encoding(self | 1)


class Packet:
    """A Socket.IO packet on its way out.

    `text` is what the default parser sends; each of the `attachments` follows it as a binary message of its own and has
    a placeholder in the text. A packet is never changed.
    """

    __slots__ = ("_messages", "_polled", "attachments", "frames", "text")

    def __init__(self, text: str, attachments: Sequence[bytes] = ()) -> None:
        self.text = text
        self.attachments = attachments
        self.frames: list[bytes | None] = [None, None, None, None]
        """WebSocket frames by encoding, None until the first connection asks for them."""
        self._messages: Sequence[str | bytes] | None = None
        self._polled: dict[int, bytes] | None = None

    def encode(self, encoding: Encoding) -> bytes:
        """The WebSocket frames of this packet; they are kept in `frames`."""
        if encoding & 2:
            made = b"".join(deflated_frame(*each, DEFLATE_BYTES) for each in self._payloads(encoding))
        else:
            made = b"".join(frame(*each) for each in self._payloads(encoding))
        self.frames[encoding] = made
        return made

    def messages(self, encoding: Encoding) -> Sequence[str | bytes]:
        """The Engine.IO messages of this packet, for a payload of polling."""
        if encoding.is_msgpack:
            if self._messages is None:
                self._messages = (self._packed(),)
            return self._messages
        return (self.text, *self.attachments)

    def payload(self, encoding: Encoding) -> bytes:
        """This packet as it stands in a payload of polling; made once for each codec."""
        at = encoding & 1
        if self._polled is None:
            self._polled = {}
        if at not in self._polled:
            messages = self.messages(encoding)
            self._polled[at] = encode_payload(f"4{each}" if isinstance(each, str) else each for each in messages)
        return self._polled[at]

    def _payloads(self, encoding: Encoding) -> Iterable[tuple[Kind, bytes]]:
        if encoding.is_msgpack:
            for message in self.messages(encoding):
                yield Kind.BINARY, message  # type: ignore[misc]
            return
        yield Kind.TEXT, f"4{self.text}".encode()
        for attachment in self.attachments:
            yield Kind.BINARY, attachment

    def _packed(self) -> bytes:
        received = _parse_text(self.text.encode())
        if self.attachments:
            received = received.filled(self.attachments)
        return packed(received.type, received.namespace, received.ack_id, received.data)

    def __repr__(self) -> str:
        return f"<{self.text[:60]}>"


def packed(kind: int, namespace: str, ack_id: int | None, data: Any) -> bytes:
    """A packet in msgpack. There a packet with bytes is an event or an ack like any other."""
    if kind in (BINARY_EVENT, BINARY_ACK):
        kind -= BINARY_EVENT - EVENT
    fields: dict[str, Any] = {"type": kind, "nsp": namespace}
    if data is not None:
        fields["data"] = data
    if ack_id is not None:
        fields["id"] = ack_id
    packed_: bytes = msgpack.packb(fields)
    return packed_


def event_packet(name: str, *arguments: str) -> Packet:
    """An event on the namespace `/`; `arguments` are JSON texts, the name is one that JSON need not escape."""
    return Packet(f'2["{name}",{",".join(arguments)}]')


def ack_packet(ack_id: int, argument: str) -> Packet:
    """The answer to an event on the namespace `/`; `argument` is a JSON text."""
    return Packet(f"3{ack_id}[{argument}]")


def packet_of(kind: int, namespace: str, ack_id: int | None = None, data: Any = None) -> Packet:
    """A packet made of values; bytes among them become attachments. Raises TypeError for what JSON has no word for."""
    attachments: list[bytes] = []
    try:
        text = "" if data is None else orjson.dumps(data).decode()
    except TypeError:
        text = orjson.dumps(_emptied(data, attachments)).decode()
    head = str(kind)
    if attachments:
        head = f"{kind + BINARY_EVENT - EVENT}{len(attachments)}-"
    where = "" if namespace == "/" else f"{namespace},"
    return Packet(f"{head}{where}{'' if ack_id is None else ack_id}{text}", attachments)


def _emptied(value: Any, attachments: list[bytes]) -> Any:
    """A value with a placeholder for each of its bytes, which are gathered in order."""
    if isinstance(value, bytes | bytearray | memoryview):
        attachments.append(bytes(value))
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(value, dict):
        return {key: _emptied(inner, attachments) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_emptied(inner, attachments) for inner in value]
    return value


class Received(NamedTuple):
    """A packet as it came. `attachments` is how many binary messages have to follow before it is whole."""

    type: int
    namespace: str
    ack_id: int | None
    data: Any
    attachments: int = 0

    def filled(self, attachments: Sequence[bytes]) -> "Received":
        """The whole packet, as one of a type without attachments: they are put into the data.

        Raises ValueError where a placeholder names none of them.
        """
        type_ = self.type - (BINARY_EVENT - EVENT)
        return Received(type_, self.namespace, self.ack_id, _filled(self.data, attachments))


def _filled(data: Any, attachments: Sequence[bytes]) -> Any:
    whole = [data]
    todo: list[Any] = [whole]
    while todo:
        holder = todo.pop()
        for at, value in holder.items() if type(holder) is dict else enumerate(holder):
            if type(value) is dict and value.get("_placeholder") is True:
                n = value.get("num")
                if type(n) is not int or not 0 <= n < len(attachments):
                    raise ValueError("a placeholder of no attachment")
                holder[at] = attachments[n]
            elif type(value) in (dict, list):
                todo.append(value)
    return whole[0]


def parse_text(data: bytes, at: int = 0) -> Received:
    """A client's packet of the default parser, from `at` on. Raises ValueError where it is malformed."""
    return _checked(_parse_text(data, at))


def _parse_text(data: bytes, at: int = 0) -> Received:
    if data[at : at + 1] == b"2":  # an event on `/`, as nearly all are
        start = data.find(b"[", at + 1)
        digits = data[at + 1 : start]
        if start == at + 1 or (digits.isdigit() and len(digits) <= ACK_DIGITS):
            return Received(EVENT, "/", int(digits) if digits else None, loads(data[start:]))
    found = _HEAD.match(data, at)
    if found is None:
        raise ValueError("a packet of an unknown type")
    kind, count, where, ack_id = found.groups()
    rest = data[found.end() :]
    if kind in (b"5", b"6"):
        if count is None:
            raise ValueError("how many attachments follow is not said")
        if int(count) > ATTACHMENTS:
            raise ValueError(f"more than {ATTACHMENTS} attachments")
    elif count is not None:
        raise ValueError("attachments of a packet that has none")
    namespace = where.decode().partition("?")[0] if where else "/"
    value = loads(rest) if rest else None
    return Received(int(kind), namespace, int(ack_id) if ack_id else None, value, int(count or 0))


_HEAD = re.compile(rb"([0-6])(?:(\d{1,4})-)?(?:(/[^,]*)(?:,|$))?(\d{1,%d}(?!\d))?" % ACK_DIGITS)


def parse_packed(data: bytes) -> Received:
    """A packet of the msgpack parser. Raises ValueError where it is malformed or holds what JSON has no word for.

    Bytes are the exception: they are what attachments are in JSON.
    """
    fields = unpacked(data)
    type_, namespace, ack_id = fields.get("type"), fields.get("nsp", "/"), fields.get("id")
    if type(type_) is not int or not CONNECT <= type_ <= CONNECT_ERROR or type(namespace) is not str:
        raise ValueError("a packet of an unknown type")
    if ack_id is not None and (type(ack_id) is not int or not 0 <= ack_id < 10**ACK_DIGITS):
        raise ValueError("an ack id beyond all measure")
    return _checked(Received(type_, namespace.partition("?")[0], ack_id, fields.get("data")))


def _checked(packet: Received) -> Received:
    """The packet, where its data is such as its type has. Raises ValueError."""
    kind, data = packet.type, packet.data
    if kind in (EVENT, BINARY_EVENT):
        if type(data) is not list or not data or type(data[0]) is not str:
            raise ValueError("not an event")
        if data[0] in RESERVED:
            raise ValueError("a reserved event")
    elif kind in (ACK, BINARY_ACK):
        if type(data) is not list:
            raise ValueError("not an ack")
    elif kind == CONNECT_ERROR or (kind == DISCONNECT and data is not None):
        raise ValueError("a packet that clients don't send")
    return packet


RESERVED = frozenset({"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"})
"""What the protocol's own clients say of themselves: from a client's packet it is an attempt to pass for the server."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("a number beyond all measure")
    return number


def _whole(digits: str) -> int | float:
    whole = int(digits) if len(digits) <= 20 else None  # as many as 64 bits take, a sign included
    return whole if whole is not None and -(2**63) <= whole < 2**64 else _finite(digits)  # as orjson has it


def loads(text: str | bytes, **_: Any) -> Any:
    """Decode JSON. Raises ValueError where it is malformed, NaN and Infinity included, or nested beyond all measure.

    orjson refuses lone surrogates outright, while the contract answers them with `invalid` and lets the socket live: a
    text that holds one is decoded by the standard library and judged with its payload.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # Of bytes the standard library would guess the encoding, and let halves of pairs through.
        decoded = text if isinstance(text, str) else text.decode()
        try:
            return json.loads(decoded, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole)
        except RecursionError:
            raise ValueError("nested too deep") from None


def dumps(value: Any, **_: Any) -> str:
    """Encode as JSON, compact. For what the engine itself says; payloads come encoded."""
    return orjson.dumps(value).decode()
