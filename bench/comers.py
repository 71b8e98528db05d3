"""Clients that come and go in every way there is, over their own sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import socket
import struct
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence

from server.cli.load.frames import CLOSE, TEXT, Frames, Malformed, handshake, masked

PATIENCE_S = 30.0
HANDSHAKE, _ = handshake("127.0.0.1")
NORMAL = b"\x03\xe8"  # why a websocket is closed: nothing is amiss


class Unexpected(Exception):
    """The server said something else than it should."""


def text_frame(text: str) -> bytes:
    """A client's frame."""
    return masked(text.encode())


class Comer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = Frames()
        self._heard: deque[tuple[int, bytes]] = deque()

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def upgrade(self) -> None:
        """Become a websocket, and hear Engine.IO's open packet."""
        self.send(HANDSHAKE)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 101"):
            raise Unexpected(answer[:80].decode())
        await self.hear("0{")

    async def connect(self, token: str) -> None:
        """Connect to the namespace, and hear the hello."""
        await self.upgrade()
        self.send(text_frame("40" + json.dumps({"token": token})))
        await self.hear("40{")
        await self.hear('42["hello"')

    async def hear(self, start: str) -> str:
        """The next frame that begins so. Pings are answered, pushes passed over; a refusal or an end is unexpected."""
        while True:
            opcode, payload = await self._frame()
            text = payload.decode(errors="replace")
            if text.startswith(start):
                return text
            if text == "2":
                self.send(text_frame("3"))
            elif opcode != TEXT or text.startswith(("44", "41", "1")):
                raise Unexpected(text[:120])

    async def hear_close(self) -> None:
        """The frame that closes the websocket."""
        while (await self._frame())[0] != CLOSE:
            pass

    async def _frame(self) -> tuple[int, bytes]:
        while not self._heard:
            data = await self._reader.read(65_536)
            if not data:
                raise EOFError("the server has gone")
            self._heard.extend(self._frames.feed(data))
        return self._heard.popleft()

    async def read_response(self) -> str:
        """An HTTP response with a length."""
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        lengths = [line.partition(":")[2] for line in head.splitlines() if line.lower().startswith("content-length:")]
        body = (await self._reader.readexactly(int(lengths[0]))).decode()
        if not head.startswith("HTTP/1.1 200"):
            raise Unexpected(head[:80])
        return body

    async def end(self) -> None:
        """Hear the server close its side."""
        async with asyncio.timeout(PATIENCE_S):
            while await self._reader.read(65_536):
                pass

    def cut(self, *, reset: bool) -> None:
        """Go without a word."""
        own = self._writer.get_extra_info("socket")
        if reset and own is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        else:
            self._writer.close()


class Comers:
    """Lets people (token and conversation) come to a port. Counts what they did; `wrong` is what went otherwise."""

    def __init__(self, port: int, people: Sequence[tuple[str, str]]) -> None:
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.acked: set[str] = set()
        self._port = port
        self._people = people
        self._numbers = itertools.count(1)
        self._ways: list[Callable[[Comer, random.Random], Awaitable[None]]] = [
            self.left,
            self.left_politely,
            self.talked,
            self.gone_before_the_ack,
            self.refused,
            self.cut_in_the_handshake,
            self.cut_before_connecting,
            self.cut_within_a_frame,
            self.cut_while_judged,
            self.polled,
            self.silent_poll,
            self.broken,
        ]

    async def one(self, draw: random.Random) -> None:
        """Somebody comes in one of the ways, and goes."""
        way = draw.choice(self._ways)
        try:
            async with asyncio.timeout(PATIENCE_S):
                comer = Comer(*await asyncio.open_connection("127.0.0.1", self._port))
                try:
                    await way(comer, draw)
                finally:
                    comer.cut(reset=draw.random() < 0.5)
        except (OSError, EOFError, TimeoutError, Malformed, Unexpected) as error:
            self.wrong.append(f"{way.__name__}: {error or type(error).__name__}")
        self.done[way.__name__.replace("_", " ")] += 1

    async def left(self, comer: Comer, draw: random.Random) -> None:
        await comer.connect(self._person(draw)[0])

    async def left_politely(self, comer: Comer, draw: random.Random) -> None:
        await comer.connect(self._person(draw)[0])
        if draw.random() < 0.5:  # Socket.IO's way and the websocket's, or the websocket's alone
            comer.send(text_frame("41"))
        comer.send(masked(NORMAL, CLOSE))
        await comer.end()

    async def talked(self, comer: Comer, draw: random.Random) -> None:
        token, conversation = self._person(draw)
        await comer.connect(token)
        client_id = self._send(comer, conversation)
        answer = await comer.hear("431[")
        if '"ok":true' not in answer:
            raise Unexpected(answer[:120])
        self.acked.add(client_id)

    async def gone_before_the_ack(self, comer: Comer, draw: random.Random) -> None:
        token, conversation = self._person(draw)
        await comer.connect(token)
        self._send(comer, conversation)

    async def refused(self, comer: Comer, draw: random.Random) -> None:
        await comer.upgrade()
        token = self._person(draw)[0]
        comer.send(text_frame("40" + json.dumps({"token": token[: draw.randrange(len(token))]})))
        await comer.hear("44{")

    async def cut_in_the_handshake(self, comer: Comer, draw: random.Random) -> None:
        comer.send(HANDSHAKE[: draw.randrange(len(HANDSHAKE))])

    async def cut_before_connecting(self, comer: Comer, draw: random.Random) -> None:
        if draw.random() < 0.5:
            comer.send(HANDSHAKE)
        else:
            await comer.upgrade()

    async def cut_within_a_frame(self, comer: Comer, draw: random.Random) -> None:
        token, conversation = self._person(draw)
        frame = text_frame("40" + json.dumps({"token": token}))
        if draw.random() < 0.5:
            await comer.upgrade()
        else:
            await comer.connect(token)
            frame = text_frame(self._message(conversation)[0])
        comer.send(frame[: draw.randrange(1, len(frame))])

    async def cut_while_judged(self, comer: Comer, draw: random.Random) -> None:
        await comer.upgrade()
        comer.send(text_frame("40" + json.dumps({"token": self._person(draw)[0]})))

    async def polled(self, comer: Comer, draw: random.Random) -> None:
        """Over polling to the hello, and a last word."""
        where = await self._open_poll(comer)
        for body in ("40" + json.dumps({"token": self._person(draw)[0]}), None, "1"):
            method = "GET" if body is None else "POST"
            said = "" if body is None else body
            comer.send(f"{method} {where} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(said)}\r\n\r\n{said}".encode())
            answer = await comer.read_response()
            if body is None and not answer.startswith("40{"):
                raise Unexpected(answer[:120])

    async def silent_poll(self, comer: Comer, draw: random.Random) -> None:
        await self._open_poll(comer)

    async def broken(self, comer: Comer, draw: random.Random) -> None:
        """Something that is no packet, and how the server closes for it."""
        await comer.upgrade()
        comer.send(text_frame(draw.choice(["x", "4", "4x", '42["connect"]', "42[", "9"])))
        await comer.hear_close()

    async def _open_poll(self, comer: Comer) -> str:
        where = "/socket.io/?EIO=4&transport=polling"
        comer.send(f"GET {where} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        sid = json.loads((await comer.read_response())[1:])["sid"]
        return f"{where}&sid={sid}"

    def _person(self, draw: random.Random) -> tuple[str, str]:
        return draw.choice(self._people)

    def _message(self, conversation: str) -> tuple[str, str]:
        client_id = f"soak-{next(self._numbers)}"
        payload = {"conversation_id": conversation, "client_id": client_id, "text": "somebody comes, somebody goes"}
        return "421" + json.dumps(["message:send", payload]), client_id

    def _send(self, comer: Comer, conversation: str) -> str:
        text, client_id = self._message(conversation)
        comer.send(text_frame(text))
        return client_id
