"""Crowds: people, the conversations they are in, and who of them sends. Nothing here touches a database.

Each crowd has people of its own, so that a connect of one reads nothing that belongs to another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from uuid import UUID, uuid5

_SPACE = UUID("6f1d7a52-1f43-4d4c-8f5e-8f5ed2a5c0de")


@dataclass(frozen=True)
class Crowd:
    """`people` people in conversations of `size`; each of them is in `rooms_each` of these.

    The first `size` people share the first `rooms_each` conversations, the next `size` people the next ones, and so on.
    The first person of each of the first `senders` such circles sends, in the first of its conversations.
    """

    name: str
    people: int
    size: int
    rooms_each: int
    senders: int

    @property
    def conversations(self) -> int:
        """How many conversations there are."""
        return self.people // self.size * self.rooms_each

    @property
    def talks(self) -> bool:
        """Whether they talk in one conversation each, or only connect, with all that they are in."""
        return self.senders > 0 or self.rooms_each == 1

    @cached_property
    def user_ids(self) -> list[UUID]:
        """The people."""
        return [uuid5(_SPACE, f"{self.name} person {n}") for n in range(self.people)]

    @cached_property
    def session_ids(self) -> list[UUID]:
        """Each person's session, in the same order."""
        return [uuid5(_SPACE, f"{self.name} login {n}") for n in range(self.people)]

    @cached_property
    def conversation_ids(self) -> list[UUID]:
        """The conversations."""
        return [uuid5(_SPACE, f"{self.name} conversation {n}") for n in range(self.conversations)]

    def rooms_of(self, person: int) -> list[UUID]:
        """The conversations that a person is in."""
        first = self.talks_in(person)
        return self.conversation_ids[first : first + self.rooms_each]

    def members(self, conversation: int) -> range:
        """The numbers of a conversation's people."""
        block = conversation // self.rooms_each
        return range(block * self.size, (block + 1) * self.size)

    def usernames(self) -> list[str]:
        """Each person's name."""
        return [f"{self.name}-{n}" for n in range(self.people)]

    def talks_in(self, person: int) -> int:
        """The number of the conversation in which a person talks: the first of theirs."""
        return person // self.size * self.rooms_each

    def sends(self, person: int) -> bool:
        """Whether this person sends."""
        return person % self.size == 0 and person // self.size < self.senders

    def instance(self, person: int, instances: int) -> int:
        """Where a person is connected: a conversation's people are spread over all instances."""
        return person % instances


def pairs(conversations: int, *, senders: int) -> Crowd:
    """Private conversations of two. The people are the same whoever of them sends."""
    return Crowd("pairs", conversations * 2, 2, 1, senders)


def groups(conversations: int, size: int) -> Crowd:
    """Groups, with one sender each."""
    return Crowd("groups", conversations * size, size, 1, conversations)


def one_room(size: int) -> Crowd:
    """One group, with one sender."""
    return Crowd("room", size, size, 1, 1)


def many_rooms(people: int, rooms_each: int) -> Crowd:
    """People who are in several groups of ten each, and send nothing."""
    return Crowd("busy", people, 10, rooms_each, 0)
