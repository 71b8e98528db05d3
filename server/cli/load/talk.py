"""People who talk in one conversation, two or many of them."""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from time import perf_counter

from server.cli.load import packets
from server.cli.load.measure import add
from server.cli.load.packets import Acked, Data, Error, Opened
from server.cli.load.person import Asked, Person, refuse
from server.cli.load.stage import Stage

MOST_ASKED = 32  # of one person at a time, at a rate; more would only wait in the server's socket


class CannotBegin(Exception):
    """The server does not let people do what the test needs."""


class Talk:
    """A conversation; those who talk send their next message when the last was acked, or when their turn comes."""

    def __init__(self, stage: Stage, people: Sequence[Person], conversation_id: str | None) -> None:
        self._stage = stage
        self._people = people
        self._members = [person.ears for person in people]
        self._room = "" if conversation_id is None else f"conversation:{conversation_id}"
        self._seated: asyncio.Future[None] | None = None
        self.talkers = people[: stage.options.senders] if stage.options.senders else people
        self._due: dict[Person, deque[float]] = {person: deque() for person in self.talkers}
        for person in people:
            person.play = self

    async def prepare(self) -> None:
        """Return when everybody is in the conversation, which is made where there is none. Raises `CannotBegin`."""
        self._seated = asyncio.get_running_loop().create_future()
        if not self._room:
            is_pair = len(self._people) == 2
            asked = {
                "kind": "private" if is_pair else "group",
                "user_ids": [person.user_id for person in self._people[1:]],
                "client_id": f"{self._stage.prefix}{self._stage.number()}",
            }
            self._people[0].ask("conversation:create", asked if is_pair else asked | {"title": "Load test"}, self._made)
        self._look()
        await self._seated

    def begin(self) -> None:
        """Talk, each as soon as they may."""
        for person in self.talkers:
            self._go_on(person)

    def tend(self) -> None:
        """Nothing: they wait for answers alone."""

    def take_turn(self, person: Person, at: float) -> None:
        """A message of somebody's is due: it is sent as soon as they can, and nobody sends it for them."""
        self._due[person].append(at)
        self._catch_up(person)

    @property
    def waiting(self) -> int:
        """How many messages are due and not sent."""
        return sum(map(len, self._due.values()))

    def pushed(self, person: Person, name: str, payload: Data, *, is_late: bool) -> None:
        """Somebody may have come in."""
        if name == "conversation:created":
            self._look()

    def returned(self, person: Person) -> None:
        """What was asked is asked again by itself; who had nothing to ask goes on."""
        if person in self._due:
            self._catch_up(person)
            if not any(asked.is_message for asked in person.asked.values()):
                self._go_on(person)

    def _go_on(self, person: Person) -> None:
        """In a closed loop: send one more."""
        if self._stage.options.rate is None and person.is_ready and self._stage.spend():
            self._say(person)

    def _catch_up(self, person: Person) -> None:
        """At a rate: send what is due."""
        due = self._due[person]
        while due and person.is_ready and len(person.asked) < MOST_ASKED:
            self._say(person, due.popleft())

    def _say(self, person: Person, at: float | None = None) -> None:
        person.say(self._room, self._members, partial(self._answered, person), at=at)

    def _answered(self, person: Person, asked: Asked, data: Data | None, error: Error | None) -> None:
        stage = self._stage
        if error is not None:
            refuse(person, asked, error)
            stage.ledger.refuse(asked.number)
        else:
            stage.span.acked += 1
            add(stage.span.ack_s, perf_counter() - asked.at)
            stage.ledger.ack(asked.number, packets.read(data, Acked).seq)
        self._catch_up(person)
        self._go_on(person)

    def _made(self, asked: Asked, data: Data | None, error: Error | None) -> None:
        if error is None:
            self._room = f"conversation:{packets.read(data, Opened).conversation_id}"
            self._look()
        elif self._seated is not None:
            self._seated.set_exception(CannotBegin(f"conversation:create: {error.name}: {error.message}"))

    def _look(self) -> None:
        is_seated = bool(self._room) and all(self._room in ears.heads for ears in self._members)
        if is_seated and self._seated is not None and not self._seated.done():
            self._seated.set_result(None)
