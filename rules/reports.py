"""What may be reported, and what becomes of a report."""

from enum import StrEnum


class SubjectKind(StrEnum):
    USER = "user"
    MESSAGE = "message"
    CONVERSATION = "conversation"
    LISTING = "listing"
    FAQ = "faq"


class ReportStatus(StrEnum):
    OPEN = "open"
    RESOLVED = "resolved"
    DISMISSED = "dismissed"
