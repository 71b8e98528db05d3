"""Shown out in the middle of a connection, by way of another instance, whatever becomes of the bus.

Within two seconds of the answer a socket is out of the room, or closed; and nothing of what came behind is heard on it.
All of it happens at the worst moment: the other instance has just compared its heads with the log.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from uuid import UUID, uuid4

import pytest
import socketio

from server.commands.tokens import new_stored_token
from server.rooms import comparison
from server.rooms.names import parse
from server.rooms.sockets import Socket
from storage import resets
from tests.hostile.conftest import Pair
from tests.market import thread_of
from tests.people import PASSWORD, PATIENCE_S, ConnectRefused, Device, Instance, Person, Push, Refusal
from tests.threads import make_admin

OUT_S = 2.0  # from the answer, which follows the commit

Record = Callable[[str, object], None]


async def leaves(owner: Person, target: Person, talk: str) -> None:
    await target.post("conversation:leave", conversation_id=talk)


async def is_removed(owner: Person, target: Person, talk: str) -> None:
    await owner.post("participant:remove", conversation_id=talk, user_id=target.user_id)


async def leaves_the_thread(owner: Person, target: Person, talk: str) -> None:
    await target.post("thread:leave", thread_id=talk)


OUT_OF_THE_ROOM = {
    "conversation": [(leaves, "participant:removed"), (is_removed, "participant:removed")],
    "thread": [(leaves_the_thread, "member:left")],
}


@pytest.mark.parametrize("in_silence", [False, True], ids=["amid talk", "in silence"])
@pytest.mark.parametrize("kind", OUT_OF_THE_ROOM)
async def test_who_is_out_of_a_room_hears_and_says_nothing_more_there(
    pair: Pair, record_property: Record, kind: str, in_silence: bool
) -> None:
    ways = [(show_out, told, await _circle(pair, kind)) for show_out, told in OUT_OF_THE_ROOM[kind]]
    pair.strike()
    await _just_compared(pair)

    async def one(show_out: Callable[..., Awaitable[None]], told: str, circle: _Circle) -> None:
        await show_out(circle.owner, circle.target, circle.talk)
        seconds = await circle.is_out(told, time.monotonic(), in_silence=in_silence)
        record_property(show_out.__name__, f"{seconds:.2f} s")
        assert seconds <= OUT_S, show_out.__name__

    await asyncio.gather(*(one(*way) for way in ways))


async def _just_compared(pair: Pair) -> None:
    """Wait until the second instance has compared its heads with the log: the next look is the farthest away."""
    compared = pair.two.parley.delivery.comparison
    looked = compared._snapshot
    async with asyncio.timeout(10):
        while compared._snapshot is looked:
            await asyncio.sleep(0.002)


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are compared every three seconds, from the next look on."""
    monkeypatch.setattr(comparison, "COMPARE_S", 3.0)


@pytest.mark.parametrize("pair", ["a bus that loses everything"], indirect=True)
async def test_a_removal_that_is_found_too_late_is_caught(pair: Pair, seldom: None, record_property: Record) -> None:
    with pytest.raises(AssertionError, match=r"^(leaves|is_removed)\b"):
        await test_who_is_out_of_a_room_hears_and_says_nothing_more_there(
            pair, record_property, "conversation", in_silence=True
        )


@pytest.mark.parametrize("pair", ["a bus that loses everything"], indirect=True)
async def test_a_revocation_that_is_found_too_late_is_caught(pair: Pair, seldom: None, record_property: Record) -> None:
    with pytest.raises(AssertionError, match=r"^(is|signs|deletes|has)_"):
        await test_a_session_that_has_ended_is_closed_on_every_instance(pair, record_property)


class _Circle:
    """An owner, somebody to be shown out, and a witness: the latter two with a device on each instance."""

    def __init__(self, pair: Pair, people: Sequence[Person], kind: str, talk: str) -> None:
        self.pair = pair
        self.owner, self.target, self.witness = people
        self.kind, self.talk = kind, talk
        self.phones: list[Device] = []
        self.witnesses: list[Device] = []

    @property
    def room(self) -> str:
        return f"{self.kind}:{self.talk}"

    async def is_out(self, told: str, started: float, *, in_silence: bool) -> float:
        """Have others talk behind it on both instances; how long after it both phones were out of the room.

        In silence they talk once that is so: nothing else tells an instance that it has missed something.
        """
        out = asyncio.create_task(self._out_after(told, started))
        for phone in self.phones:  # at once, wherever the push is by now
            for command, asked in (
                ("message:send", {"conversation_id": self.talk, "client_id": uuid4().hex, "text": "still here"}),
                ("message:history", {"conversation_id": self.talk}),
                ("room:sync", {"room": self.room, "after": 0}),
                ("typing:set", {"conversation_id": self.talk, "state": "typing"}),
            ):
                answer = await phone.answer(command, **asked)
                assert answer.get("error", {}).get("code") == "not_found", (command, answer)
        if not in_silence:
            await self._talk()
        seconds = await out
        if in_silence:
            await self._talk()
        for witness in self.witnesses:  # and what no log keeps
            await witness.call("typing:set", conversation_id=self.talk, state="typing")
            for other in self.witnesses:
                await other.hearing("message:created", text=f"behind {id(witness)}")
        for instance, phone in zip((self.pair.one, self.pair.two), self.phones, strict=True):
            with pytest.raises(Refusal, match="not_found"):
                await phone.call("room:join", room=self.room)  # what its instance had for it came before this answer
            for socket in instance.parley.delivery.sockets_of(UUID(self.target.user_id)):
                await self._is_nowhere(socket)
            assert not [push for push in phone.heard if "behind" in str(push.payload)], phone.heard
            assert not [push for push in _behind(phone, told) if push.room == self.room], phone.heard
        return seconds

    async def _is_nowhere(self, socket: Socket) -> None:
        """Never a member. After a removal it is judged once more; until then the room has it, and tells it nothing."""
        async with asyncio.timeout(PATIENCE_S):
            while local := socket.rooms.get(parse(self.room)):
                assert socket not in local.members
                await asyncio.sleep(0)

    async def _out_after(self, told: str, started: float) -> float:
        await asyncio.gather(*(phone.hearing(told, user_id=self.target.user_id) for phone in self.phones))
        return time.monotonic() - started

    async def _talk(self) -> None:
        for witness in self.witnesses:
            await witness.send(self.talk, f"behind {id(witness)}")


def _behind(phone: Device, told: str) -> list[Push]:
    last = max(n for n, push in enumerate(phone.heard) if push.name == told)
    return phone.heard[last + 1 :]


async def _circle(pair: Pair, kind: str) -> _Circle:
    people = [await pair.one.person(name) for name in ("owner", "target", "witness")]
    if kind == "thread":
        talk = await thread_of(*people)
    else:
        talk = await pair.one.chat(*people, kind="group")
    circle = _Circle(pair, people, kind, talk)
    circle.phones = [await circle.target.connect(to=instance) for instance in (pair.one, pair.two)]
    circle.witnesses = [await circle.witness.connect(to=instance) for instance in (pair.one, pair.two)]
    return circle


# sessions


End = Callable[[Person, Person, Person], Awaitable[None]]
"""Has a session end, of the three: an administrator, its person on another device, and on this one."""


async def is_revoked(root: Person, keeper: Person, lost: Person) -> None:
    await keeper.post("session:revoke", session_id=lost.session_id)


async def signs_out_everywhere(root: Person, keeper: Person, lost: Person) -> None:
    await keeper.post("account:logout", all=True)


async def is_suspended(root: Person, keeper: Person, lost: Person) -> None:
    await root.post("user:suspend", user_id=lost.user_id, reason="spam")


async def deletes_the_account(root: Person, keeper: Person, lost: Person) -> None:
    await keeper.post("account:delete", password=PASSWORD)


async def has_another_password(root: Person, keeper: Person, lost: Person) -> None:
    token, stored = new_stored_token()
    async with root.instance.parley.database.connection() as db:
        await resets.create_reset(db, UUID(lost.user_id), stored, 60)
    status, answer = await root.instance.post("account:reset", {"reset_token": token, "password": "another good one"})
    assert status == 200, answer


async def has_a_token_stolen(root: Person, keeper: Person, lost: Person) -> None:
    for _ in range(2):
        await root.instance.post("account:refresh", {"refresh_token": lost.refresh_token})


SIGNED_OUT: dict[End, str] = {
    is_revoked: "revoked",
    signs_out_everywhere: "logout",
    is_suspended: "suspended",
    deletes_the_account: "account_deleted",
    has_another_password: "password_reset",
    has_a_token_stolen: "refresh_token_reused",
}


async def test_a_session_that_has_ended_is_closed_on_every_instance(pair: Pair, record_property: Record) -> None:
    root = await make_admin(await pair.one.person("root"))
    victims = {end: await _victim(pair.one) for end in SIGNED_OUT}
    devices = {end: [await lost.connect(to=i) for i in (pair.one, pair.two)] for end, (_, lost) in victims.items()}
    pair.strike()
    await _just_compared(pair)

    async def one(end: End) -> None:
        keeper, lost = victims[end]
        await end(root, keeper, lost)
        started = time.monotonic()
        await asyncio.gather(*(device.gone() for device in devices[end]))
        seconds = time.monotonic() - started
        record_property(end.__name__, f"{seconds:.2f} s")
        assert seconds <= OUT_S, end.__name__
        for device in devices[end]:
            ends = [push.payload for push in device.heard if push.name == "session:revoked"]
            assert {"session_id": lost.session_id, "reason": SIGNED_OUT[end]} in ends, device.heard
        await _is_out(lost, pair)

    await asyncio.gather(*map(one, SIGNED_OUT))


async def _victim(instance: Instance) -> tuple[Person, Person]:
    """Somebody on two devices: one that is kept, and one to be lost."""
    keeper = await instance.register("dalia")
    return keeper, await instance.log_in(keeper.username)


async def _is_out(lost: Person, pair: Pair) -> None:
    """Neither the token nor what renews it opens anything, on either instance."""
    for instance in (pair.one, pair.two):
        status, answer = await instance.post("account:me", {}, token=lost.token)
        assert (status, answer["error"]["code"]) == (401, "unauthenticated")
        status, answer = await instance.post("account:refresh", {"refresh_token": lost.refresh_token})
        assert (status, answer["error"]["code"]) == (401, "unauthenticated")
        with pytest.raises(ConnectRefused) as refused:
            await lost.connect(to=instance)
        assert refused.value.said["data"]["code"] == "unauthenticated"


async def test_who_connects_while_being_signed_out_is_not_in(pair: Pair) -> None:
    """However the two meet: a socket that was let in before the end of its session hears of it."""
    victims = [await _victim(pair.one) for _ in range(4)]
    pair.strike()

    async def one(keeper: Person, lost: Person) -> None:
        async def connect(instance: Instance) -> None:
            # Refused; or let in and shown out before its client knew of either; or let in, and closed.
            with suppress(ConnectRefused, socketio.exceptions.ConnectionError):
                await (await lost.connect(to=instance)).gone()

        both = [connect(instance) for instance in (pair.one, pair.two)]
        await asyncio.gather(*both, keeper.post("session:revoke", session_id=lost.session_id))
        for instance in (pair.one, pair.two):
            assert not instance.parley.delivery.sockets_of(UUID(lost.user_id))

    await asyncio.gather(*(one(*victim) for victim in victims))


@pytest.mark.parametrize("pair", ["a bus that loses everything"], indirect=True)
async def test_users_who_hold_every_connection_keep_nobody_in_and_take_nobody_offline(pair: Pair) -> None:
    circle, (keeper, lost) = await _circle(pair, "conversation"), await _victim(pair.one)
    device = await lost.connect(to=pair.two)
    pair.strike()
    await _just_compared(pair)
    async with AsyncExitStack() as held:
        for _ in range(pair.two.config.pool_max):
            await held.enter_async_context(pair.two.parley.database.connection())
        await is_removed(circle.owner, circle.target, circle.talk)
        await is_revoked(keeper, keeper, lost)
        async with asyncio.timeout(OUT_S):
            await circle.phones[1].hearing("participant:removed", user_id=circle.target.user_id)
            await device.gone()
            assert await pair.two.parley.presences._lease.renew()
