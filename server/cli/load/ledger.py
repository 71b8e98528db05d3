"""Whether rooms kept their promise: what was acked reached each member once, in the room's order, without a gap. Pure.

A room numbers its events, and each member hears them all: so each may hear only the number behind the last. A message
that was heard has to have the number of its ack and of every other delivery.
"""

from collections.abc import Collection

from server.cli.load.faults import Fault, Faults


class Ears:
    """Where somebody stands in each of their rooms; `early` is what came of a room before they knew of it."""

    __slots__ = ("early", "heads", "missing", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.heads: dict[str, int] = {}
        self.missing: dict[str, set[int]] = {}
        self.early: dict[str, list[tuple[int, int | None]]] = {}


class Sent:
    """A message on its way to its members, `waiting` those who have not heard it; `seq` is 0 before it is known.

    `words` are what each of its packets has to say: the conversation, the sender and the text.
    """

    __slots__ = ("at", "is_acked", "is_refused", "members", "number", "room", "seq", "waiting", "words")

    def __init__(
        self, number: int, room: str, members: Collection[Ears], at: float, words: tuple[str, str, str] = ("", "", "")
    ) -> None:
        self.number = number
        self.room = room
        self.members = members
        self.waiting = set(members)
        self.at = at
        self.words = words
        self.seq = 0
        self.is_acked = False
        self.is_refused = False


class Ledger:
    """All messages of some rooms whose members all listen here."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._open: dict[int, Sent] = {}
        self._everybody: list[Ears] = []
        self._tops: dict[str, int] = {}
        self._highest = 0

    def ears(self, name: str) -> Ears:
        """Somebody who will listen."""
        ears = Ears(name)
        self._everybody.append(ears)
        return ears

    @property
    def is_settled(self) -> bool:
        """Whether all that was sent is acked and heard by all, or refused, and all know the same of every room."""
        return all(sent.is_refused for sent in self._open.values()) and not any(map(self._lacks, self._everybody))

    def say(self, sent: Sent) -> None:
        """A message is sent; numbers go up."""
        self._open[sent.number] = sent
        self._highest = sent.number

    def again(self, number: int, at: float) -> None:
        """A message is sent once more, because there was a limit: it counts from here."""
        if number in self._open:
            self._open[number].at = at

    def ack(self, number: int, seq: int) -> None:
        """A message was acked with its number in the room."""
        sent = self._open.get(number)
        if sent is None or sent.is_acked:
            self._faults.note(Fault.STRANGE, f"message {number} was acked again, as {seq}")
            return
        sent.is_acked = True
        self._number(sent, seq)
        if not sent.waiting:
            del self._open[number]

    def refuse(self, number: int) -> None:
        """A message was answered with an error: nobody may hear it."""
        sent = self._open.get(number)
        if sent is not None and not sent.is_refused:
            sent.is_refused = True
            if sent.seq:
                self._faults.note(
                    Fault.STRANGE, f"message {number} was refused, and heard as {sent.seq} of {sent.room}"
                )

    def hear(self, ears: Ears, room: str, seq: int, number: int | None = None) -> Sent | None:
        """An event is heard, `number` where it is one of our messages; that message, if it is the first time.

        What comes of a room before it is known that somebody stands there counts when that is.
        """
        before = ears.heads.get(room)
        if before is None:
            ears.early.setdefault(room, []).append((seq, number))
            return None
        if seq == before + 1:
            ears.heads[room] = seq
        elif not self._is_late(ears, room, before, seq):
            return None
        if seq > self._tops.get(room, 0):
            self._tops[room] = seq
        return None if number is None else self.reach(ears, room, seq, number)

    def reach(self, ears: Ears, room: str, seq: int, number: int) -> Sent | None:
        """A message reaches somebody, by whatever way; the message, if it was on its way to them."""
        sent, place = self._open.get(number), f"{seq} of {room}"
        if sent is not None and sent.room == room and ears in sent.waiting:
            if sent.is_refused:
                self._faults.note(Fault.STRANGE, f"message {number} was refused, and heard as {place}")
            self._number(sent, seq)
            sent.waiting.discard(ears)
            if not sent.waiting and sent.is_acked:
                del self._open[number]
            return sent
        if sent is None or (sent.room == room and ears in sent.members):
            kind, how = (Fault.DOUBLED, "again") if 0 < number <= self._highest else (Fault.STRANGE, "from nowhere")
            self._faults.note(kind, f"{ears.name} heard message {number} {how}, as {place}")
        else:
            self._faults.note(Fault.STRANGE, f"{ears.name} heard message {number} to {sent.room}, as {place}")
        return None

    def anchor(self, ears: Ears, room: str, head: int) -> None:
        """Somebody is told where a room stands, in which they will hear everything from here on."""
        if room not in ears.heads:
            ears.heads[room] = head
            for seq, number in ears.early.pop(room, ()):
                self.hear(ears, room, seq, number)

    def owe(self, ears: Ears, room: str, after: int, head: int) -> None:
        """Somebody who was away stands in a room at its head, and asks for what was before, from `after` on."""
        ears.heads[room] = head
        ears.early.pop(room, None)
        ears.missing.setdefault(room, set()).update(range(after + 1, head + 1))

    def forget(self, ears: Ears, room: str) -> None:
        """Somebody stands in a room no more."""
        ears.heads.pop(room, None)
        ears.missing.pop(room, None)

    def fill(self, ears: Ears, room: str, seq: int) -> bool:
        """What was asked for comes; False where it is not owed, for it was heard live as well."""
        missing = ears.missing.get(room, set())
        is_owed = seq in missing
        missing.discard(seq)
        return is_owed

    def close(self) -> None:
        """Nothing more is heard: note all that is missing."""
        for sent in self._open.values():
            if sent.is_acked:
                deaf = sorted(ears.name for ears in sent.waiting)
                what = f"message {sent.number}, acked as {sent.seq} of {sent.room}, did not reach {len(deaf)} members"
                self._faults.note(Fault.LOST, f"{what}: {', '.join(deaf[:3])}")
            elif not sent.is_refused:
                self._faults.note(Fault.UNANSWERED, f"message {sent.number} to {sent.room}")
        for ears in self._everybody:
            for room, head in ears.heads.items():
                seqs = ears.missing.get(room, set()).union(range(head + 1, self._tops.get(room, 0) + 1))
                if seqs:
                    what = f"{ears.name} never heard {_few(seqs)} of {room}, and heard {head}"
                    self._faults.note(Fault.GAP, what, len(seqs))
            for room, early in ears.early.items():
                what = f"{ears.name}, who does not stand in {room}, heard {_few({seq for seq, _ in early})} of it"
                self._faults.note(Fault.STRANGE, what, len(early))

    def _lacks(self, ears: Ears) -> bool:
        """Whether somebody has not heard what others have."""
        return any(ears.missing.values()) or any(head < self._tops.get(room, 0) for room, head in ears.heads.items())

    def _number(self, sent: Sent, seq: int) -> None:
        if not sent.seq:
            sent.seq = seq
        elif sent.seq != seq:
            what = f"message {sent.number} is {sent.seq} of {sent.room}, and {seq}"
            self._faults.note(Fault.MISNUMBERED, what)

    def _is_late(self, ears: Ears, room: str, before: int, seq: int) -> bool:
        """Note that an event does not come behind the last; whether it is heard for the first time."""
        missing = ears.missing.setdefault(room, set())
        if seq > before:
            missing.update(range(before + 1, seq))
            ears.heads[room] = seq
            return True
        if seq in missing:
            missing.discard(seq)
            self._faults.note(Fault.REORDERED, f"{ears.name} heard {seq} of {room} behind {before}")
            return True
        self._faults.note(Fault.DOUBLED, f"{ears.name} heard {seq} of {room} again, behind {before}")
        return False


def _few(seqs: set[int]) -> str:
    first = sorted(seqs)[:5]
    return ", ".join(map(str, first)) + (f" and {len(seqs) - 5} more" if len(seqs) > 5 else "")
