"""The hash of a negotiation's history: both sides can show later what was offered, and in which order."""

import hashlib
import json
from collections.abc import Mapping, Sequence

HASHED = (
    "offer_id", "parent_offer_id", "round", "maker_id", "listing_version", "amount", "currency", "quantity", "status",
    "close_reason", "by", "expires_at", "at",
)  # fmt: skip
"""What of each offer goes in. Not its message: an erasure may blank that."""


def history_sha256(offers: Sequence[Mapping[str, object]]) -> str:
    """SHA-256, in hex, of the offers in the order of their rounds.

    Hashed is the UTF-8 of a JSON array with an object an offer, its members those of `HASHED` in the order of their
    names, without blanks: ids in lower case, times as on the wire, null for what is absent.
    """
    rows = [{name: offer[name] for name in HASHED} for offer in offers]
    text = json.dumps(rows, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
