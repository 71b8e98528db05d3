"""What is said of a listing in public, and to what."""

from enum import StrEnum


class FaqType(StrEnum):
    QUESTION = "question"
    ANSWER = "answer"
    REPLY = "reply"
