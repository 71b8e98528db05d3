"""Who may change who takes part in a group: the whole table."""

from __future__ import annotations

from itertools import product

import pytest

from rules.participants import ParticipantRole, may_add, may_promote, may_remove

OWNER, ADMIN, MEMBER = ParticipantRole.OWNER, ParticipantRole.ADMIN, ParticipantRole.MEMBER

ALLOWED = {(OWNER, ADMIN), (OWNER, MEMBER), (ADMIN, MEMBER)}


@pytest.mark.parametrize(("actor", "other"), list(product(ParticipantRole, repeat=2)))
def test_owners_let_in_and_show_out_everybody_below_and_admins_members(
    actor: ParticipantRole, other: ParticipantRole
) -> None:
    assert may_add(actor, other) == ((actor, other) in ALLOWED)
    assert may_remove(actor, other) == ((actor, other) in ALLOWED)


@pytest.mark.parametrize("actor", list(ParticipantRole))
def test_nobody_makes_or_removes_an_owner(actor: ParticipantRole) -> None:
    assert not may_add(actor, OWNER)
    assert not may_remove(actor, OWNER)


def test_a_member_changes_nobody() -> None:
    assert not any(may_add(MEMBER, other) or may_remove(MEMBER, other) for other in ParticipantRole)


# The actor, who the other is, and what they shall be: another role, or the same one again.
MAY_PROMOTE = {
    *((OWNER, other, role) for other in (ADMIN, MEMBER) for role in ParticipantRole),
    (ADMIN, OWNER, OWNER),  # by whoever has handed over, and asks again
}
OF_ONESELF = {(OWNER, OWNER), (ADMIN, MEMBER), (MEMBER, MEMBER)}  # but for stepping down, repeats


@pytest.mark.parametrize(("actor", "target", "role"), list(product(ParticipantRole, repeat=3)))
def test_the_owner_gives_roles_and_admins_step_down(
    actor: ParticipantRole, target: ParticipantRole, role: ParticipantRole
) -> None:
    assert may_promote(actor, target, role, oneself=False) == ((actor, target, role) in MAY_PROMOTE)
    if target == actor:
        assert may_promote(actor, target, role, oneself=True) == ((actor, role) in OF_ONESELF)
    read = may_promote(str(actor), str(target), role, oneself=False)  # type: ignore[arg-type]
    assert read == may_promote(actor, target, role, oneself=False)


@pytest.mark.parametrize(("actor", "other"), list(product(ParticipantRole, repeat=2)))
def test_a_role_read_from_the_database_counts_as_the_role(actor: ParticipantRole, other: ParticipantRole) -> None:
    assert may_add(str(actor), str(other)) == may_add(actor, other)  # type: ignore[arg-type]
    assert may_remove(str(actor), str(other)) == may_remove(actor, other)  # type: ignore[arg-type]
