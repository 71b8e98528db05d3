"""Which listings belong together: what points hold to, and what a match is to whom."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.listings import Category, Condition, ListingKind
from rules.matches import (
    LEAST,
    NOISE,
    MatchAction,
    MatchQuality,
    MatchReason,
    MatchStatus,
    Subject,
    is_mutual,
    is_shown,
    meaningful,
    metres,
    quality,
    score,
    status_for,
    text_of,
    total,
    trigrams,
)

WORDS = st.sampled_from(["moon", "lamp", "desk", "iphone", "13", "12", "pro", "blue", "كتاب", "سيارة", "lamps"])
TITLES = st.lists(WORDS, min_size=1, max_size=6)
PLACES = st.none() | st.tuples(st.floats(-90, 90), st.floats(-180, 180))


def subject(title: list[str], description: list[str] | None = None, **more: object) -> Subject:
    words = frozenset(title)
    made = Subject(
        ListingKind.FOR_SALE,
        words,
        words | frozenset(description or []),
        trigrams(" ".join(title)),
        10_000,
        "EUR",
        Category.HOME_DECOR,
        Condition.GOOD,
        (52.5, 13.4),
    )
    return replace(made, **more)  # type: ignore[arg-type]


@st.composite
def subjects(draw: st.DrawFn, kind: ListingKind) -> Subject:
    return subject(
        draw(TITLES),
        draw(TITLES),
        kind=kind,
        price=draw(st.integers(1, 2**53 - 1)),
        currency=draw(st.sampled_from(["EUR", "USD"])),
        category=draw(st.sampled_from(Category)),
        condition=draw(st.none() | st.sampled_from(Condition)),
        place=draw(PLACES),
    )


wishes, offers = subjects(ListingKind.WTB), subjects(ListingKind.FOR_SALE)


@given(wishes, offers)
def test_points_are_from_0_to_100_and_the_same_from_either_side(wish: Subject, offer: Subject) -> None:
    points = score(wish, offer)
    assert points == score(offer, wish)
    assert 0 <= total(points) <= 100
    assert [reason for reason, _ in points] == [reason for reason in MatchReason if reason in dict(points)]
    assert all(each > 0 for _, each in points)


@given(wishes)
def test_what_is_wanted_word_for_word_where_it_is_and_at_that_price_is_excellent(wish: Subject) -> None:
    same = replace(wish, kind=ListingKind.FOR_SALE)
    points = 100 - (8 if wish.place is None else 0)
    assert total(score(wish, same)) == points
    assert quality(points) is MatchQuality.EXCELLENT


@given(wishes, offers)
def test_what_has_more_words_in_common_scores_no_less(wish: Subject, offer: Subject) -> None:
    before = total(score(wish, offer))
    for word in offer.title - wish.title:
        more = replace(
            wish, title=wish.title | {word}, words=wish.words | {word}, spelling=wish.spelling | trigrams(word)
        )
        assert text_of(more, offer) >= text_of(wish, offer) - 1e-12
        assert total(score(more, offer)) >= before


@given(wishes, offers, st.integers(1, 2**53 - 1))
def test_what_is_cheaper_scores_no_less(wish: Subject, offer: Subject, price: int) -> None:
    cheap, dear = sorted((price, offer.price))
    assert total(score(wish, replace(offer, price=cheap))) >= total(score(wish, replace(offer, price=dear)))


@given(wishes, offers, PLACES)
def test_what_is_nearer_scores_no_less_and_what_is_nowhere_least(wish: Subject, offer: Subject, place: object) -> None:
    there = replace(offer, place=place)
    nowhere = replace(offer, place=None)
    assert total(score(wish, there)) >= total(score(wish, nowhere))
    if wish.place is not None and offer.place is not None and there.place is not None:
        nearer = metres(wish.place, there.place) <= metres(wish.place, offer.place)
        scores = [total(score(wish, each)) for each in (there, offer)]
        assert scores == sorted(scores, reverse=nearer)


@given(wishes, offers)
def test_a_better_condition_scores_no_less(wish: Subject, offer: Subject) -> None:
    scores = [total(score(wish, replace(offer, condition=each))) for each in (*Condition, None)]
    assert scores == sorted(scores, reverse=True)


@given(wishes, offers)
def test_the_same_category_scores_no_less_than_other_nor_that_than_another(wish: Subject, offer: Subject) -> None:
    for category in Category:
        one = replace(wish, category=category)
        same, half = (total(score(one, replace(offer, category=each))) for each in (category, Category.OTHER))
        rest = [total(score(one, replace(offer, category=each))) for each in Category]
        assert same >= half
        if category is not Category.OTHER:
            assert half >= min(rest)
            assert max(rest) == same


@given(wishes, offers)
def test_without_a_word_in_common_there_is_no_match(wish: Subject, offer: Subject) -> None:
    word = frozenset({"qq"})
    other = replace(offer, title=word, words=word, spelling=trigrams("qq"), price=1, condition=Condition.NEW)
    assert score(wish, other) == ()


@pytest.mark.parametrize(
    ("wanted", "sold", "points"),
    [
        ("moon lamp", "moon lamp", 100),
        ("lamp", "moon lamp stand", 78),
        ("iphone 13", "iphone 13 pro blue", 90),
        ("iphone 13", "iphone 12", 55),
        ("iphone13", "iphone 13", 100),
        ("vintage star wars lamp", "lamp", 41),
        ("vintage star wars figure", "lamp", 0),
        ("red bicycle", "red sofa", 55),
        ("play station 5", "playstation5", 93),
        ("play station 5", "playstation4", 0),
    ],
)
def test_what_titles_have_in_common_is_worth_so_much(wanted: str, sold: str, points: int) -> None:
    assert total(score(subject(wanted.split(), kind=ListingKind.WTB), subject(sold.split()))) == points


@pytest.mark.parametrize(
    ("price", "points"), [(1, 25), (10_000, 25), (11_000, 20), (12_500, 12), (14_999, 0), (15_000, 0), (20_000, 0)]
)
def test_the_price_counts_up_to_half_as_much_again(price: int, points: int) -> None:
    found = dict(score(subject(["lamp"], kind=ListingKind.WTB), subject(["lamp"], price=price)))
    assert found.get(MatchReason.PRICE, 0) == points


def test_what_is_out_of_reach_is_no_match_but_in_another_currency_who_knows() -> None:
    wish = subject(["lamp"], kind=ListingKind.WTB)
    assert score(wish, subject(["lamp"], price=20_001)) == ()
    assert total(score(wish, subject(["lamp"], price=20_001, currency="USD"))) == 75


def test_two_of_a_kind_are_no_match() -> None:
    with pytest.raises(ValueError, match="wanted"):
        score(subject(["lamp"]), subject(["lamp"]))


def test_noise_counts_only_where_there_is_nothing_else() -> None:
    assert meaningful(["want", "lamp"]) == {"lamp"}
    assert meaningful(["want", "need"]) == {"want", "need"}
    assert meaningful([]) == frozenset()
    assert "lamp" not in NOISE


def test_quality_has_its_steps() -> None:
    steps = {n: quality(n) for n in (0, LEAST - 1, LEAST, 59, 60, 79, 80, 100)}
    assert [each and str(each) for each in steps.values()] == [
        *[None] * 2,
        *["possible"] * 2,
        *["good"] * 2,
        *["excellent"] * 2,
    ]


def test_metres_are_those_of_the_sphere() -> None:
    assert metres((0, 0), (0, 180)) == pytest.approx(20_015_114, abs=1)
    assert metres((52.52, 13.405), (48.8566, 2.3522)) == pytest.approx(877_464, abs=500)


MEANS = {
    MatchAction.INTERESTED: MatchStatus.INTERESTED,
    MatchAction.CONTACTED: MatchStatus.CONTACTED,
    MatchAction.DISMISSED: MatchStatus.DISMISSED,
    MatchAction.REPORTED: MatchStatus.DISMISSED,
}


def test_the_last_word_counts_and_to_look_is_no_word() -> None:
    """All series of up to four acts, walked whole."""
    for length in range(5):
        for acts in product(MatchAction, repeat=length):
            words = [act for act in acts if act is not MatchAction.VIEWED]
            expected = MEANS[words[-1]] if words else MatchStatus.VIEWED if acts else MatchStatus.NEW
            assert status_for(MatchStatus.NEW, acts) is expected
            for both in (MatchStatus.MUTUAL, MatchStatus.DEAL_MADE):
                assert status_for(both, acts) is both


def test_a_match_is_mutual_when_both_are_interested_or_wrote() -> None:
    wanting = {MatchStatus.INTERESTED, MatchStatus.CONTACTED}
    for one, other in product(MatchStatus, repeat=2):
        assert is_mutual(one, other) == (one in wanting and other in wanting)


def test_what_a_list_shows_is_walked_whole() -> None:
    for status, asked, points, is_open, is_blocked in product(
        MatchStatus, (None, *MatchStatus), (LEAST - 1, LEAST), (False, True), (False, True)
    ):
        fresh = status in (MatchStatus.NEW, MatchStatus.VIEWED)
        expected = (
            asked in (None, status)
            and (not is_blocked or status in (MatchStatus.MUTUAL, MatchStatus.DEAL_MADE))
            and (not fresh or (is_open and points >= LEAST))
            and (status is not MatchStatus.DISMISSED or asked is status)
        )
        assert is_shown(status, points, asked, is_open=is_open, is_blocked=is_blocked) == expected
