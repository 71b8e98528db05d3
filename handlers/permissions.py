"""Who may do what: the named predicates of `allow=`, and who may stand in which room."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from rules.users import Role
from server.commands.context import Context
from server.commands.registry import Permission, permission
from server.errors import Forbidden, NotFound
from server.rooms.joining import Asker, Standing
from storage import Connection, listings, messages, participants, rooms, users
from storage.participants import Participant


async def part_of(ctx: Context, conversation_id: UUID) -> Participant:
    """The caller's part in a conversation. Raises `NotFound` where they have none."""
    part = await participants.find_participant(ctx.db, conversation_id, ctx.user.user_id)
    if part is None:
        raise NotFound
    return part


@permission
async def participant(ctx: Context, p: Any) -> None:
    """Those who take part in the conversation now."""
    await part_of(ctx, p.conversation_id)


@permission
async def reader_of_the_message(ctx: Context, p: Any) -> None:
    """Those who take part in the message's conversation, and were there when it was sent."""
    if await messages.get_message(ctx.db, ctx.user.user_id, p.message_id) is None:
        raise NotFound


@permission
async def admin(ctx: Context, p: Any) -> None:
    """Administrators, as the database knows them now."""
    if not await users.has_role(ctx.db, ctx.user.user_id, Role.ADMIN):
        raise Forbidden("Administrators alone may do this.")


participant_at_the_lock = Permission("participant_at_the_lock")
"""Those who take part in the conversation, judged by the statement or the handler itself behind the room's lock."""

owner_at_the_lock = Permission("owner_at_the_lock")
"""Those whose own the attachment is, judged by the handler behind its row's lock."""

owner_or_administrator_at_the_lock = Permission("owner_or_administrator_at_the_lock")
"""A thread's owner and administrators, each for what is theirs to do; judged by the handler behind its lock."""

viewer_of_the_attachment = Permission("viewer_of_the_attachment")
"""An attachment's owner, and those who may read the message that holds it; judged by the statement itself."""

viewer_of_the_listing = Permission("viewer_of_the_listing")
"""Everybody, while the listing is there; judged by the statement itself."""

owner_of_the_listing = Permission("owner_of_the_listing")
"""Those whose own the listing is, judged by the handler behind its row's lock."""

member_of_the_room = Permission("member_of_the_room")
"""Those whom the room's own predicate lets in; the handler asks it once the socket is registered."""


async def admit_to_own_rooms(db: Connection, askers: Sequence[Asker]) -> dict[Asker, Standing]:
    """A person's own inbox is theirs alone."""
    heads = await rooms.list_heads(db, [room_id for user_id, room_id in askers if room_id == user_id])
    return {(head.room_id, head.room_id): Standing(head.last_seq, 0) for head in heads}


async def admit_to_conversations(db: Connection, askers: Sequence[Asker]) -> dict[Asker, Standing]:
    """A conversation's room is for those who take part in it, from their joining on."""
    places = await participants.list_places(db, askers, "conversation")
    return {(place.user_id, place.conversation_id): Standing(place.head_seq, place.joined_seq) for place in places}


async def admit_to_threads(db: Connection, askers: Sequence[Asker]) -> dict[Asker, Standing]:
    """A thread's room, which is its conversation's, is for those who have joined it, from its beginning on."""
    places = await participants.list_places(db, askers, "thread")
    return {(place.user_id, place.conversation_id): Standing(place.head_seq, place.joined_seq) for place in places}


async def admit_to_listings(db: Connection, askers: Sequence[Asker]) -> dict[Asker, Standing]:
    """A listing's room is for everybody who may see the listing, from its beginning on."""
    heads = {head.room_id: head.last_seq for head in await listings.list_heads(db, [room_id for _, room_id in askers])}
    return {asker: Standing(heads[asker[1]], 0) for asker in askers if asker[1] in heads}
