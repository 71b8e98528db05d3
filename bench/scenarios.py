"""What is measured: a crowd of people, what they do, and which figure counts."""

from __future__ import annotations

from dataclasses import dataclass

from bench.crowds import Crowd, groups, many_rooms, one_room, pairs


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of the load generator's: its key there, and how to call it."""

    key: str
    title: str
    unit: str


SEND = Measure("cpu_us_per_send", "CPU a send", "µs")
DELIVERY = Measure("cpu_us_per_delivery", "CPU a delivery", "µs")
CONNECT = Measure("cpu_us_per_connect", "CPU a connect", "µs")
MEMORY = Measure("rss_kb_per_connection", "memory a connection", "KB")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One comparison.

    `aim` is the ratio Parley means to reach, Node being 1; `most` what it may take, in the measure's unit. `bare`: the
    socket engines alone, with nothing judged or stored. `full`: a send is over with its ack and all its deliveries,
    otherwise with its ack. `idle`: nothing is sent. `fresh`: every measurement has servers of its own, just started.
    """

    name: str
    title: str
    crowd: Crowd
    measure: Measure
    aim: float | None = None
    most: float | None = None
    bare: bool = False
    instances: int = 1
    full: bool = False
    idle: bool = False
    fresh: bool = False

    @property
    def talks(self) -> bool:
        """Whether messages are sent."""
        return not self.idle


BARE = (
    Scenario("bare-room", "a room of 1,000, 1 sender", one_room(1_000), DELIVERY, aim=1.8, bare=True, full=True),
    Scenario("bare-groups", "100 rooms of 10, 100 senders", groups(100, 10), DELIVERY, aim=1.9, bare=True, full=True),
    Scenario(
        "bare-pairs", "1,000 pairs, 1,000 senders", pairs(1_000, senders=1_000), DELIVERY, aim=1.7, bare=True, full=True
    ),
    Scenario("bare-acks", "acks, 1,000 pairs, 256 senders", pairs(1_000, senders=256), SEND, aim=1.8, bare=True),
    Scenario("bare-connects", "2,000 connects", pairs(1_000, senders=0), CONNECT, aim=1.5, bare=True, idle=True),
    Scenario(
        "bare-memory",
        "2,000 idle connections",
        pairs(1_000, senders=0),
        MEMORY,
        most=8.0,
        bare=True,
        idle=True,
        fresh=True,
    ),
    Scenario(
        "bare-two-room",
        "two instances, a room of 1,000, 1 sender",
        one_room(1_000),
        DELIVERY,
        aim=2.0,
        bare=True,
        instances=2,
        full=True,
    ),
    Scenario(
        "bare-two-pairs",
        "two instances, 1,000 pairs across them, 1,000 senders",
        pairs(1_000, senders=1_000),
        DELIVERY,
        aim=2.0,
        bare=True,
        instances=2,
        full=True,
    ),
)

WHOLE = (
    Scenario("sends", "one-to-one, 1,000 pairs, 256 senders", pairs(1_000, senders=256), SEND, aim=3.0),
    Scenario("single", "one-to-one, 1,000 pairs, 1 sender: batches of one", pairs(1_000, senders=1), SEND),
    Scenario("groups", "100 groups of 10, 100 senders", groups(100, 10), DELIVERY, aim=2.0, full=True),
    Scenario("room", "a group of 500, 1 sender", one_room(500), DELIVERY, aim=1.8, full=True),
    Scenario("connects", "2,000 connects, each with 5 groups", many_rooms(2_000, 5), CONNECT, aim=1.5, idle=True),
    Scenario("memory", "2,000 idle connections", pairs(1_000, senders=0), MEMORY, idle=True, fresh=True),
    Scenario(
        "two-room", "two instances, a group of 500, 1 sender", one_room(500), DELIVERY, aim=2.0, instances=2, full=True
    ),
    Scenario(
        "two-pairs",
        "two instances, 1,000 pairs across them, 256 senders",
        pairs(1_000, senders=256),
        SEND,
        aim=3.0,
        instances=2,
        full=True,
    ),
)

SCENARIOS = BARE + WHOLE
