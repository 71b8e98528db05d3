"""The ways through a proxy, each with conditions that may be changed at any time, and a link's lane on each of them.

What a road holds is never thrown away, since TCP does not do that either: it comes later, or the link ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import cast

HELD_BYTES = 65_536  # that wait on a road before its sender is not read any more, as with a window that is full
PIECES_S = 0.02  # a throttled road passes what is due so often


class Road:
    """One way through a proxy; its conditions hold for every link."""

    def __init__(self) -> None:
        self.lanes: set[Lane] = set()
        self.clear()

    def clear(self) -> None:
        """Let everything pass as it comes, what has been held first."""
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.is_open = True
        self.reset_after: int | None = None
        self._move()

    def delay(self, seconds: float) -> None:
        """Let every byte take so long."""
        self.delay_s = seconds

    def throttle(self, bytes_per_s: float) -> None:
        """Let so much of each link pass, and no more."""
        self.bytes_per_s = bytes_per_s

    def close(self) -> None:
        """Let nothing pass, an end neither: a black hole."""
        self.is_open = False

    def cut_after(self, count: int) -> None:
        """Let so many more bytes of each link pass, and reset it amid what comes then."""
        self.reset_after = count
        for lane in self.lanes:
            lane.passed = 0

    def end(self) -> None:
        """Tell the far side of each link that nothing more will come this way; the other way goes on."""
        for lane in list(self.lanes):
            lane.end()

    def _move(self) -> None:
        for lane in list(self.lanes):
            lane.move()

    @property
    def is_clear(self) -> bool:
        return self.is_open and not self.delay_s and self.bytes_per_s is None and self.reset_after is None


class Lane(asyncio.Protocol):
    """A link's one way: reads one socket, and writes to the other."""

    def __init__(self, road: Road, made: Callable[[Lane], None]) -> None:
        self.passed = 0  # bytes, since the road is to be cut
        self.other: Lane | None = None
        self._road = road
        self._made = made
        self.port = 0  # of its own socket
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes | None]] = deque()  # when it is due, and what; None is the end
        self._waiting_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_full = False  # the far socket takes no more for now
        self._is_lost = False
        self._is_ended = False  # nothing more is written
        self._has_heard_all = False  # nothing more is read
        self._allowed = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        own = transport.get_extra_info("sockname")
        self.port = own[1] if isinstance(own, tuple) else 0
        self._road.lanes.add(self)
        self._made(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self.end()  # the far side hears of it when it has heard the rest, even where it is still being dialled
        if self.other is None:
            self._road.lanes.discard(self)

    def data_received(self, data: bytes) -> None:
        if not self._waiting and self.other is not None and self._road.is_clear:
            self.other.write(data)
        else:
            self._waiting_bytes += len(data)
            self._wait(data)
            self._pace()

    def eof_received(self) -> bool:
        self._has_heard_all = True
        self.end()
        if self._is_ended and self._transport is not None:
            self._transport.close()
        return True  # the other way stays open, unless it has ended before

    def end(self) -> None:
        """Tell the far side, behind all that waits, that nothing more comes; this lane's own socket stays as it is."""
        self._wait(None)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other._is_full = True
            self.other._pace()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other._is_full = False
            self.other._pace()

    def _pace(self) -> None:
        """Read on, or not, as what waits allows."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_full or self._waiting_bytes > HELD_BYTES:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _wait(self, data: bytes | None) -> None:
        self._waiting.append((asyncio.get_running_loop().time() + self._road.delay_s, data))
        self.move()

    def move(self) -> None:
        """Pass on what may go now."""
        loop, road = asyncio.get_running_loop(), self._road
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if road.bytes_per_s is not None:
            self._allowed = road.bytes_per_s * PIECES_S
        while self._waiting and road.is_open and self.other is not None:
            due, data = self._waiting[0]
            if road.delay_s and due > loop.time():
                self._timer = loop.call_at(due, self.move)
                break
            if data is None:
                self._waiting.popleft()
                self.other.write_eof()
            elif road.bytes_per_s is None:
                self._waiting.popleft()
                self._pass(data)
            elif self._allowed < 1:
                self._timer = loop.call_later(PIECES_S, self.move)
                break
            else:
                piece, rest = data[: int(self._allowed)], data[int(self._allowed) :]
                self._allowed -= len(piece)
                self._waiting.popleft()
                if rest:
                    self._waiting.appendleft((due, rest))
                self._pass(piece)
        if self._is_lost and not self._waiting:
            self._road.lanes.discard(self)
        self._pace()

    def _pass(self, data: bytes) -> None:
        assert self.other is not None
        self._waiting_bytes -= len(data)
        if (most := self._road.reset_after) is not None and self.passed + len(data) > most:
            data = data[: max(0, most - self.passed)]
            self.other.write(data)
            self.reset()
            self.other.reset()
        else:
            self.passed += len(data)
            self.other.write(data)

    def write(self, data: bytes) -> None:
        """Write to this lane's own socket; what comes behind an end that was made up is dropped."""
        if self._transport is not None and not self._transport.is_closing() and not self._is_ended:
            self._transport.write(data)

    def write_eof(self) -> None:
        """Say to this lane's own socket that nothing more comes."""
        if self._transport is None or self._transport.is_closing():
            return
        self._is_ended = True
        with contextlib.suppress(OSError):  # it has ended by itself, which is about to be told
            self._transport.write_eof()
        assert self.other is not None
        if self._has_heard_all or self.other._transport is None or self.other._transport.is_closing():
            self._transport.close()

    def reset(self) -> None:
        """End this lane's own socket with a reset, behind what has been written."""
        if self._transport is None:
            return
        own: socket.socket | None = self._transport.get_extra_info("socket")  # None when it has ended
        if own is not None and own.family != socket.AF_UNIX:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._waiting.clear()
        self._transport.abort()
