"""What a conversation may be."""

from enum import StrEnum


class ConversationKind(StrEnum):
    PRIVATE = "private"
    GROUP = "group"
    AI = "ai"
    THREAD = "thread"
    LIVE = "live"
