"""People who talk in one conversation, two or many of them."""

import asyncio
from collections.abc import Sequence
from time import perf_counter

from server.cli.load.measure import bucket_of
from server.cli.load.person import Asked, Data, Person
from server.cli.load.stage import Stage

MOST_ASKED = 32  # of one person at a time, at a rate; more would only wait in the server's socket


class Talk:
    """A conversation; those who talk send their next message when the last was acked, or when their turn comes."""

    def __init__(self, stage: Stage, people: Sequence[Person], conversation_id: str | None) -> None:
        self._stage = stage
        self._people = people
        self._conversation_id = conversation_id or ""
        self._room = ""
        self._seated = asyncio.Event()
        self.talkers = people[: stage.options.senders] if stage.options.senders else people
        self._answers = {person: _Answered(self, person) for person in people}
        for person in people:
            person.play = self

    async def prepare(self) -> None:
        """Return when everybody is in the conversation, which is made where there is none."""
        if not self._conversation_id:
            is_pair = len(self._people) == 2
            asked = {
                "kind": "private" if is_pair else "group",
                "user_ids": [person.user_id for person in self._people[1:]],
                "client_id": f"{self._stage.prefix}{self._stage.number()}",
            }
            self._people[0].ask("conversation:create", asked if is_pair else asked | {"title": "Load test"}, self._made)
        else:
            self._room = f"conversation:{self._conversation_id}"
        self._look()
        await self._seated.wait()

    def begin(self) -> None:
        """Talk, each as soon as they may."""
        for person in self.talkers:
            self.act(person)

    def act(self, person: Person, at: float | None = None) -> bool:
        """Let somebody send a message, which was due at a time; False where too many of theirs wait."""
        if len(person.asked) >= MOST_ASKED or not person.is_ready:
            return False
        if self._stage.spend():
            person.say(self._room, self._conversation_id, len(self._people), self._answers[person], at=at)
        return True

    def pushed(self, person: Person, name: str, payload: Data) -> None:
        """Somebody may have come in."""
        if name == "conversation:created" and not self._seated.is_set():
            self._look()

    def returned(self, person: Person) -> None:
        """What was asked is asked again by themselves; who had nothing to ask goes on."""
        if not person.asked and self._stage.options.rate is None and person in self.talkers:
            self.act(person)

    def _made(self, asked: Asked, data: Data | None, error: Data | None) -> None:
        if data is not None:
            self._conversation_id = data["conversation_id"]
            self._room = f"conversation:{self._conversation_id}"
            self._look()
        else:
            self._people[0].refusal = f"conversation:create: {error}"

    def _look(self) -> None:
        if self._room and all(self._room in person.ears.heads for person in self._people):
            self._seated.set()


class _Answered:
    """What happens when a message of somebody's is answered."""

    __slots__ = ("_person", "_talk")

    def __init__(self, talk: Talk, person: Person) -> None:
        self._talk = talk
        self._person = person

    def __call__(self, asked: Asked, data: Data | None, error: Data | None) -> None:
        stage = self._person.stage
        if data is None:
            stage.ledger.refuse(asked.number)
        else:
            span = stage.span
            span.acked += 1
            bucket = bucket_of(perf_counter() - asked.at)
            span.ack_s[bucket] = span.ack_s.get(bucket, 0) + 1
            stage.ledger.ack(asked.number, data["seq"])
        if stage.options.rate is None and self._person.is_ready:
            self._talk.act(self._person)
