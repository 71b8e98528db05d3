"""What a message may be."""

from enum import StrEnum

from rules.participants import ParticipantRole


class MessageType(StrEnum):
    TEXT = "text"
    IMAGE = "image"
    OFFER = "offer"
    SYSTEM = "system"
    AI = "ai"


def may_delete(actor: ParticipantRole) -> bool:
    """Whether somebody with this role in a group may delete what others have said there."""
    return actor != ParticipantRole.MEMBER
