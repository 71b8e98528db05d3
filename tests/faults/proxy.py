"""A TCP proxy that can do to a connection what networks do: delay, throttle, swallow, cut, close by half, hang.

Each way has a road, whose conditions may be changed at any time, for the links that are there as for those to come.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from tests.faults.roads import Lane, Road

Target = tuple[str, int] | Path
"""A host and a port, or a unix socket."""

SEGMENT_BYTES = 1_440


class Proxy:
    """A port of its own, behind which is `target`; `up` leads there, `down` back. `target` may be changed.

    With `receive_bytes` the kernel holds about so much of what the target says, which soon feels who reads slowly.
    """

    def __init__(self, target: Target, *, receive_bytes: int | None = None) -> None:
        self.target = target
        self._receive_bytes = receive_bytes
        self.up, self.down = Road(), Road()
        self.hangs = False  # accept, and go nowhere: the links to come
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, on the port of before where there was one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Lane(self.up, self._accepted), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Listen no more: who comes is refused. The links that are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        """Listen no more, and reset every link."""
        await self.refuse()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def clear(self) -> None:
        """Be a proxy that does nothing."""
        self.hangs = False
        self.up.clear()
        self.down.clear()
        if self._server is None:
            await self.start()

    def reset(self) -> None:
        """End every link with a reset, in both directions."""
        for lane in [*self.up.lanes, *self.down.lanes]:
            lane.reset()

    @property
    def links(self) -> int:
        """How many are there."""
        return len(self.up.lanes)

    async def _socket(self, target: tuple[str, int]) -> socket.socket:
        own = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        own.setblocking(False)
        if self._receive_bytes is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
            # As over a network: of the loopback's segments, 64 KB each, the sender's kernel would hold megabytes.
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT_BYTES)
        try:
            await asyncio.get_running_loop().sock_connect(own, target)
        except BaseException:
            own.close()
            raise
        return own

    def _accepted(self, lane: Lane) -> None:
        if not self.hangs:
            task = asyncio.get_running_loop().create_task(self._connect(lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self, lane: Lane) -> None:
        loop = asyncio.get_running_loop()

        def make() -> Lane:
            return Lane(self.down, made)

        def made(back: Lane) -> None:
            back.other, lane.other = lane, back
            self.up.lanes.add(lane)  # again, where its client has left meanwhile: what it said last is to be passed on

        try:
            if isinstance(self.target, Path):
                await loop.create_unix_connection(make, str(self.target))
            else:
                await loop.create_connection(make, sock=await self._socket(self.target))
        except OSError:
            lane.reset()
            return
        lane.move()


async def cleared_after(seconds: float, *proxies: Proxy) -> None:
    """Leave these as they are for so long, and let everything pass then."""
    await asyncio.sleep(seconds)
    for proxy in proxies:
        await proxy.clear()
