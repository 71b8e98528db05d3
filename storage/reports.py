"""Reports as they are stored, as their reporter sees them, and as administrators do."""

from typing import Any
from uuid import UUID

import msgspec

from rules.reports import ReportStatus, SubjectKind
from storage._db import Connection, Time, load


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

    def filed(self) -> FiledReport:
        """The report as administrators see it."""
        return FiledReport(reporter_id=self.reporter_id, **_shown(self))

    def own(self) -> Report:
        """The report as its reporter sees it."""
        return Report(**_shown(self))


def _shown(row: ReportRow) -> dict[str, Any]:
    shown = {name: getattr(row, name) for name in Report.__struct_fields__ if name != "subject"}
    return {**shown, "subject": Subject(row.subject_kind, row.subject_id)}


sql = load("reports", ReportRow)


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
) -> list[FiledReport]:
    """The newest reports, or those behind one of them; of one status, or of all."""
    return [row.filed() async for row in sql.list_reports(db, status=status, before=before, most=most)]


async def resolve_report(db: Connection, report_id: UUID, status: ReportStatus, resolution: str) -> FiledReport:
    """Say what has become of a report that is locked; the report as it is now."""
    row: ReportRow = await sql.resolve_report(db, report_id=report_id, status=status, resolution=resolution)
    return row.filed()
