"""Whatever a seller and three buyers do about a listing, two live servers answer, show and tell what the model says.

`HAGGLING_RUNS=500` in the environment plays so many runs instead of the few of every day; `HAGGLING_SHRINK=1 … pytest
-o faulthandler_timeout=0` looks for the shortest that fails.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from server.rooms.bus import LocalBus, LocalHub
from tests.haggling.play import ROUNDS, Game, Step
from tests.negotiation_checker import breaches
from tests.people import Instance
from tests.servers import Postgres

RUNS = int(os.environ.get("HAGGLING_RUNS", "8"))
SHARDS = max(2, RUNS // 20)  # tests of their own: the suite's processes share them, and each stays within its time
PHASES = set(Phase) if os.environ.get("HAGGLING_SHRINK") else {Phase.explicit, Phase.reuse, Phase.generate}
STEPS = 40

# How often each comes, in shares.
SHARES = {
    "make": 12, "counter": 9, "accept": 5, "decline": 4, "withdraw": 3, "run_out": 2, "sweep": 2, "edit": 2,
    "set_rule": 3, "decline_all": 1, "block": 1, "unblock": 1, "close": 1, "buy": 1, "confirm": 3,
    "cancel": 2, "lapse": 1,
}  # fmt: skip

some_steps = st.lists(
    st.builds(
        Step,
        do=st.sampled_from([do for do, share in SHARES.items() for _ in range(share)]),
        who=st.integers(0, 2),
        is_buyer=st.booleans(),
        a=st.integers(0, 3),
        b=st.integers(0, 7),
    ),
    min_size=15,
    max_size=STEPS,
)


@dataclass
class Arena:
    """Two servers on one database, in a loop of their own that stands still between the runs."""

    runner: asyncio.Runner
    instances: list[Instance]
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def play(self, steps: list[Step], *, quantity: int) -> Game:
        """One run of new people. Raises AssertionError where something is not as the model says."""
        game = Game(self.instances)

        async def run() -> None:
            await game.begin(quantity)
            try:
                await game.play(steps)
            finally:
                await game.end()

        try:
            self.runner.run(run())
        except BaseException as error:
            error.add_note("\n".join(game.trace))
            raise
        self.done.update(game.done)
        self.refused.update(game.refused)
        return game


@pytest.fixture(scope="module")
def arena(postgres: Postgres) -> Iterator[Arena]:
    """Where it is played: the clocks look when they are told to. In the end the whole database obeys the laws."""
    with asyncio.Runner() as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.jobs.CLOCK_EVERY_S", 3_600.0)
        dsn = runner.run(postgres.create(postgres.dsn("18"), migrated=True))
        hub = LocalHub()
        off = {f"PARLEY_RATE_{name}": "off" for name in ("OFFER_MOVES", "WRITES", "READS", "CONNECTS")}

        async def start() -> Instance:
            return await Instance(dsn, bus=LocalBus(hub), PARLEY_OFFER_ROUNDS=str(ROUNDS), **off).start()

        instances = [runner.run(start()) for _ in range(2)]
        arena = Arena(runner, instances)
        yield arena
        for instance in instances:
            runner.run(instance.stop())
        found = runner.run(breaches(dsn))
        runner.run(postgres.drop(dsn))
        assert found == []


@pytest.mark.parametrize("shard", range(SHARDS))
def test_servers_answer_show_and_tell_what_the_model_says(arena: Arena, shard: int) -> None:
    @settings(
        max_examples=-(-RUNS // SHARDS),
        phases=PHASES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.nested_given],
        print_blob=True,
    )
    @given(steps=some_steps, quantity=st.integers(1, 3))
    def play(steps: list[Step], quantity: int) -> None:
        arena.play(steps, quantity=quantity)

    play()


# One of everything. Buyer 0 haggles to the end of the rounds, 1 agrees and steps back, 2 is a rival and blocked.
ONE_OF_EVERYTHING = [
    Step("make", 0, a=0),
    Step("make", 0, a=1),
    Step("counter", 0, False, a=3),
    Step("edit", a=1),
    Step("accept", 0),
    Step("counter", 0, a=1),
    Step("make", 1, a=2),
    Step("make", 1, False, a=2),
    Step("make", 2, a=1),
    Step("run_out", 2),
    Step("accept", 2, False),
    Step("make", 2, a=2),
    Step("run_out", 2),
    Step("sweep"),
    Step("accept", 1, False),
    Step("accept", 1, False, b=4),
    Step("confirm", a=0),
    Step("confirm", a=0),
    Step("cancel", a=0),
    Step("make", 1, a=3),
    Step("withdraw", 1),
    Step("decline", 0, False),
    Step("make", 0, a=2),
    Step("run_out", 0),
    Step("make", 0, a=3),
    Step("sweep"),
    Step("make", 0, a=3),
    Step("set_rule", b=0),
    Step("make", 1, a=0),
    Step("make", 1, a=3),
    Step("confirm", a=1),
    Step("confirm", is_buyer=False, a=1),
    Step("set_rule", b=4),
    Step("make", 2, a=1),
    Step("decline_all", is_buyer=False),
    Step("make", 2, a=1),
    Step("block", 2, False),
    Step("make", 2, a=1),
    Step("unblock", 2),
    Step("make", 2, a=2),
    Step("accept", 2, False),
    Step("lapse", a=2),
    Step("buy", 2),
    Step("make", 1, a=2),
    Step("close", b=7),
    Step("make", 1, a=2),
]


def test_one_of_everything(arena: Arena) -> None:
    game = arena.play(ONE_OF_EVERYTHING, quantity=3)
    assert {step.do for step in ONE_OF_EVERYTHING} == SHARES.keys()
    reasons = {each.split()[1] for each in game.refused}
    assert reasons >= {"not_your_turn", "listing_changed", "expired", "rounds_spent", "blocked"}


def test_a_pair_whose_deal_was_cancelled_has_another(arena: Arena) -> None:
    steps = [
        Step("make", 1),
        Step("accept", 1, False),
        Step("cancel", is_buyer=False),
        Step("make", 1, False),
        Step("accept", 1),
    ]
    game = arena.play(steps, quantity=2)
    assert [deal.status for deal in game.market.deals] == ["cancelled", "pending"]
