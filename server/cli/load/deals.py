"""Whether negotiation kept its rules, as far as the people at the table can see. Pure.

A piece is sold once, one move wins at each version of an offer, versions go up, and both sides are told the same of
every offer, negotiation and transaction.
"""

from collections.abc import Mapping
from typing import Any

from server.cli.load.faults import Fault, Faults

SIDES = 2
_OWN = {"transaction": ("client_secret",)}  # what one side alone is told


class _Told:
    """An object at one version, as the first side heard it; `at` is when, by whom: `names`."""

    __slots__ = ("names", "payload")

    def __init__(self, name: str, payload: Mapping[str, Any]) -> None:
        self.names = [name]
        self.payload = payload


class Deals:
    """All that was listed, moved and told at the tables of one worker."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._pieces: dict[str, int] = {}
        self._sold: dict[str, dict[str, int]] = {}
        self._winners: dict[tuple[str, int], str] = {}
        self._versions: dict[tuple[str, str, str], int] = {}
        self._half_told: dict[tuple[str, str, int], _Told] = {}
        self._accepted: dict[str, set[str]] = {}
        self.agreed = 0

    def listed(self, listing_id: str, pieces: int) -> None:
        """Something is for sale."""
        self._pieces[listing_id] = pieces

    def moved(self, name: str, how: str, offer_id: str, version: int) -> None:
        """A move on an offer at this version was acked."""
        move = f"{name}'s {how}"
        before = self._winners.setdefault((offer_id, version), move)
        if before != move:
            self._faults.note(Fault.TWO_WINNERS, f"offer {offer_id} at version {version}: {before} and {move}")

    def accepted(self, name: str, offer: Mapping[str, Any]) -> None:
        """An accept was acked, with the offer as it is then."""
        if offer["status"] != "accepted":
            self._faults.note(Fault.UNTOLD, f"{name}'s accept of {offer['offer_id']} was acked as {offer['status']}")
        self.agreed += 1
        self._accepted.setdefault(offer["offer_id"], set())
        self._sell(offer)

    def hear(self, name: str, noun: str, payload: Mapping[str, Any]) -> None:
        """Somebody was told of an offer, negotiation or transaction."""
        id_, version = payload[f"{noun}_id"], payload["version"]
        before = self._versions.get((name, noun, id_), 0)
        if version <= before:
            self._faults.note(Fault.VERSION, f"{name} heard version {version} of {noun} {id_} behind {before}")
            return
        self._versions[name, noun, id_] = version
        if noun == "offer" and payload["status"] == "accepted":
            self._sell(payload)
            self._accepted.setdefault(id_, set()).add(name)
        shown = {key: value for key, value in payload.items() if key not in _OWN.get(noun, ())}
        told = self._half_told.get((noun, id_, version))
        if told is None:
            self._half_told[noun, id_, version] = _Told(name, shown)
            return
        told.names.append(name)
        if told.payload != shown:
            fields = sorted(key for key in {*shown, *told.payload} if shown.get(key) != told.payload.get(key))
            what = f"{noun} {id_} at version {version}: {' and '.join(told.names)} heard another {', '.join(fields)}"
            self._faults.note(Fault.SIDES_DIFFER, what)
        if len(told.names) == SIDES:
            del self._half_told[noun, id_, version]

    @property
    def is_settled(self) -> bool:
        """Whether both sides have heard everything that either has."""
        return not self._half_told and all(len(names) >= SIDES for names in self._accepted.values())

    def close(self) -> None:
        """Nothing more is heard: note what only one side knows."""
        for (noun, id_, version), told in self._half_told.items():
            what = f"{noun} {id_} at version {version}: only {told.names[0]} was told"
            self._faults.note(Fault.SIDES_DIFFER, what)
        for offer_id, names in self._accepted.items():
            if len(names) < SIDES:
                heard = f"only {' '.join(names)} was" if names else "neither side was"
                self._faults.note(Fault.UNTOLD, f"offer {offer_id} is accepted, and {heard} told")

    def _sell(self, offer: Mapping[str, Any]) -> None:
        listing_id = offer["listing_id"]
        sold = self._sold.setdefault(listing_id, {})
        if offer["offer_id"] in sold:
            return
        sold[offer["offer_id"]] = offer["quantity"]
        pieces = self._pieces.get(listing_id)
        if pieces is not None and sum(sold.values()) > pieces:
            self._faults.note(Fault.OVERSOLD, f"listing {listing_id} of {pieces}: accepted were {', '.join(sold)}")
