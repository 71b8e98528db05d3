"""Links: for one purpose, of one attachment, until a moment, by any of the secrets."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from server.commands.links import Links, Purpose

ONE, TWO = "one secret that is long enough to be one", "two secrets that are long enough to be two"
UPLOAD, DOWNLOAD = Purpose.UPLOAD, Purpose.DOWNLOAD


def links(*secrets: str, upload_ttl_s: int = 3600, download_ttl_s: int = 300) -> Links:
    return Links(secrets or (ONE,), upload_ttl_s=upload_ttl_s, download_ttl_s=download_ttl_s)


def parts(url: str) -> tuple[str, str, str, str]:
    """The id, the person, the end and the signature in a link."""
    split = urlsplit(url)
    query = parse_qs(split.query)
    assert split.path.startswith("/attachments/")
    assert query.keys() == {"user", "expires", "signature"}
    return split.path.removeprefix("/attachments/"), query["user"][0], query["expires"][0], query["signature"][0]


def test_a_link_is_valid_for_as_long_as_it_says() -> None:
    for purpose, ttl_s in ((UPLOAD, 3600), (DOWNLOAD, 300)):
        left = links().seconds_left(purpose, *parts(links().sign(purpose, uuid4(), uuid4()).url))
        assert ttl_s - 5 < left <= ttl_s


def test_a_link_that_has_expired_is_not_valid() -> None:
    late = links(upload_ttl_s=-1, download_ttl_s=0)
    for purpose in Purpose:
        assert links().seconds_left(purpose, *parts(late.sign(purpose, uuid4(), uuid4()).url)) == 0


def test_a_link_is_for_one_purpose() -> None:
    assert not links().seconds_left(DOWNLOAD, *parts(links().sign(UPLOAD, uuid4(), uuid4()).url))
    assert not links().seconds_left(UPLOAD, *parts(links().sign(DOWNLOAD, uuid4(), uuid4()).url))


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "change", [lambda text: text[:-1], lambda text: text + "0", str.upper, lambda _: "", lambda _: "\udc80é"]
)
def test_a_link_that_was_changed_is_not_valid(place: int, change: object) -> None:
    given = list(parts(links().sign(DOWNLOAD, uuid4(), uuid4()).url))
    changed = change(given[place])  # type: ignore[operator]
    if changed == given[place]:
        changed += "x"
    given[place] = changed
    assert links().seconds_left(DOWNLOAD, *given) == 0


def test_the_first_secret_signs_and_all_verify() -> None:
    old, both, new = links(ONE), links(TWO, ONE), links(TWO)
    before, after = (parts(some.sign(DOWNLOAD, uuid4(), uuid4()).url) for some in (old, both))
    assert both.seconds_left(DOWNLOAD, *before)
    assert both.seconds_left(DOWNLOAD, *after)
    assert new.seconds_left(DOWNLOAD, *after)
    assert not new.seconds_left(DOWNLOAD, *before)
    assert not old.seconds_left(DOWNLOAD, *after)
