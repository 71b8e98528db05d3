"""What people may be called: what reads like another's name is refused, what a script needs is not."""

from __future__ import annotations

import pytest

from rules.users import label_fault, phone_fault, username_fault


@pytest.mark.parametrize(
    "username",
    ["amina", "Amina_1", "7up", "ümit", "жук.1", "γάτα", "أمينة_7", "太郎-ひらカナ", "王小明", "김철수", "a.b-c_d"],
)
def test_a_username_of_one_script_is_right(username: str) -> None:
    assert username_fault(username) is None


@pytest.mark.parametrize(
    ("username", "fault"),
    [
        ("_amina", "begin"),
        (".amina", "begin"),
        ("-1", "begin"),
        ("", "begin"),
        ("\uff41mina", "NFKC"),
        ("amin\u00aa", "NFKC"),
        ("u\u0308mit", "NFKC"),
        ("pay\ufb01", "NFKC"),
        ("x\u00b2", "NFKC"),
        ("p\u0430ypal", "script"),  # a Cyrillic a
        ("c\u03bfca", "script"),  # a Greek o
        ("\u0430\u03bf", "script"),
        ("amina.\u0623\u0645\u064a\u0646\u0629", "script"),
        ("tokyo\u592a\u90ce", "script"),
    ],
)
def test_a_username_that_reads_like_another_is_refused(username: str, fault: str) -> None:
    told = username_fault(username)
    assert told is not None
    assert fault in told


@pytest.mark.parametrize(
    "label", ["Amina", "أمينة", "نمی\u200cشود", "क्\u200dष", "👩\u200d👧", "Amina's phone", "!", "a b"]
)
def test_a_label_may_have_joiners_and_signs(label: str) -> None:
    assert label_fault(label) is None


@pytest.mark.parametrize("label", ["", " ", "\u00a0\u3000", "\u200d", " \u200b ", "\u3164", "\u2800", "\ufeff"])
def test_a_label_that_shows_nothing_is_none(label: str) -> None:
    assert label_fault(label) == "shows nothing"


@pytest.mark.parametrize(
    "label",
    [
        "a\nb",
        "a\tb",
        "\x1b[2J",
        "a\x85",
        "a\u2028b",
        "a\u2029",
        "\u202eanima",
        "\u200famina",
        "\u2066a",
        "\u061ca",
        "a\udcff",
    ],
)
def test_a_label_does_not_control_how_it_is_shown(label: str) -> None:
    told = label_fault(label)
    assert told is not None
    assert "control" in told


@pytest.mark.parametrize(("phone", "is_right"), [("112", True), ("+1-2 (3)", True), ("12", False), ("+()-./ 1", False)])
def test_a_phone_number_has_three_digits_at_the_least(phone: str, is_right: bool) -> None:
    assert (phone_fault(phone) is None) == is_right
