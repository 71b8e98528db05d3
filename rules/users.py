"""What a person may be, and be called."""

import unicodedata
from enum import StrEnum


class Role(StrEnum):
    BUYER = "buyer"
    SELLER = "seller"
    MENTOR = "mentor"
    ADMIN = "admin"


OWN_ROLES = frozenset({Role.BUYER, Role.SELLER, Role.MENTOR})
"""Those that people give themselves."""


class UserStatus(StrEnum):
    """Only the active may sign in."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    SUSPENDED = "suspended"
    DELETED = "deleted"


class Scope(StrEnum):
    """What a token may do: all of it; no offers, payments or account changes; reading alone."""

    FULL = "full"
    LIMITED = "limited"
    READ = "read"

    def allows(self, needed: "Scope") -> bool:
        """Whether a token of this scope may do what needs that one."""
        order = [Scope.READ, Scope.LIMITED, Scope.FULL]
        return order.index(self) >= order.index(needed)


PHONE_DIGITS = 3  # at the least

_EAST_ASIAN = frozenset({"CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO"})
"""One script, as these are written together."""
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of text (Unicode's Bidi_Control), with which a name can be made to look like another."""
_UNSEEN = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and signs that show nothing."""


def username_fault(username: str) -> str | None:
    """What is wrong with a username of letters, digits, dots, hyphens and underscores; None where nothing is.

    It shall not look like another: after Unicode's UTS 39, "single script", by the first word of each letter's name.
    """
    if not username[:1].isalnum():
        return "has to begin with a letter or a digit"
    if username.isascii():
        return None
    if unicodedata.normalize("NFKC", username) != username:
        return "has letters that are another spelling of others: write it in Unicode's form NFKC"
    if len({_script(letter) for letter in username if letter.isalpha()}) > 1:
        return "has letters of more than one script"
    return None


def _script(letter: str) -> str:
    first = unicodedata.name(letter, "").split(" ")[0]
    return "CJK" if first in _EAST_ASIAN else first


def label_fault(text: str) -> str | None:
    """What is wrong with the name of a person or a device; None where nothing is.

    Joiners are right where a script needs them.
    """
    categories = [unicodedata.category(character) for character in text]
    if _TURNING & set(text) or {"Cc", "Cs", "Zl", "Zp"} & set(categories):
        return "has characters that control how text is shown: leave them out"
    if all(category in ("Cf", "Zs") or letter in _UNSEEN for letter, category in zip(text, categories, strict=True)):
        return "shows nothing"
    return None


def phone_fault(phone: str) -> str | None:
    """What is wrong with a phone number of digits and signs; None where nothing is."""
    if sum(character.isdigit() for character in phone) < PHONE_DIGITS:
        return f"has fewer than {PHONE_DIGITS} digits"
    return None
