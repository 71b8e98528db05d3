"""What somebody at a keyboard may be doing."""

from enum import StrEnum


class TypingState(StrEnum):
    TYPING = "typing"
    RECORDING = "recording"
    STOPPED = "stopped"
