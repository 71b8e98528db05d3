"""What some pushes do to an instance's sockets when they have been delivered there."""

from uuid import UUID

import msgspec

from handlers.accounts import SessionRevoked, session_revoked
from handlers.conversations import conversation_created
from handlers.participants import ParticipantRemoved, participant_added, participant_removed
from server.commands.context import Services
from server.rooms.log import Event
from server.rooms.names import conversation_room


class _Opened(msgspec.Struct):
    """What joining needs of a conversation in a push."""

    conversation_id: UUID
    head_seq: int


class _Added(msgspec.Struct):
    conversation: _Opened


_decode_opened = msgspec.json.Decoder(_Opened).decode
_decode_added = msgspec.json.Decoder(_Added).decode
_decode_removed = msgspec.json.Decoder(ParticipantRemoved).decode
_decode_revoked = msgspec.json.Decoder(SessionRevoked).decode


def register_effects(services: Services) -> None:
    """Let people's sockets follow what happens to them: into rooms, out of them, and away."""

    def join(event: Event, opened: _Opened) -> None:
        for socket in services.delivery.sockets_of(event.room.id):
            services.joining.join_later(socket, conversation_room(opened.conversation_id), opened.head_seq)

    def created(event: Event) -> None:
        join(event, _decode_opened(event.payload))

    def added(event: Event) -> None:
        if event.room.kind == "user":
            join(event, _decode_added(event.payload).conversation)

    def removed(event: Event) -> UUID | None:
        # Of the two copies the one in the conversation counts: nothing behind it is delivered before it.
        return _decode_removed(event.payload).user_id if event.room.kind == "conversation" else None

    def revoked(event: Event) -> None:
        session_id = _decode_revoked(event.payload).session_id
        for socket in services.delivery.sockets_of(event.room.id):
            if socket.session_id == session_id:
                socket.connection.close()

    services.delivery.on(conversation_created.name, created)
    services.delivery.on(participant_added.name, added)
    services.delivery.on_end(participant_removed.name, removed)
    services.delivery.on(session_revoked.name, revoked)
