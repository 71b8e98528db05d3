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
from tests.convergence.bazaar import Bazaar, SlowBazaar
from tests.convergence.world import ALONE, Step, Weather, WeatherBus, World
from tests.people import Instance, Person
from tests.servers import Postgres, execute

RUNS = int(os.environ.get("CONVERGENCE_RUNS", "12"))
SHARDS = max(3, RUNS // 20)  # tests of their own: the suite's processes share them, and each stays within its time
PHASES = set(Phase) if os.environ.get("CONVERGENCE_SHRINK") else {Phase.explicit, Phase.reuse, Phase.generate}
STEPS = 40
LOOK_EVERY = 4
FEW = 2  # people listed of a group of three: it is larger than what pushes list then

TALK = {
    "account:delete", "account:logout", "account:me", "account:update", "attachment:complete", "attachment:create",
    "conversation:create", "conversation:get", "conversation:leave", "conversation:list", "conversation:update",
    "message:delete", "message:edit", "message:history", "message:react", "message:send", "participant:add",
    "participant:promote", "participant:remove", "receipt:delivered", "receipt:read", "room:join", "room:leave",
    "room:sync", "session:list", "session:revoke", "user:block", "user:blocks", "user:restore", "user:suspend",
    "user:unblock",
}  # fmt: skip

MARKET = {
    "autorule:set", "faq:accept", "faq:answer", "faq:ask", "faq:list", "faq:reply", "listing:buy", "listing:close",
    "listing:create", "listing:extend", "listing:get", "listing:like", "listing:search", "listing:update", "match:act",
    "match:list", "mutual:list", "negotiation:history", "negotiation:list", "offer:accept", "offer:counter",
    "offer:decline", "offer:decline_all", "offer:make", "offer:withdraw", "review:create", "review:list",
    "thread:create", "thread:delete", "thread:favorite", "thread:get", "thread:join", "thread:leave", "thread:list",
    "thread:update", "transaction:cancel", "transaction:confirm", "transaction:list", "transaction:refund",
}  # fmt: skip

_SHOWS = "it shows what is somewhere else already, and changes nothing"
_BEFORE = "it comes before there is a token, or brings another one"
_ASIDE = "reports are shown to administrators when they ask; nobody is told"
_PASSING = "what it tells is ephemeral, and in no snapshot"
EXCUSED = {
    "account:forgot": _BEFORE,
    "account:login": _BEFORE,
    "account:refresh": _BEFORE,
    "account:register": _BEFORE,
    "account:renew": _BEFORE,
    "account:reset": _BEFORE,
    "attachment:get": _SHOWS,
    "autorule:get": "one's own rules are told by no push: what they do is",
    "autorule:test": _SHOWS,
    "message:revisions": _SHOWS,
    "message:search": _SHOWS,
    "negotiation:get": _SHOWS,
    "presence:set": _PASSING,
    "presence:unwatch": _PASSING,
    "presence:watch": _PASSING,
    "report:file": _ASIDE,
    "report:list": _ASIDE,
    "report:resolve": _ASIDE,
    "transaction:get": _SHOWS,
    "transaction:pay": "it needs a provider, whose word has tests of its own; what it tells is what a confirm does",
    "transaction:receipt": _SHOWS,
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
MARKET_SHARES = {
    "open_thread": 1, "join_thread": 3, "leave_thread": 2, "retitle": 1, "favor": 1, "delete_thread": 1, "say": 2,
    "list_ware": 3, "watch": 4, "edit_ware": 3, "close_ware": 1, "extend_ware": 1, "like": 1, "ask": 2, "answer": 3,
    "reply": 2, "accept_answer": 2, "act": 5, "offer": 8, "counter": 5, "accept": 4, "decline": 2, "withdraw": 2,
    "decline_all": 1, "set_rule": 1, "buy": 2, "confirm": 5, "cancel": 1, "refund": 1, "review": 2, "run_out": 2,
}  # fmt: skip
BESIDE = {
    "send": 2, "edit": 1, "delete": 1, "react": 1, "read": 2, "archive": 2, "pin": 1, "block": 1, "update": 1,
    "close": 2, "cut": 3, "come_back": 5, "look_away": 1, "suspend": 1, "log_out": 1, "erase": 1, "check": 1,
}  # fmt: skip


def some_steps(shares: dict[str, int]) -> st.SearchStrategy[list[Step]]:
    """What is done, each as often as its share says."""
    step = st.builds(
        Step,
        do=st.sampled_from([do for do, share in shares.items() for _ in range(share)]),
        who=st.integers(0, 2),
        by=st.integers(0, 2),
        a=st.integers(0, 5),
        b=st.integers(0, 7),
        on=st.booleans(),
        together=st.booleans(),
    )
    return st.lists(step, min_size=12, max_size=STEPS)


some_weather = st.lists(st.sampled_from(["pass", "pass", "lose", "hold"]), min_size=1, max_size=7)


@dataclass
class Arena:
    """Two instances on one database, in a loop of their own that stands still between the runs."""

    runner: asyncio.Runner
    instances: list[Instance]
    root: Person
    weather: Weather

    def play(
        self, steps: list[Step], *, fates: list[str], listed: int = LISTED_PEOPLE, kind: type[World] = World
    ) -> World:
        """One run of new people; the world as it was left. Raises AssertionError where a phone shows what is not.

        `listed` people of a conversation are shown where it is not looked at alone.
        """
        world = kind(self.instances, self.root)

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
        for clock in ("CLOCK_EVERY_S", "EMPTY_EVERY_S", "MATCH_EVERY_S", "WARN_EVERY_S", "FIRST_AFTER_S"):
            patch.setattr(f"server.jobs.{clock}", 3_600.0)  # they look when they are told to
        dsn = runner.run(postgres.create(postgres.dsn("18"), migrated=True))
        hub, weather = LocalHub(), Weather()
        buckets = ("MESSAGE_SEND", "WRITES", "READS", "CONNECTS", "LOGIN", "OFFER_MOVES")
        rates = {f"PARLEY_RATE_{name}": "off" for name in buckets}

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
@pytest.mark.parametrize("kind", [World, Bazaar])
def test_a_phones_state_from_pushes_is_that_of_a_fresh_snapshot(arena: Arena, kind: type[World], shard: int) -> None:
    @settings(
        max_examples=-(-RUNS // (2 * SHARDS)),
        phases=PHASES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.nested_given],
        print_blob=True,
    )
    @given(
        steps=some_steps(SHARES if kind is World else MARKET_SHARES | BESIDE),
        fates=some_weather,
        listed=st.sampled_from([LISTED_PEOPLE, FEW]),
    )
    def play(steps: list[Step], fates: list[str], listed: int) -> None:
        arena.play(steps, fates=fates, listed=listed, kind=kind)

    play()


def test_every_command_is_covered_or_excused() -> None:
    assert TALK.isdisjoint(EXCUSED)
    assert MARKET.isdisjoint(TALK | EXCUSED.keys())
    assert commands.keys() == TALK | MARKET | EXCUSED.keys()


def test_every_share_is_a_step() -> None:
    assert all(hasattr(World, do) for do in SHARES)
    assert all(hasattr(Bazaar, do) for do in MARKET_SHARES)
    assert BESIDE.keys() <= SHARES.keys()
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
    assert world.done == TALK
    assert {step.do for step in steps} == SHARES.keys()


# One of everything on the market. Amina (0) sells from the first thread (a=0), Bilal (1) wants such a thing.
ONE_OF_THE_MARKET = [
    Step("watch", 0, 0, a=0),
    Step("watch", 1, 0, a=0),
    Step("watch", 2, 1, a=0),
    Step("like", 2, 0, a=0),
    Step("join_thread", 2, 1, a=0),
    Step("say", 2, 0, a=0, b=1),
    Step("favor", 2, 0, a=0),
    Step("retitle", 0, 0, a=0, b=4),
    Step("ask", 2, 1, a=0, b=1),
    Step("answer", 0, 0, a=0, b=2),
    Step("answer", 0, 0, a=0, b=3),
    Step("reply", 1, 0, a=0, b=4),
    Step("accept_answer", 0, 0, a=0),
    Step("accept_answer", 0, 0, a=1),
    Step("act", 0, 0, a=0, b=1),
    Step("act", 1, 0, a=0, b=3),
    Step("offer", 2, 1, a=0, b=0),
    Step("counter", 0, 0, a=0, b=3),
    Step("edit_ware", 0, 0, a=0, b=2),
    Step("counter", 2, 1, a=0, b=2),
    Step("accept", 0, 0, a=0),
    Step("close", 1, b=0),
    Step("confirm", 2, 1, a=0),
    Step("confirm", 0, 0, a=0),
    Step("review", 2, 1, a=0, b=4),
    Step("review", 0, 0, a=0, b=2),
    Step("come_back", 1, b=0, on=True),
    Step("refund", 0, 0, a=0),
    Step("offer", 1, 0, a=0, b=1),
    Step("withdraw", 1, 0, a=0),
    Step("offer", 1, 0, a=0, b=1),
    Step("decline", 0, 0, a=0),
    Step("set_rule", 0, 0, a=0, b=0),
    Step("offer", 1, 0, a=0, b=2),
    Step("look_away", 2, b=1, a=0),
    Step("cancel", 1, 0, a=0),
    Step("offer", 1, 0, a=0, b=1),
    Step("run_out", 1, 0, a=0, b=1),
    Step("buy", 2, 1, a=0),
    Step("run_out", 2, 1, a=0, b=2),
    Step("extend_ware", 0, 0, a=0, b=1),
    Step("run_out", 0, 0, a=0, b=0),
    Step("extend_ware", 0, 0, a=0, b=2),
    Step("list_ware", 0, 0, a=1, b=2),
    Step("offer", 1, 0, a=2, b=3),
    Step("decline_all", 0, 0, a=2, on=False),
    Step("block", 0, 0, b=0),
    Step("block", 0, 0, b=0, on=False),
    Step("offer", 2, 0, a=2, b=3),
    Step("close_ware", 0, 0, a=2),
    Step("leave_thread", 2, 0, a=0),
    Step("cut", 2, b=1),
    Step("open_thread", 2, 0, b=5),
    Step("come_back", 2, b=1),
    Step("come_back", 0, a=3, b=1),
    Step("delete_thread", 0, 0, a=0),
]


@pytest.mark.parametrize("fates", [["pass"], ["hold", "pass", "lose"]], ids=["fair", "stormy"])
def test_one_of_everything_on_the_market(arena: Arena, fates: list[str]) -> None:
    steps = []
    for n in range(0, len(ONE_OF_THE_MARKET), 2 * LOOK_EVERY):
        steps += [*ONE_OF_THE_MARKET[n : n + 2 * LOOK_EVERY], Step("check", b=n)]
    world = arena.play(steps, fates=fates, kind=SlowBazaar)
    assert MARKET - world.done == set()
    assert MARKET_SHARES.keys() <= {step.do for step in steps}
