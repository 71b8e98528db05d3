"""The hash of a negotiation's history."""

from __future__ import annotations

import hashlib

import pytest

from rules.history import HASHED, history_sha256

OFFER = {name: f"{name}!" for name in HASHED} | {"message": "words"}


def test_the_hash_is_that_of_the_documented_text() -> None:
    text = "[{" + ",".join(f'"{name}":"{name}!"' for name in sorted(HASHED)) + "}]"
    assert history_sha256([OFFER]) == hashlib.sha256(text.encode()).hexdigest()
    assert history_sha256([]) == hashlib.sha256(b"[]").hexdigest()


@pytest.mark.parametrize("name", HASHED)
def test_every_term_counts(name: str) -> None:
    assert history_sha256([{**OFFER, name: None}]) != history_sha256([OFFER])


def test_the_order_counts_and_what_was_written_beside_does_not() -> None:
    other = {**OFFER, "round": 2}
    assert history_sha256([OFFER, other]) != history_sha256([other, OFFER])
    assert history_sha256([{**OFFER, "message": None}]) == history_sha256([OFFER])
