"""What a listing's counts and the clock make of it: every state walked."""

from itertools import product

import pytest

from rules.listings import ListingStatus, status_of

COUNTS = [(quantity, reserved, sold) for quantity in (1, 2, 3) for reserved, sold in product(range(4), repeat=2)]
WALKED = [
    (was, *counts, has_expired)
    for was in ListingStatus
    for counts in COUNTS
    if counts[1] + counts[2] <= counts[0]
    for has_expired in (False, True)
]


@pytest.mark.parametrize(("was", "quantity", "reserved", "sold", "has_expired"), WALKED)
def test_a_status_follows_the_counts_and_what_has_ended_stays_ended(
    was: ListingStatus, quantity: int, reserved: int, sold: int, has_expired: bool
) -> None:
    status = status_of(was, quantity, reserved, sold, has_expired=has_expired)
    assert (status is ListingStatus.SOLD) == (sold == quantity)
    if status is not ListingStatus.SOLD:
        has_ended = has_expired or was is ListingStatus.EXPIRED
        assert (status is ListingStatus.CLOSED) == (was is ListingStatus.CLOSED)
        assert (status is ListingStatus.EXPIRED) == (has_ended and was is not ListingStatus.CLOSED)
    if status in (ListingStatus.ACTIVE, ListingStatus.RESERVED):
        assert (status is ListingStatus.RESERVED) == (reserved + sold == quantity)
