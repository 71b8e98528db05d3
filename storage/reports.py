"""Reports as they are stored, as their reporter sees them, and as administrators do."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from rules.conversations import ConversationKind
from rules.reports import ReportStatus, SubjectKind
from storage import listings, users
from storage._db import Connection, Time, load
from storage.faqs import Faq
from storage.listings import SharedListing
from storage.messages import Message
from storage.users import PublicUser


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a report is about."""

    kind: SubjectKind
    id: UUID


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A report as its reporter sees it."""

    report_id: UUID
    subject: Subject
    reason: str
    text: str | None
    status: ReportStatus
    resolution: str | None
    at: Time
    resolved_at: Time | None


class FiledReport(Report, frozen=True, kw_only=True):
    """A report as administrators see it."""

    reporter_id: UUID
    resolved_by: UUID | None


class ReportedConversation(msgspec.Struct, frozen=True):
    """What administrators see of a conversation that has been reported."""

    conversation_id: UUID
    kind: ConversationKind
    title: str | None


class ListedReport(FiledReport, frozen=True, kw_only=True):
    """A report with what it is about as that is now, under its kind; null where that is gone."""

    message: Message | None
    conversation: ReportedConversation | None
    user: PublicUser | None
    listing: SharedListing | None
    faq: Faq | None


class ReportRow(msgspec.Struct, frozen=True):
    report_id: UUID
    reporter_id: UUID
    subject_kind: SubjectKind
    subject_id: UUID
    reason: str
    text: str | None
    status: ReportStatus
    resolution: str | None
    at: Time
    resolved_at: Time | None
    resolved_by: UUID | None

    def filed(self) -> FiledReport:
        """The report as administrators see it."""
        return FiledReport(reporter_id=self.reporter_id, resolved_by=self.resolved_by, **_shown(self))

    def own(self) -> Report:
        """The report as its reporter sees it."""
        return Report(**_shown(self))


def _shown(row: ReportRow) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in Report.__struct_fields__ if name != "subject"}
    return {**shown, "subject": Subject(row.subject_kind, row.subject_id)}


sql = load("reports", ReportRow, Message, ReportedConversation, Faq)


async def create_report(
    db: Connection, report_id: UUID, reporter_id: UUID, subject: Subject, *, reason: str, text: str | None
) -> bool:
    """File a report; False where the reporter can't see what it is about."""
    made = await sql.create_report(
        db,
        report_id=report_id,
        reporter_id=reporter_id,
        subject_kind=subject.kind,
        subject_id=subject.id,
        reason=reason,
        text=text,
    )
    return made is not None


async def get_report(db: Connection, report_id: UUID) -> ReportRow | None:
    """The report, or None."""
    row: ReportRow | None = await sql.get_report(db, report_id=report_id)
    return row


async def lock_report(db: Connection, report_id: UUID) -> FiledReport | None:
    """The report, locked until the transaction ends, or None."""
    row: ReportRow | None = await sql.lock_report(db, report_id=report_id)
    return None if row is None else row.filed()


async def list_reports(
    db: Connection, status: ReportStatus | None, before: UUID | None, most: int
) -> list[ListedReport]:
    """The newest reports, or those behind one of them, with what they are about; of one status, or of all."""
    rows: list[ReportRow] = [row async for row in sql.list_reports(db, status=status, before=before, most=most)]
    messages = {
        message.message_id: message
        async for message in sql.list_messages(db, message_ids=_subjects(rows, SubjectKind.MESSAGE))
    }
    conversations = {
        conversation.conversation_id: conversation
        async for conversation in sql.list_conversations(db, conversation_ids=_subjects(rows, SubjectKind.CONVERSATION))
    }
    people = {user.user_id: user for user in await users.list_public(db, _subjects(rows, SubjectKind.USER))}
    wares = {
        listing.listing_id: listing.shared()
        for listing in await listings.list_listings(db, UUID(int=0), _subjects(rows, SubjectKind.LISTING))
    }
    faqs = {faq.faq_id: faq async for faq in sql.list_faqs(db, faq_ids=_subjects(rows, SubjectKind.FAQ))}
    return [
        ListedReport(
            **msgspec.structs.asdict(row.filed()),
            message=messages.get(row.subject_id),
            conversation=conversations.get(row.subject_id),
            user=people.get(row.subject_id),
            listing=wares.get(row.subject_id),
            faq=faqs.get(row.subject_id),
        )
        for row in rows
    ]


def _subjects(rows: Sequence[ReportRow], kind: SubjectKind) -> list[UUID]:
    return list({row.subject_id for row in rows if row.subject_kind == kind})


async def resolve_report(
    db: Connection, report_id: UUID, status: ReportStatus, resolution: str, resolved_by: UUID
) -> FiledReport:
    """Say what has become of a report that is locked; the report as it is now."""
    row: ReportRow = await sql.resolve_report(
        db, report_id=report_id, status=status, resolution=resolution, resolved_by=resolved_by
    )
    return row.filed()
