"""What a person may be."""

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
