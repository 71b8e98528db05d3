"""A phone that has taken a snapshot and then its pushes shows what a fresh snapshot shows, whatever happened meanwhile.

`CONVERGENCE_RUNS=500` in the environment plays so many runs instead of the few of every day. A failure shows its run as
it was played, since a shrink takes longer than a test may; `CONVERGENCE_SHRINK=1 … pytest -o faulthandler_timeout=0`
looks for the shortest.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from handlers.conversations import LISTED_PEOPLE
from server.commands.registry import commands
from server.rooms.bus import LocalHub
from tests.convergence.world import ALONE, Step, Weather, WeatherBus, World
from tests.people import Instance, Person
from tests.servers import Postgres, execute

RUNS = int(os.environ.get("CONVERGENCE_RUNS", "20"))
SHARDS = max(4, RUNS // 20)  # tests of their own: the suite's processes share them, and each stays within its time
PHASES = set(Phase) if os.environ.get("CONVERGENCE_SHRINK") else {Phase.explicit, Phase.reuse, Phase.generate}
STEPS = 40
LOOK_EVERY = 4
FEW = 2  # people listed of a group of three: it is larger than what pushes list then

COVERED = {
    "account:delete", "account:logout", "account:me", "account:update", "attachment:complete", "attachment:create",
    "conversation:create", "conversation:get", "conversation:leave", "conversation:list", "conversation:update",
    "message:delete", "message:edit", "message:history", "message:react", "message:send", "participant:add",
    "participant:promote", "participant:remove", "receipt:delivered", "receipt:read", "room:join", "room:leave",
    "room:sync", "session:list", "session:revoke", "user:block", "user:blocks", "user:restore", "user:suspend",
    "user:unblock",
}  # fmt: skip

_SHOWS = "it shows what is somewhere else already, and changes nothing"
_BEFORE = "it comes before there is a token, or brings another one"
_ASIDE = "reports are shown to administrators when they ask; nobody is told"
_MARKET = "the market's own test covers it"
_PASSING = "what it tells is ephemeral, and in no snapshot"
EXCUSED = {
    "account:forgot": _BEFORE,
    "account:login": _BEFORE,
    "account:refresh": _BEFORE,
    "account:register": _BEFORE,
    "account:renew": _BEFORE,
    "account:reset": _BEFORE,
    "attachment:get": _SHOWS,
    "faq:accept": _MARKET,
    "faq:answer": _MARKET,
    "faq:ask": _MARKET,
    "faq:list": _MARKET,
    "faq:reply": _MARKET,
    "listing:close": _MARKET,
    "listing:create": _MARKET,
    "listing:extend": _MARKET,
    "listing:get": _MARKET,
    "listing:like": _MARKET,
    "listing:search": _SHOWS,
    "listing:update": _MARKET,
    "message:revisions": _SHOWS,
    "message:search": _SHOWS,
    "presence:set": _PASSING,
    "presence:unwatch": _PASSING,
    "presence:watch": _PASSING,
    "report:file": _ASIDE,
    "report:list": _ASIDE,
    "report:resolve": _ASIDE,
    "autorule:get": _MARKET,
    "autorule:set": _MARKET,
    "autorule:test": _MARKET,
    "negotiation:get": _MARKET,
    "negotiation:history": _MARKET,
    "negotiation:list": _MARKET,
    "offer:accept": _MARKET,
    "offer:counter": _MARKET,
    "offer:decline": _MARKET,
    "offer:decline_all": _MARKET,
    "offer:make": _MARKET,
    "offer:withdraw": _MARKET,
    "listing:buy": _MARKET,
    "match:act": _MARKET,
    "match:list": _MARKET,
    "mutual:list": _MARKET,
    "review:create": _MARKET,
    "review:list": _MARKET,
    "transaction:cancel": _MARKET,
    "transaction:confirm": _MARKET,
    "transaction:get": _MARKET,
    "transaction:list": _MARKET,
    "transaction:pay": _MARKET,
    "transaction:receipt": _MARKET,
    "transaction:refund": _MARKET,
    "thread:create": _MARKET,
    "thread:delete": _MARKET,
    "thread:favorite": _MARKET,
    "thread:get": _MARKET,
    "thread:join": _MARKET,
    "thread:leave": _MARKET,
    "thread:list": _MARKET,
    "thread:update": _MARKET,
    "typing:set": _PASSING,
    "user:get": _SHOWS,
    "user:search": _SHOWS,
}

# How often each comes, in shares.
SHARES = {
    "send": 8, "send_file": 1, "edit": 3, "delete": 2, "react": 4, "read": 4, "delivered": 1, "rename": 2, "archive": 3,
    "mute": 1, "pin": 1, "create_private": 1, "create_group": 2, "add": 4, "remove": 4, "promote": 2, "leave": 2,
    "update": 2, "block": 1, "look": 1, "close": 2, "cut": 2, "come_back": 4, "look_away": 1, "revoke": 1, "log_out": 1,
    "suspend": 1, "erase": 1, "check": 1,
}  # fmt: skip

some_steps = st.lists(
    st.builds(
        Step,
        do=st.sampled_from([do for do, share in SHARES.items() for _ in range(share)]),
        who=st.integers(0, 2),
        by=st.integers(0, 2),
        a=st.integers(0, 5),
        b=st.integers(0, 7),
        on=st.booleans(),
        together=st.booleans(),
    ),
    min_size=12,
    max_size=STEPS,
)
some_weather = st.lists(st.sampled_from(["pass", "pass", "lose", "hold"]), min_size=1, max_size=7)


@dataclass
class Arena:
    """Two instances on one database, in a loop of their own that stands still between the runs."""

    runner: asyncio.Runner
    instances: list[Instance]
    root: Person
    weather: Weather

    def play(self, steps: list[Step], *, fates: list[str], listed: int = LISTED_PEOPLE) -> World:
        """One run of new people; the world as it was left. Raises AssertionError where a phone shows what is not.

        `listed` people of a conversation are shown where it is not looked at alone.
        """
        world = World(self.instances, self.root)

        async def run() -> None:
            self.weather.change(fates)
            await world.begin()
            try:
                await world.run(steps)
            finally:
                await world.end()

        try:
            with pytest.MonkeyPatch.context() as patch:
                for module in ("handlers.conversations", "handlers.participants"):
                    patch.setattr(f"{module}.LISTED_PEOPLE", listed)
                self.runner.run(run())
        except BaseException as error:
            error.add_note("\n".join(world.trace))
            raise
        return world


@pytest.fixture(scope="module")
def arena(postgres: Postgres) -> Iterator[Arena]:
    """Where it is played: replays are short, so that many rooms are reset, and the log is looked at all the time."""
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.rooms.comparison.COMPARE_S", 0.05)
        patch.setattr("server.rooms.joining.REPLAY_ROOM_EVENTS", 12)
        patch.setattr("server.rooms.replays.REPLAY_EVENTS", 40)
        dsn = runner.run(postgres.create(postgres.dsn("18"), migrated=True))
        hub, weather = LocalHub(), Weather()
        rates = {f"PARLEY_RATE_{name}": "off" for name in ("MESSAGE_SEND", "WRITES", "READS", "CONNECTS", "LOGIN")}

        async def start() -> Instance:
            return await Instance(dsn, bus=WeatherBus(hub, weather), PARLEY_RATE_LOGIN_ACCOUNT="off", **rates).start()

        instances = [runner.run(start()) for _ in range(2)]
        root = runner.run(instances[0].person("root"))
        runner.run(execute(dsn, f"update users set roles = '{{admin}}' where user_id = '{root.user_id}'"))
        yield Arena(runner, instances, root, weather)
        for instance in instances:
            runner.run(instance.stop())
        runner.run(postgres.drop(dsn))


@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_phones_state_from_pushes_is_that_of_a_fresh_snapshot(arena: Arena, shard: int) -> None:
    @settings(
        max_examples=-(-RUNS // SHARDS),
        phases=PHASES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.nested_given],
        print_blob=True,
    )
    @given(steps=some_steps, fates=some_weather, listed=st.sampled_from([LISTED_PEOPLE, FEW]))
    def play(steps: list[Step], fates: list[str], listed: int) -> None:
        arena.play(steps, fates=fates, listed=listed)

    play()


def test_every_command_is_covered_or_excused() -> None:
    assert COVERED.isdisjoint(EXCUSED)
    assert commands.keys() == COVERED | EXCUSED.keys()


def test_every_share_is_a_step() -> None:
    assert all(hasattr(World, do) for do in SHARES)
    assert all(do in SHARES for do in ALONE)


# One of everything, with a look at all phones every few steps. Person 0 owns the group, which a=1 chooses.
ONE_OF_EVERYTHING = [
    Step("send", 0, 0, a=1, b=1, on=True),
    Step("send", 1, 1, a=0, b=2, on=False),
    Step("send_file", 1, 0, a=1, b=1),
    Step("react", 0, 0, a=1, b=0, on=True),
    Step("react", 2, 1, a=1, b=0, on=True),
    Step("react", 0, 0, a=1, b=0, on=False),
    Step("edit", 0, 1, a=4, b=2),
    Step("read", 2, 0, a=1, on=True),
    Step("delivered", 1, 0, a=1, on=True),
    Step("delete", 1, 0, b=0),
    Step("promote", 0, 0, a=1, b=0),
    Step("rename", 0, 1, a=1, b=5),
    Step("archive", 2, 0, a=1, on=True),  # one phone of theirs hears of the removal in its own room alone
    Step("close", 2, b=1),
    Step("come_back", 2, b=1, on=True),
    Step("remove", 0, 0, a=1, b=1),
    Step("check"),
    Step("add", 0, 1, a=1, b=1),
    Step("send", 2, 0, a=1, b=1),
    Step("archive", 1, 0, a=1, on=True),
    Step("close", 1, b=1),
    Step("come_back", 1, b=1, on=True),
    Step("send", 2, 0, a=1, b=2),
    Step("mute", 0, 0, a=1, b=0),
    Step("pin", 0, 1, a=1),
    Step("archive", 0, 0, a=1, on=True),
    Step("close", 0, b=1),
    Step("come_back", 0, b=1, on=True),
    Step("send", 2, 0, a=1, b=2),
    Step("archive", 0, 0, a=1, on=False),
    Step("create_private", 2, 0),
    Step("create_group", 2, 1, a=0, b=1),
    Step("send", 2, 1, a=3, b=1),
    Step("archive", 1, 0, a=1, on=True),
    Step("close", 1, b=0),
    Step("send", 2, 0, a=1, b=1),  # wakes it while a phone is away
    Step("come_back", 1, b=0, on=False),
    Step("look_away", 2, b=0, a=1),
    Step("send", 1, 0, a=1, b=2),
    Step("update", 1, 0, a=0, b=3),
    Step("read", 1, 0, a=0),
    Step("block", 0, 0, b=0),  # of the two who talk in private
    Step("read", 1, 0, a=0),
    Step("check"),
    Step("block", 0, 0, b=0, on=False),
    Step("look", 1, 1, a=1),
    Step("cut", 2, b=1),
    Step("come_back", 2, a=1, b=1),
    Step("come_back", 2, a=2, b=0),
    Step("come_back", 2, a=3, b=1),
    Step("revoke", 1, a=0, b=1),
    Step("log_out", 1, b=0, on=False),
    Step("suspend", 2),
    Step("leave", 0, 0, a=1),
    Step("erase", 2),
]


@pytest.mark.parametrize(
    ("fates", "listed"), [(["pass"], LISTED_PEOPLE), (["hold", "pass", "lose"], FEW)], ids=["fair", "stormy"]
)
def test_one_of_everything(arena: Arena, fates: list[str], listed: int) -> None:
    steps = []
    for n in range(0, len(ONE_OF_EVERYTHING), LOOK_EVERY):
        steps += [*ONE_OF_EVERYTHING[n : n + LOOK_EVERY], Step("check", b=n)]
    world = arena.play(steps, fates=fates, listed=listed)
    assert world.done == COVERED
    assert {step.do for step in steps} == SHARES.keys()
