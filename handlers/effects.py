"""What some pushes do to an instance's sockets when they have been delivered there."""

from uuid import UUID

import msgspec

from handlers.conversations import conversation_created, conversation_mine, room_of
from handlers.edits import message_deleted
from handlers.members import MemberMoved, member_left
from handlers.messages import message_created
from handlers.participants import ParticipantRemoved, participant_added, participant_removed
from handlers.presence import presence_changed
from handlers.sessions import SessionRevoked, session_revoked
from handlers.threads import thread_deleted
from handlers.typing import TypingChanged, typing_changed
from handlers.words import LOG_BLANKED
from rules.conversations import ConversationKind
from server.commands.context import Services, encode
from server.rooms.log import Event, ephemeral
from server.rooms.merging import Merging
from server.rooms.names import Room, conversation_room, thread_room, user_room
from server.rooms.sockets import Socket
from server.rooms.typing import Typist
from storage.presence import Presence

TYPING_S = 0.25  # between two lists of one room: one who starts and stops without end is no flood to all others


class _Opened(msgspec.Struct):
    """What joining needs of a conversation in a push."""

    conversation_id: UUID
    head_seq: int
    kind: ConversationKind = ConversationKind.PRIVATE


class _Added(msgspec.Struct):
    conversation: _Opened


class _Back(msgspec.Struct):
    conversation_id: UUID
    head_seq: int | None = None


class _Said(msgspec.Struct):
    sender_id: UUID


_decode_back = msgspec.json.Decoder(_Back).decode
_decode_said = msgspec.json.Decoder(_Said).decode
_decode_opened = msgspec.json.Decoder(_Opened).decode
_decode_added = msgspec.json.Decoder(_Added).decode
_decode_member = msgspec.json.Decoder(MemberMoved).decode
_decode_removed = msgspec.json.Decoder(ParticipantRemoved).decode
_decode_revoked = msgspec.json.Decoder(SessionRevoked).decode


def register_effects(services: Services) -> None:
    """Let people's sockets follow what happens to them, and memory what happens to text."""
    _follow_rooms(services)
    _follow_sessions(services)
    _follow_text(services)
    _follow_people(services)


def _follow_rooms(services: Services) -> None:
    """Into rooms, and out of them."""

    def join(event: Event, opened: _Opened) -> None:
        for socket in services.delivery.sockets_of(event.room.id):
            services.joining.join_later(socket, room_of(opened.kind, opened.conversation_id), opened.head_seq)

    def created(event: Event) -> None:
        join(event, _decode_opened(event.payload))

    def added(event: Event) -> None:
        if event.room.kind == "user":
            join(event, _decode_added(event.payload).conversation)

    def mine(event: Event) -> None:
        back = _decode_back(event.payload)
        if back.head_seq is not None:
            join(event, _Opened(back.conversation_id, back.head_seq))

    def removed(event: Event) -> UUID | None:
        # Of the two copies the one in the conversation counts: nothing behind it is delivered before it.
        return _decode_removed(event.payload).user_id if event.room.kind == "conversation" else None

    def left(event: Event) -> UUID | None:
        # So too where a thread's log has it; where there is a crowd, the copy in their own room shows them out alone.
        return _decode_member(event.payload).user_id if event.room.kind == "thread" else None

    services.delivery.on(conversation_created.name, created)
    services.delivery.on(participant_added.name, added)
    services.delivery.on(conversation_mine.name, mine)
    services.delivery.on(participant_removed.name, lambda event: _shown_out(services, event))
    services.delivery.on_end(participant_removed.name, removed)
    services.delivery.on(member_left.name, lambda event: _shown_out(services, event))
    services.delivery.on_end(member_left.name, left)
    services.delivery.on_close(thread_deleted.name)


def _shown_out(services: Services, event: Event) -> None:
    """Let nothing of a conversation or thread follow the copy in one's own room, whatever the bus has lost.

    And have it looked at who may still see that the person is there.
    """
    if event.name == member_left.name:
        left = _decode_member(event.payload)
        user_id, room = left.user_id, thread_room(left.thread_id)
    else:
        removed = _decode_removed(event.payload)
        user_id, room = removed.user_id, conversation_room(removed.conversation_id)
    if event.room.kind == "user":
        for socket in services.delivery.sockets_of(event.room.id):
            services.joining.review(socket, room)
            for watched in services.presences.watched_by(socket):
                services.presences.review(watched)
    else:
        services.presences.review(user_id)


def _follow_sessions(services: Services) -> None:
    """Away, with the session."""

    def revoked(event: Event) -> None:
        session_id = _decode_revoked(event.payload).session_id
        for socket in services.delivery.sockets_of(event.room.id):
            if socket.session_id == session_id:
                socket.connection.close()

    services.delivery.on(session_revoked.name, revoked)


def _follow_text(services: Services) -> None:
    """Out of the list of who types, and out of memory where it is deleted."""

    def said(event: Event) -> None:
        if not services.typing.is_quiet:
            services.typing.said(event.room, _decode_said(event.payload).sender_id)

    shown = Merging(services.delivery.show, TYPING_S)

    def typing(room: Room, typists: list[Typist]) -> None:
        changed = encode(TypingChanged(room.id, typists)).decode()
        shown.put(room, ephemeral(room, typing_changed.name, changed))

    services.typing.on_changed = typing
    services.delivery.on(message_created.name, said)
    services.delivery.on(message_deleted.name, lambda event: services.delivery.forget_tail(event.room))
    services.delivery.on_heard(LOG_BLANKED, lambda event: services.delivery.forget_tail(event.room))


def _follow_people(services: Services) -> None:
    """Who comes and goes."""

    def changed(socket: Socket, presence: Presence) -> None:
        event = ephemeral(user_room(socket.user_id), presence_changed.name, encode(presence).decode())
        socket.connection.send(event.packet, droppable=True)

    services.presences.on_changed = changed
