"""Bad input by the thousand, from a seed: what a client might send that means no good, or is broken.

A visit is one connection with some frames on it, or one conversation over HTTP. The same seed makes the same visits.
`besiege` makes them and counts what came of them; whoever serves says what they have done to it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import struct
import types
import typing
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from server.commands.registry import commands
from server.wire.codec import RESERVED
from tests.wire.bare import BINARY, CLOSE, CONTINUATION, PING, TEXT, Raw, client_frame, deflated, handshake

FRAME_BYTES = 131_072
ANSWER_S = 20.0
"""Who is neither answered nor closed within this has been hung up on."""
NOT_CALLED = frozenset({"account:logout", "account:delete", "session:revoke"})  # after them nobody would be let in

SCALARS: Sequence[Any] = (
    None, True, False, 0, -1, 1, 7, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(10**30), 0.5, -0.0, 1e308, 5e-324,
    "", "x", " ", "\0", "\ud800", "\udfff\ud800", "🌙", "é" * 300, "y" * 12_000, "null", "[]", "__proto__", "1e999",
    "%00", "../../etc", "' or 1=1 --", "2026-11-20T17:00:00.000Z", "0000-00-00T00:00:00Z", str(uuid.UUID(int=0)), "USD",
)  # fmt: skip


@dataclass(slots=True)
class Visit:
    """What one client does: bytes to write, with a turn of the loop between any two, and how it goes."""

    kind: str
    writes: list[bytes]
    frames: int
    end: str  # ask: a ping, and wait for its pong or the close; cut; half: close this side and read to the end
    is_websocket: bool = True


@dataclass(slots=True)
class Tally:
    """What came of the visits."""

    frames: int = 0
    visits: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Mischief:
    """Makes visits. `tokens` are of people who may connect; `ids` are of things that there are."""

    def __init__(self, seed: int, tokens: Sequence[str], ids: Sequence[str] = ()) -> None:
        self._random = random.Random(seed)
        self._tokens = tokens
        self._ids = ids
        self._commands = [command for command in commands.values() if command.name not in NOT_CALLED]

    def visits(self) -> Iterator[Visit]:
        """Without end."""
        kinds: Sequence[tuple[int, Callable[[], Visit]]] = (
            (40, self._talk_in_json),
            (25, self._talk_in_msgpack),
            (15, self._break_the_framing),
            (8, self._poll),
            (6, self._shake_badly),
            (6, self._shake_slowly),
        )
        while True:
            yield self._random.choices([make for _, make in kinds], [weight for weight, _ in kinds])[0]()

    # values

    def value(self, levels: int = 3) -> Any:
        """Anything that JSON can say."""
        dice = self._random.random()
        if levels and dice < 0.12:
            return [self.value(levels - 1) for _ in range(self._random.randrange(4))]
        if levels and dice < 0.24:
            return {str(self._random.choice(SCALARS[18:])): self.value(levels - 1) for _ in range(3)}
        if dice < 0.28:
            return {"_placeholder": True, "num": self._random.choice([-1, 0, 1, 99, "0", None, 0.0])}
        if dice < 0.30:
            return self._nest(self._random.choice([15, 16, 17, 60, 200]))
        if dice < 0.40 and self._ids:
            return self._random.choice(self._ids)
        return self._random.choice(SCALARS)

    def _nest(self, levels: int) -> Any:
        value: Any = 1
        for _ in range(levels):
            value = [value] if self._random.random() < 0.5 else {"a": value}
        return value

    def _arguments(self, *, is_civil: bool = False) -> list[Any]:
        """An event's name and what it carries: most often a command, with fields of its own and wrong ones in them."""
        if not is_civil and self._random.random() < 0.1:
            return [self._random.choice([*sorted(RESERVED), "", "\ud800", 5, None, "x" * 5_000]), self.value()]
        command = self._random.choice(self._commands)
        if self._random.random() < 0.15:
            return [command.name, *(self.value() for _ in range(self._random.randrange(4)))]
        fields = typing.get_type_hints(command.payload)
        payload = {name: self._fitting(type_) for name, type_ in fields.items() if self._random.random() < 0.85}
        if self._random.random() < 0.1:
            payload[str(self.value(0))] = self.value()
        return [command.name, payload]

    def _fitting(self, type_: Any) -> Any:
        """A value that may do for a field, so that some get further than the first look."""
        options = typing.get_args(type_) if isinstance(type_, types.UnionType) else (type_,)
        dice = self._random.random()
        if dice < 0.3:
            return self.value()
        if uuid.UUID in options and self._ids:
            return self._random.choice(self._ids)
        if str in options:
            return self._random.choice(["x", "hello", "🌙", uuid.UUID(int=self._random.getrandbits(128)).hex])
        if int in options:
            return self._random.choice([0, 1, 2, 50, 10**6, 2**53])
        return self.value()

    # packets in text

    def _packet(self) -> list[str | bytes]:
        """An Engine.IO message with what follows it, or what is none."""
        choice = self._random.random()
        ack = self._random.choice(["", "0", "7", "123", "9" * 15, "9" * 16, "9" * 400, "-1"])
        text = json.dumps(self._arguments())
        if choice < 0.45:
            return [f"42{ack}{text}"]
        if choice < 0.55:
            return [self._spoil(f"42{ack}{text}")]
        if choice < 0.60:
            return [
                self._random.choice(["42[", "42{", "40[", "43", '42["x",'])
                + "[" * self._random.choice([20, 999, 100_000])
            ]
        if choice < 0.65:
            head = self._random.choice(["2", "3", "50-", "51-", "52-", "61-"])
            name = self._random.choice(self._commands).name
            return [f'4{head}{ack}["{name}",{self._deep()}]', *[b"x"] * self._random.randrange(3)]
        if choice < 0.75:
            announced = self._random.choice(["0", "1", "2", "3", "10", "11", "99999", "", "-1"])
            sent = [
                self._random.randbytes(self._random.choice([0, 1, 5, 60_000])) for _ in range(self._random.randrange(4))
            ]
            return [f"4{self._random.choice('56')}{announced}-{ack}{text}", *sent]
        if choice < 0.82:
            where = self._random.choice(["/admin,", "/,", "/\ud7ff,", "/" + "x" * 3_000, "/a?b=" + "c" * 99 + ","])
            return [f"4{self._random.randrange(8)}{where}{ack}{text}"]
        if choice < 0.90:
            return [
                self._random.choice(
                    ["0{}", "1", "2", "2probe", "3", "3x", "5", "6", "7", "b" * 9, "4", "", "44{}", "41{}"]
                )
            ]
        if choice < 0.95:
            return [f"4{self._random.choice('0134')}{ack}{text}"]
        return [
            '42["message:send",{"text":"' + "x" * self._random.choice([FRAME_BYTES - 60, FRAME_BYTES, 300_000]) + '"}]'
        ]

    def _deep(self) -> str:
        """JSON in which all that is opened is closed again: there is nothing wrong with it but how deep it is."""
        levels = self._random.choice([17, 100, 600, 1_000, 1_100, 20_000])
        inner = self._random.choice(["1", '{"_placeholder":true,"num":0}', r'"\ud800"'])
        opening, closing = self._random.choice([("[", "]"), ('{"a":', "}"), ('{"a":[', "]}")])
        return opening * levels + inner + closing * levels

    def _spoil(self, text: str) -> str | bytes:
        data = bytearray(text.encode())
        at = self._random.randrange(len(data))
        match self._random.randrange(5):
            case 0:
                del data[at:]
            case 1:
                data[at] = self._random.randrange(256)
            case 2:
                data[at:at] = self._random.choice(
                    [b"\xed\xa0\x80", b"\xc0\xaf", b"\xff", b"\0", b"NaN", b"1e999", b"\xef\xbb\xbf"]
                )
            case 3:
                data += bytes(data)
            case 4:
                data = bytearray(text.encode("utf-16-le"))
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode()
        return bytes(data)

    def _talk_in_json(self) -> Visit:
        writes, frames = [], 0
        dice = self._random.random()
        if dice < 0.9:
            auth = json.dumps({"token": self._random.choice(self._tokens)} if dice < 0.7 else self.value())
            writes.append(client_frame(TEXT, f"40{auth if dice < 0.85 else self._deep()}".encode()))
            frames += 1
        is_civil = self._random.random() < 0.5  # in form, that is
        for n in range(self._random.randint(1, 8)):
            for each in [f"42{n}{json.dumps(self._arguments(is_civil=True))}"] if is_civil else self._packet():
                is_text = isinstance(each, str) or self._random.random() < 0.3
                data = each.encode(errors="surrogatepass") if isinstance(each, str) else each
                writes.append(client_frame(TEXT if is_text else BINARY, data, mask=b"\0\0\0\0"))
                frames += 1
        return Visit("json", writes, frames, self._end())

    # packets in msgpack

    def _packed(self, *, is_civil: bool) -> bytes:
        if is_civil:
            return _pack({"type": 2, "nsp": "/", "data": self._arguments(is_civil=True), "id": 7}, halves="replace")
        if self._random.random() < 0.12:
            size = self._random.choice([9, 1_000, FRAME_BYTES - 1])
            claim = self._random.choice([b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"]) + (size - 5).to_bytes(4)
            return (b"\x84\xa4data" + claim * self._random.choice([1, 100, 1_000]) + bytes(size))[:size]
        event = _pack({"type": 2, "nsp": "/", "id": 7, "data": [self._random.choice(self._commands).name, 0]})[:-1]
        if self._random.random() < 0.1:  # lists within lists that claim what there may be, and is not
            claim = self._random.choice([b"\xdc\x20\x00", b"\xdc\x01\x00", b"\xdd\x00\x01\x00\x00", b"\xde\x20\x00"])
            return self._random.choice([b"", event]) + claim * self._random.choice([80, 1_000, 20_000])
        if self._random.random() < 0.1:
            levels = self._random.choice([17, 70, 600, 1_000, 1_100, 30_000])
            opening = self._random.choice([b"\x91", b"\x81\xa1a", b"\x81\xa4data"])
            return self._random.choice([b"", event]) + opening * levels + self._random.choice([b"", b"\xc0"])
        fields: dict[Any, Any] = {
            "type": 2,
            "nsp": "/",
            "data": self._arguments(),
            "id": self._random.choice([0, 7, 10**15]),
        }
        if self._random.random() < 0.3:
            fields[self._random.choice(["type", "nsp", "data", "id", "options", 5])] = self.value()
        if self._random.random() < 0.2:
            odd = [
                msgpack.ExtType(0, b"\0"),
                msgpack.ExtType(9, b"x"),
                msgpack.Timestamp(1),
                float("nan"),
                float("inf"),
                b"\xff",
            ]
            fields["data"] = ["message:send", {"text": self._random.choice(odd), "conversation_id": self.value()}]
        data = bytearray(_pack(fields))
        if self._random.random() < 0.25:
            at = self._random.randrange(len(data))
            data[at:] = self._random.choice([b"", b"\xc1", b"\xff" * 5, data[at:] * 2, self._random.randbytes(20)])
        return bytes(data)

    def _talk_in_msgpack(self) -> Visit:
        connect = {"type": 0, "nsp": "/", "data": {"token": self._random.choice(self._tokens)}}
        if self._random.random() < 0.15:
            connect[self._random.choice(["type", "nsp", "data"])] = self.value()
        writes = [client_frame(BINARY, _pack(connect))]
        is_civil = self._random.random() < 0.5
        packets = [self._packed(is_civil=is_civil) for _ in range(self._random.randint(1, 8))]
        writes += [client_frame(BINARY, packet, mask=b"\0\0\0\0") for packet in packets]
        return Visit("msgpack", writes, len(writes), self._end())

    # frames

    def _break_the_framing(self) -> Visit:
        token = self._random.choice(self._tokens)
        writes = (
            [client_frame(TEXT, b"40" + json.dumps({"token": token}).encode())] if self._random.random() < 0.7 else []
        )
        whole = b"42" + json.dumps(self._arguments()).encode()
        size = self._random.choice([125, 126, 2**16, FRAME_BYTES, FRAME_BYTES + 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
        breach = self._random.randrange(8)
        match breach:
            case 0:  # tiny fragments, with control frames in between
                writes.append(client_frame(TEXT, whole[:1], final=False))
                for n in range(1, min(len(whole), 120)):
                    writes.append(client_frame(CONTINUATION, whole[n : n + 1], final=False))
                    if self._random.random() < 0.1:
                        writes.append(client_frame(PING, b"p"))
                writes.append(client_frame(CONTINUATION, whole[120:]))
            case 1:  # a fragmented message that is never done
                writes += [client_frame(TEXT, b"4" * 999, final=False)]
                writes += [client_frame(CONTINUATION, b"", final=False) for _ in range(50)]
            case 2:
                writes.append(b"\x81" + b"\xff" + struct.pack("!Q", size) + b"mask" + b"x" * 99)
            case 3:
                writes.append(client_frame(self._random.randrange(16), whole[:100], rsv=self._random.randrange(8)))
            case 4:
                writes.append(client_frame(TEXT, deflated(whole), rsv=4))
            case 5:
                code = self._random.choice([0, 999, 1000, 1004, 1005, 1006, 1015, 2999, 3000, 4999, 65_535])
                writes.append(
                    client_frame(
                        CLOSE, struct.pack("!H", code) + self._random.randbytes(self._random.choice([0, 5, 130]))
                    )
                )
            case 6:
                writes.append(self._random.randbytes(self._random.choice([1, 50, 5_000])))
            case 7:
                frame = client_frame(TEXT, whole)
                writes.append(frame[: self._random.randrange(len(frame))])
        end = self._end()
        if breach in (2, 6, 7) and end == "ask":  # a frame that is not whole swallows the ping
            end = self._random.choice(["cut", "half"])
        return Visit("frames", writes, len(writes), end)

    # HTTP

    def _request(self, method: str, query: str, body: bytes = b"", length: int | None = None) -> bytes:
        size = len(body) if length is None else length
        return f"{method} /socket.io/?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + body

    def _poll(self) -> Visit:
        """Over one connection, without waiting for answers: the session's id is put where {sid} stands."""
        bodies = [
            "\x1e".join(map(str, self._packet())).encode(errors="replace") for _ in range(self._random.randint(1, 4))
        ]
        auth = json.dumps({"token": self._random.choice(self._tokens)})
        writes = [
            self._request("GET", "EIO=4&transport=polling"),
            self._request("POST", "EIO=4&transport=polling&sid={sid}", f"40{auth}".encode()),
        ]
        for body in bodies:
            odd = self._random.choice(
                [body, body * 3, b"b" + body, b"b!!!", b"\x1e" * 9, b"", b"\xff\xfe", b"4" * (FRAME_BYTES + 1)]
            )
            method = self._random.choice(["POST", "POST", "POST", "GET", "PUT", "OPTIONS", "HEAD", "DELETE"])
            length = self._random.choice([None, None, None, len(odd) + 50, max(0, len(odd) - 1), 10**12])
            writes.append(self._request(method, "EIO=4&transport=polling&sid={sid}", odd, length))
        return Visit("polling", writes, len(writes), "cut", is_websocket=False)

    def _shake_badly(self) -> Visit:
        queries = [
            "",
            "EIO=3&transport=websocket",
            "EIO=4&transport=websocket&sid=x",
            "EIO=4&transport=x",
            "EIO=4&transport=websocket",
            "%" * 99,
        ]
        headers = self._random.choice(
            [
                {"Sec-WebSocket-Key": self._random.choice(["", "x", "AAAA", "é"])},
                {"Sec-WebSocket-Version": self._random.choice(["", "8", "x"])},
                {
                    "Sec-WebSocket-Extensions": self._random.choice(
                        ["permessage-deflate; server_max_window_bits=1", ";;,=", "x" * 4_000]
                    )
                },
                {"Origin": self._random.choice(["null", "http://evil.example", "x" * 4_000])},
                {"Upgrade": "h2c"},
                {"Connection": "close"},
                {"X-Long": "y" * self._random.choice([100, 9_000, 70_000])},
                {"Content-Length": "5"},
                {"Transfer-Encoding": "chunked"},
            ]
        )
        data = bytearray(handshake("/socket.io/?" + self._random.choice(queries), key=self._key(), headers=headers))
        if self._random.random() < 0.3:
            data[self._random.randrange(len(data))] = self._random.randrange(256)
        return Visit(
            "handshakes",
            [bytes(data), client_frame(TEXT, b"40")],
            2,
            self._random.choice(["cut", "half"]),
            is_websocket=False,
        )

    def _shake_slowly(self) -> Visit:
        data = handshake("/socket.io/?EIO=4&transport=websocket", key=self._key())
        upto = self._random.randrange(1, len(data))
        writes = [data[n : n + 1] for n in range(upto)][:80]
        return Visit("slow", writes, 1, "cut", is_websocket=False)

    def _key(self) -> str:
        return base64.b64encode(self._random.randbytes(16)).decode()

    def _end(self) -> str:
        return self._random.choices(["ask", "cut", "half"], [6, 3, 1])[0]


def _pack(fields: dict[Any, Any], *, halves: str = "surrogatepass") -> bytes:
    """In msgpack, halves of pairs as text that is not UTF-8."""
    packed: bytes = msgpack.packb(_sayable(fields), unicode_errors=halves)
    return packed


def _sayable(value: Any) -> Any:
    """The value with its integers as what 64 bits hold."""
    if isinstance(value, dict):
        return {key: _sayable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sayable(inner) for inner in value]
    return max(-(2**63), min(value, 2**64 - 1)) if isinstance(value, int) and not isinstance(value, bool) else value


async def besiege(
    port: int, mischief: Mischief, frames: int, at_once: int, told: Callable[[Tally], None] = lambda _: None
) -> Tally:
    """Make visits until so many frames have been sent."""
    tally = Tally()
    visits = mischief.visits()

    async def come() -> None:
        while tally.frames < frames:
            visit = next(visits)
            tally.frames += visit.frames
            tally.visits[visit.kind] += 1
            await _pay(visit, port, tally)
            told(tally)

    await asyncio.gather(*(come() for _ in range(at_once)))
    return tally


async def _pay(visit: Visit, port: int, tally: Tally) -> None:
    raw = Raw(*await asyncio.open_connection("127.0.0.1", port))
    try:
        async with asyncio.timeout(ANSWER_S):
            tally.ends[await _behave(visit, raw, tally)] += 1
    except TimeoutError:
        tally.wrong.append(f"neither answered nor closed: {visit.kind} {b''.join(visit.writes)[:300]!r}")
    except (asyncio.IncompleteReadError, OSError):
        tally.ends["cut by the server"] += 1
    finally:
        raw.cut()


async def _behave(visit: Visit, raw: Raw, tally: Tally) -> str:
    sid = ""
    if visit.is_websocket:
        raw.writer.write(handshake("/socket.io/?EIO=4&transport=websocket"))
        await raw.answer()
    for n, data in enumerate(visit.writes):
        if visit.kind == "polling" and n == 1:
            head = await raw.answer()
            body = await raw.reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
            sid = json.loads(body[1:])["sid"]
        raw.writer.write(data.replace(b"{sid}", sid.encode(), 1) if sid else data)
        await asyncio.sleep(0)
    if visit.end == "cut":
        return "cut by the client"
    if visit.end == "half":
        raw.writer.write_eof()
        said = await raw.reader.read()
        _judge(said, visit, tally)
        return "half closed"
    raw.writer.write(client_frame(PING, b"are you there"))
    while True:
        frame = await raw.frame()
        _judge(frame.payload, visit, tally)
        if frame.opcode == CLOSE:
            return f"closed with {int.from_bytes(frame.payload)}"
        if frame.payload == b"are you there":
            return "lives"


def _judge(said: bytes, visit: Visit, tally: Tally) -> None:
    if b'"internal"' in said or b"\xa8internal" in said:
        tally.wrong.append(f"internal: {said[:200]!r} for {b''.join(visit.writes)[:600]!r}")
