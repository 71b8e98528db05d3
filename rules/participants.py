"""Who may change who takes part in a group: one table, read by the handlers and walked whole by a test."""

from enum import StrEnum


class ParticipantRole(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"


_MAY_ADD: dict[ParticipantRole, frozenset[ParticipantRole]] = {
    ParticipantRole.OWNER: frozenset({ParticipantRole.ADMIN, ParticipantRole.MEMBER}),
    ParticipantRole.ADMIN: frozenset({ParticipantRole.MEMBER}),
    ParticipantRole.MEMBER: frozenset(),
}
_MAY_REMOVE = _MAY_ADD  # whom one may let in, one may show out


def may_add(actor: ParticipantRole, role: ParticipantRole) -> bool:
    """Whether somebody with the role `actor` may bring a person in as `role`."""
    return role in _MAY_ADD[actor]


def may_remove(actor: ParticipantRole, target: ParticipantRole) -> bool:
    """Whether somebody with the role `actor` may remove a person who is `target`."""
    return target in _MAY_REMOVE[actor]


def may_rename(actor: ParticipantRole) -> bool:
    """Whether somebody with the role `actor` may change what all see of a group."""
    return actor != ParticipantRole.MEMBER


def may_promote(actor: ParticipantRole, target: ParticipantRole) -> bool:
    """Whether somebody with the role `actor` may give a person who is `target` another role; the owner alone may."""
    return actor == ParticipantRole.OWNER and target != ParticipantRole.OWNER
