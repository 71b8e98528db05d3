"""Reports: filed by anybody on what they see, looked at and resolved by administrators."""

from typing import Annotated
from uuid import UUID

import msgspec
import structlog

from handlers.permissions import admin
from rules.reports import ReportStatus
from rules.users import Scope
from server.commands.context import Context
from server.commands.pages import within
from server.commands.registry import ClientId, Limit, Payload, command, signed_in
from server.errors import Conflict, NotFound
from storage import reports
from storage.reports import FiledReport, ListedReport, Report, Subject

LIST_PAGE = 100

Words = Annotated[str, msgspec.Meta(min_length=1, max_length=2_000)]

logger = structlog.get_logger("parley.reports")


class FileReport(Payload, frozen=True):
    subject: Subject
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    client_id: ClientId
    text: Words | None = None


async def as_filed(ctx: Context, report_id: UUID) -> Report:
    """One's own report as it is now. Raises `NotFound`."""
    row = await reports.get_report(ctx.db, report_id)
    if row is None or row.reporter_id != ctx.user.user_id:
        raise NotFound
    return row.own()


@command("report:file", allow=signed_in, limit=Limit.WRITES, again=as_filed)
async def file(ctx: Context, p: FileReport) -> Report:
    """Report a person, or what one sees, to the administrators.

    That is a message, a conversation, a listing, or a question, answer or reply about one (`faq`).
    """
    if not await reports.create_report(ctx.db, ctx.new_id, ctx.user.user_id, p.subject, reason=p.reason, text=p.text):
        raise NotFound
    return await as_filed(ctx, ctx.new_id)


class ListReports(Payload, frozen=True):
    status: ReportStatus | None = None
    before: UUID | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIST_PAGE)] = 50


class Reports(msgspec.Struct, frozen=True):
    """A page of reports; `next` is the `before` of the page behind it."""

    reports: list[ListedReport]
    next: UUID | None


@command("report:list", allow=admin, limit=Limit.READS, reads=True)
async def list_(ctx: Context, p: ListReports) -> Reports:
    """List what has been reported, the newest first, with what it is about as that is now."""
    found = await reports.list_reports(ctx.db, p.status, p.before, p.limit + 1)
    page = within(found[: p.limit])
    return Reports(page, page[-1].report_id if len(page) < len(found) else None)


class ResolveReport(Payload, frozen=True):
    report_id: UUID
    resolution: Words
    dismiss: bool = False


@command("report:resolve", allow=admin, limit=Limit.WRITES, scope=Scope.FULL, raises=(Conflict,))
async def resolve(ctx: Context, p: ResolveReport) -> FiledReport:
    """Say what has been done about a report, or why nothing was. It is said once: another word is a conflict."""
    status = ReportStatus.DISMISSED if p.dismiss else ReportStatus.RESOLVED
    report = await reports.lock_report(ctx.db, p.report_id)
    if report is None:
        raise NotFound
    if report.status == ReportStatus.OPEN:
        logger.info("report_closed", report_id=str(p.report_id), status=status, by=str(ctx.user.user_id))
        return await reports.resolve_report(ctx.db, p.report_id, status, p.resolution, ctx.user.user_id)
    if (report.status, report.resolution) != (status, p.resolution):
        raise Conflict("version", "This report has been closed with other words: load it again.", report)
    return report
