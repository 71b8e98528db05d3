"""What the process that hands out the people and those that hold them say to one another, a line each."""

import msgspec

from server.cli.load.circles import Circle
from server.cli.load.faults import Fault, Found
from server.cli.load.measure import Buckets, Span
from server.cli.load.options import Options

BEGIN, STOP = b"begin\n", b"stop\n"


class Task(msgspec.Struct, frozen=True):
    """What a worker is to do; `rate` and `sends` are its own share."""

    number: int
    options: Options
    circles: list[Circle]
    rate: float | None
    sends: int


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """So many sockets are connected."""

    connected: int


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """All are, and everybody is where they talk."""


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """It can't begin."""

    why: str


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """A second of the play."""

    second: int
    span: Span


class Done(msgspec.Struct, frozen=True, tag="done"):
    """The play is over: what was found wrong, and what this process has spent on it.

    `spans` are the seconds of the play, which took `ran_s`, and `cpu_s` of this process; `after` is what came behind
    them. `late_s` is how late this process came to what it had to do, `held_back` how much of what was due was never
    sent, `tried` how many moves were made that are nobody's to make.
    """

    spans: dict[int, Span]
    after: Span
    faults: dict[Fault, Found]
    ran_s: float
    cpu_s: float
    late_s: Buckets
    reconnects: int
    held_back: int
    agreed: int
    tried: int


Word = Progress | Ready | Failed | Beat | Done
