"""Whether rooms kept their promise: what was acked reached each member once, in the room's order, without a gap. Pure.

A room numbers its events, and each member hears them all: so each may hear only the number behind the last. A message
that was heard has to have the number of its ack and of every other delivery.
"""

from server.cli.load.faults import Fault, Faults


class Ears:
    """Where somebody stands in each of their rooms."""

    __slots__ = ("heads", "missing", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.heads: dict[str, int] = {}
        self.missing: dict[str, set[int]] = {}


class Sent:
    """A message on its way; `left` is how many members have not heard it yet, `seq` is 0 before it is known."""

    __slots__ = ("at", "is_acked", "is_refused", "left", "number", "room", "seq")

    def __init__(self, number: int, room: str, members: int, at: float) -> None:
        self.number = number
        self.room = room
        self.left = members
        self.at = at
        self.seq = 0
        self.is_acked = False
        self.is_refused = False


class Ledger:
    """All messages of some rooms whose members all listen here."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._open: dict[int, Sent] = {}
        self._everybody: list[Ears] = []
        self._highest = 0
        self.unacked = 0

    def ears(self, name: str) -> Ears:
        """Somebody who will listen."""
        ears = Ears(name)
        self._everybody.append(ears)
        return ears

    @property
    def is_settled(self) -> bool:
        """Whether everything that was sent has been acked and heard by all, or refused."""
        return all(sent.is_refused for sent in self._open.values())

    def say(self, number: int, room: str, members: int, at: float) -> None:
        """A message is sent; numbers go up."""
        self._open[number] = Sent(number, room, members, at)
        self._highest = number
        self.unacked += 1

    def again(self, number: int, at: float) -> None:
        """A message is sent once more, because the server asked for patience: it counts from here."""
        if number in self._open:
            self._open[number].at = at

    def ack(self, number: int, seq: int) -> None:
        """A message was acked with its number in the room."""
        sent = self._open.get(number)
        if sent is None or sent.is_acked:
            self._faults.note(Fault.STRANGE, f"message {number} was acked again, as {seq}")
            return
        sent.is_acked = True
        self.unacked -= 1
        self._number(sent, seq)
        if not sent.left:
            del self._open[number]

    def refuse(self, number: int) -> None:
        """A message was answered with an error: nobody may hear it."""
        sent = self._open.get(number)
        if sent is not None and not sent.is_refused:
            sent.is_refused = True
            self.unacked -= 1
            if sent.seq:
                self._faults.note(
                    Fault.STRANGE, f"message {number} was refused, and heard as {sent.seq} of {sent.room}"
                )

    def hear(self, ears: Ears, room: str, seq: int, number: int | None = None) -> float | None:
        """An event is heard, `number` where it is one of our messages; when that was sent, if it is the first time."""
        before = ears.heads.get(room)
        if before is not None and seq != before + 1:
            if not self._is_late(ears, room, before, seq):
                return None
        else:
            ears.heads[room] = seq
        if number is None:
            return None
        sent = self._open.get(number)
        if sent is None or not sent.left:
            kind, how = (Fault.DOUBLED, "again") if 0 < number <= self._highest else (Fault.STRANGE, "from nowhere")
            self._faults.note(kind, f"{ears.name} heard message {number} {how}, as {seq} of {room}")
            return None
        if sent.room != room:
            self._faults.note(Fault.STRANGE, f"{ears.name} heard message {number} of {sent.room} in {room}")
            return None
        if sent.is_refused:
            self._faults.note(Fault.STRANGE, f"message {number} was refused, and heard as {seq} of {room}")
        self._number(sent, seq)
        sent.left -= 1
        if not sent.left and sent.is_acked:
            del self._open[number]
        return sent.at

    def anchor(self, ears: Ears, room: str, head: int) -> None:
        """Somebody is told where a room stands, in which they will hear everything from here on."""
        known = ears.heads.get(room)
        if known is None:
            ears.heads[room] = head

    def owe(self, ears: Ears, room: str, after: int, head: int) -> None:
        """Somebody who was away stands in a room new to them, at its head, and asks for what was before."""
        ears.heads[room] = head
        ears.missing.setdefault(room, set()).update(range(after + 1, head + 1))

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
                deaf = [each.name for each in self._everybody if not self._has_heard(each, sent)]
                what = f"message {sent.number}, acked as {sent.seq} of {sent.room}, did not reach {sent.left} members"
                self._faults.note(Fault.LOST, f"{what}: {', '.join(deaf[:3]) or 'nobody knows whom'}")
            elif not sent.is_refused:
                self._faults.note(Fault.UNANSWERED, f"message {sent.number} to {sent.room}")
        for ears in self._everybody:
            for room, seqs in ears.missing.items():
                if seqs:
                    what = f"{ears.name} never heard {_few(seqs)} of {room}, and heard {ears.heads[room]}"
                    self._faults.note(Fault.GAP, what, len(seqs))

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

    @staticmethod
    def _has_heard(ears: Ears, sent: Sent) -> bool:
        """Whether a member has heard it; those of other rooms need not."""
        head = ears.heads.get(sent.room)
        return head is None or (head >= sent.seq and sent.seq not in ears.missing.get(sent.room, ()))


def _few(seqs: set[int]) -> str:
    first = sorted(seqs)[:5]
    return ", ".join(map(str, first)) + (f" and {len(seqs) - 5} more" if len(seqs) > 5 else "")
