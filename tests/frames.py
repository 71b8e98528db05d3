"""A person's socket, frame by frame: what a command is answered to the letter, which clients decode and drop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.people import PATIENCE_S, ConnectRefused, Instance


class Wire:
    """A websocket that is connected to the namespace."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self._ws = ws
        self._asked = 0

    async def connect(self, token: str) -> None:
        """Raises `ConnectRefused`."""
        await self._hearing("0{")
        await self._ws.send_str("40" + json.dumps({"token": token}))
        frame = await self._hearing("40", "44")
        if frame.startswith("44"):
            raise ConnectRefused(json.loads(frame[2:]))

    async def ask(self, command: str, payload: Mapping[str, Any]) -> str:
        """The ack's arguments, as they were encoded."""
        self._asked += 1
        await self._ws.send_str(f"42{self._asked}{json.dumps([command, payload])}")
        ack = f"43{self._asked}"
        return (await self._hearing(f"{ack}[")).removeprefix(ack)

    async def _hearing(self, *starts: str) -> str:
        """The next frame that begins with one of these; what comes before it is pushes and pings."""
        async with asyncio.timeout(PATIENCE_S):
            while not (frame := await self._ws.receive_str()).startswith(starts):
                if frame == "2":
                    await self._ws.send_str("3")
        return frame


@asynccontextmanager
async def wired(parley: Instance, token: str) -> AsyncIterator[Wire]:
    """A socket of whoever has this token. Raises `ConnectRefused`."""
    async with parley.http.ws_connect(f"{parley.url}/socket.io/?EIO=4&transport=websocket") as ws:
        one = Wire(ws)
        await one.connect(token)
        yield one
