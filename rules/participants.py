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

_NONE: frozenset[ParticipantRole] = frozenset()
_MAY_GIVE: dict[tuple[ParticipantRole, ParticipantRole], frozenset[ParticipantRole]] = {
    (ParticipantRole.OWNER, ParticipantRole.ADMIN): frozenset(ParticipantRole),
    (ParticipantRole.OWNER, ParticipantRole.MEMBER): frozenset(ParticipantRole),
    # Who has handed over is an admin, and may not have heard that it is done.
    (ParticipantRole.ADMIN, ParticipantRole.OWNER): frozenset({ParticipantRole.OWNER}),
}
# What one may make of oneself: admins step down. The others are that already, and ask again.
_MAY_BECOME: dict[ParticipantRole, frozenset[ParticipantRole]] = {
    ParticipantRole.OWNER: frozenset({ParticipantRole.OWNER}),
    ParticipantRole.ADMIN: frozenset({ParticipantRole.MEMBER}),
    ParticipantRole.MEMBER: frozenset({ParticipantRole.MEMBER}),
}


def may_add(actor: ParticipantRole, role: ParticipantRole) -> bool:
    """Whether somebody with the role `actor` may bring a person in as `role`."""
    return role in _MAY_ADD[actor]


def may_remove(actor: ParticipantRole, target: ParticipantRole) -> bool:
    """Whether somebody with the role `actor` may remove a person who is `target`."""
    return target in _MAY_REMOVE[actor]


def may_rename(actor: ParticipantRole) -> bool:
    """Whether somebody with the role `actor` may change what all see of a group."""
    return actor != ParticipantRole.MEMBER


def may_promote(actor: ParticipantRole, target: ParticipantRole, role: ParticipantRole, *, oneself: bool) -> bool:
    """Whether somebody with the role `actor` may make a person who is `target`, or `oneself`, a `role`.

    Or may ask for it again, where that is what the person is by now.
    """
    return role in (_MAY_BECOME[actor] if oneself else _MAY_GIVE.get((actor, target), _NONE))
