"""Who is in which namespace and room: python-socketio's manager, for many clients and without a task an emit."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import socketio

from server.wire.codec import EVENT, packet_of

if TYPE_CHECKING:
    from server.wire.socketio import Server


class _Clients(dict[str, str]):
    """Who is in a namespace: sids, each with its session's, and the other way round.

    In place of the library's `bidict`, of which it uses this much and whose writes take a tenth of a connect.
    """

    __slots__ = ("_invm",)

    def __init__(self) -> None:
        super().__init__()
        self._invm: dict[str, str] = {}

    def __setitem__(self, sid: str, eio_sid: str) -> None:
        super().__setitem__(sid, eio_sid)
        self._invm[eio_sid] = sid

    def __delitem__(self, sid: str) -> None:
        del self._invm[self.pop(sid)]


class Members(socketio.AsyncManager):  # type: ignore[misc]
    """python-socketio's rooms, knowing which ones a client is in.

    The library looks through every room there is when a client leaves, keeps a room for each client, which takes a
    kilobyte, and starts a task for each recipient: 8,000 clients that went at once held the loop for 4.2 s. Here a
    client's own room is not stored, and an emit encodes once and writes.
    """

    server: "Server"

    def __init__(self) -> None:
        super().__init__()
        self._entered: dict[tuple[str, str], set[str]] = {}
        self._awaited: dict[tuple[str, str], asyncio.Event] = {}
        self.pending_connect: dict[str, set[str]] = {}
        self.pending_disconnect: dict[str, set[str]] = {}

    def enter(self, sid: str, namespace: str, eio_sid: str) -> None:
        """A client is in a namespace, which it must have left if it has been there before."""
        self.basic_enter_room(sid, namespace, None, eio_sid=eio_sid)

    async def left(self, eio_sid: str, namespace: str) -> None:
        """Wait until a session that is leaving a namespace has left it: its handler takes what time it likes."""
        sid = self.sid_from_eio_sid(eio_sid, namespace)
        if sid is not None:
            await self._awaited.setdefault((namespace, sid), asyncio.Event()).wait()

    async def pre_connect(self, eio_sid: str, namespace: str) -> str:
        sid: str = self.server.eio.generate_id()
        self.enter(sid, namespace, eio_sid)
        self.pending_connect.setdefault(namespace, set()).add(sid)
        return sid

    async def connect(self, sid: str, namespace: str) -> str:
        self.pending_connect.get(namespace, set()).discard(sid)
        return sid

    def pre_disconnect(self, sid: str, namespace: str) -> str | None:
        self.pending_disconnect.setdefault(namespace, set()).add(sid)
        return self.eio_sid_from_sid(sid, namespace)  # type: ignore[no-any-return]

    def basic_disconnect(self, sid: str, namespace: str, **_: Any) -> None:
        for room in self._entered.pop((namespace, sid), ()):
            super().basic_leave_room(sid, namespace, room)
        super().basic_leave_room(sid, namespace, None)
        self.callbacks.pop(sid, None)
        for pending in (self.pending_connect, self.pending_disconnect):
            pending.get(namespace, set()).discard(sid)
        awaited = self._awaited.pop((namespace, sid), None)
        if awaited is not None:
            awaited.set()

    def basic_enter_room(self, sid: str, namespace: str, room: str | None, eio_sid: str | None = None) -> None:
        if room is None:
            members = self.rooms.setdefault(namespace, {}).setdefault(None, _Clients())
            members[sid] = eio_sid
        elif room != sid:
            super().basic_enter_room(sid, namespace, room, eio_sid=eio_sid)
            self._entered.setdefault((namespace, sid), set()).add(room)

    def basic_leave_room(self, sid: str, namespace: str, room: str | None) -> None:
        super().basic_leave_room(sid, namespace, room)
        entered = self._entered.get((namespace, sid))
        if entered is not None and room is not None:
            entered.discard(room)
            if not entered:
                del self._entered[namespace, sid]

    def get_participants(self, namespace: str, room: Any) -> Iterator[tuple[str, str]]:
        rooms = self.rooms.get(namespace, {})
        everybody = rooms.get(None, {})
        found: dict[str, str] = {}
        for name in room if isinstance(room, list | tuple) else (room,):
            if name in everybody and name is not None:
                found[name] = everybody[name]
            else:
                found.update(rooms.get(name, {}))
        yield from found.items()

    def get_rooms(self, sid: str, namespace: str) -> list[str]:
        return [sid, *self._entered.get((namespace, sid), ())]

    async def emit(
        self,
        event: str,
        data: Any,
        namespace: str,
        room: Any = None,
        skip_sid: Any = None,
        callback: Any = None,
        to: Any = None,
        **_: Any,
    ) -> None:
        arguments = list(data) if isinstance(data, tuple) else [] if data is None else [data]
        skipped = skip_sid if isinstance(skip_sid, list) else [skip_sid]
        packet = None if callback else packet_of(EVENT, namespace, None, [event, *arguments])
        for sid, eio_sid in self.get_participants(namespace, to or room):
            if sid not in skipped:
                ack_id = self._generate_ack_id(sid, callback) if packet is None else None
                self.server.push(eio_sid, namespace, packet or packet_of(EVENT, namespace, ack_id, [event, *arguments]))

    async def trigger_callback(self, sid: str, id: int, data: list[Any]) -> None:  # noqa: A002 (the library's name)
        callback = self.callbacks.get(sid, {}).pop(id, None) if id else None
        if callback is not None:
            answer = callback(*data)
            if inspect.isawaitable(answer):
                await answer

    def forget_callback(self, sid: str, callback: Callable[..., Any]) -> None:
        """Wait for a client's answer no more."""
        waiting = self.callbacks.get(sid, {})
        for ack_id in [ack_id for ack_id, each in waiting.items() if each is callback]:
            del waiting[ack_id]
