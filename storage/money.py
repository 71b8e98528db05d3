"""Money as it travels."""

from typing import Annotated

import msgspec

from rules.money import MOST

Minor = Annotated[int, msgspec.Meta(gt=0, le=MOST, description="in minor units")]
Currency = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$", description="ISO 4217")]


class Money(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An amount in its currency's minor units."""

    amount: Minor
    currency: Currency


class Sum(msgspec.Struct, frozen=True):
    """As `Money`, where it may also be nothing."""

    amount: Annotated[int, msgspec.Meta(ge=0, le=MOST, description="in minor units")]
    currency: Currency
