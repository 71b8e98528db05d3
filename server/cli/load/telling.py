"""Who is told of each version of an offer, negotiation or transaction: its two sides, both the same, nobody else. Pure.

What one side has heard, and what a move has made, both sides have to hear before the end.
"""

from collections.abc import Mapping
from typing import Any

from server.cli.load.faults import Fault, Faults
from server.cli.load.packets import Negotiation, Offer, Transaction
from server.cli.load.recent import Recent

Thing = Offer | Negotiation | Transaction
_OWN = {"transaction": ("client_secret",)}  # what one side alone is told


class _Told:
    """A thing at one version: what was said of it, if anything, and which sides have not heard of it yet."""

    __slots__ = ("heard", "move", "said", "waiting")

    def __init__(self, waiting: set[str]) -> None:
        self.said: Mapping[str, Any] | None = None
        self.waiting = waiting
        self.heard: list[str] = []
        self.move = ""


class Telling:
    """What the people of one worker were told, by user_id."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._open: dict[tuple[str, str, int], _Told] = {}
        self._whole: Recent[tuple[str, str, int], None] = Recent()
        self._heard: Recent[tuple[str, str, str], int] = Recent()

    def expect(self, thing: Thing, version: int, move: str, said: Mapping[str, Any] | None = None) -> None:
        """A move was acked, which has made this version of something: both sides have to hear it, as `said`."""
        told = self._at(thing, version)
        if told is not None:
            told.move = move
            if said is not None:
                self._compare(thing, told, said, f"the answer to {move}")

    def hear(self, who: str, thing: Thing, said: Mapping[str, Any], *, is_late: bool = False) -> None:
        """Somebody was told; `is_late` where they were away, and it may come behind what is newer."""
        noun, id_ = thing.key
        if who not in (thing.buyer_id, thing.seller_id):
            what = f"{who} heard of {noun} {id_}, which is between {thing.buyer_id} and {thing.seller_id}"
            self._faults.note(Fault.OUTSIDER, what)
            return
        before = self._heard.get((who, *thing.key), 0)
        if thing.version <= before and not is_late:
            what = f"{who} heard version {thing.version} of {noun} {id_} behind {before}"
            self._faults.note(Fault.VERSION, what)
            return
        self._heard[(who, *thing.key)] = max(before, thing.version)
        told = self._at(thing, thing.version)
        if told is None:
            return
        told.heard.append(who)
        told.waiting.discard(who)
        self._compare(thing, told, said, " and ".join(told.heard))
        if not told.waiting:
            del self._open[(*thing.key, thing.version)]
            self._whole[(*thing.key, thing.version)] = None

    @property
    def is_settled(self) -> bool:
        """Whether both sides have heard everything that either has, and all that was moved."""
        return not self._open

    def close(self) -> None:
        """Nothing more is heard: note what one side knows, or neither."""
        for (noun, id_, version), told in self._open.items():
            what = f"{noun} {id_} at version {version}: {' and '.join(sorted(told.waiting))} never heard of it"
            if told.move:
                self._faults.note(Fault.UNTOLD, f"{what}, after {told.move}")
            else:
                self._faults.note(Fault.SIDES_DIFFER, f"{what}, and {told.heard[0]} did")

    def _at(self, thing: Thing, version: int) -> _Told | None:
        """What is known of a version; None where both sides have heard it."""
        key = (*thing.key, version)
        if key in self._whole:
            return None
        return self._open.setdefault(key, _Told({thing.buyer_id, thing.seller_id}))

    def _compare(self, thing: Thing, told: _Told, said: Mapping[str, Any], who: str) -> None:
        (noun, id_), own = thing.key, _OWN.get(thing.key[0], ())
        shown = {key: value for key, value in said.items() if key not in own}
        if told.said is None:
            told.said = shown
        elif told.said != shown:
            fields = sorted(key for key in {*shown, *told.said} if shown.get(key) != told.said.get(key))
            what = f"{noun} {id_} at version {thing.version}: {who} had another {', '.join(fields)}"
            self._faults.note(Fault.SIDES_DIFFER, what)
