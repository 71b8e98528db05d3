"""What a message may be."""

from enum import StrEnum


class MessageType(StrEnum):
    TEXT = "text"
    IMAGE = "image"
    OFFER = "offer"
    SYSTEM = "system"
    AI = "ai"
