"""Attachments as they are stored; their bytes are elsewhere, in files named by `file_id`."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from storage._db import Connection, load


class Attachment(msgspec.Struct, frozen=True):
    """An attachment as its message shows it; `size` in bytes, `sha256` in hex, `url` stable and without a signature."""

    attachment_id: UUID
    name: str
    content_type: str
    size: int
    sha256: str
    url: str


class OwnAttachment(Attachment, frozen=True):
    """An attachment as its owner finds it again."""

    is_complete: bool

    def attachment(self) -> Attachment:
        """As everybody sees it."""
        return _bare(self)


class Sendable(Attachment, frozen=True):
    """A complete attachment that is in no message yet, and whose it is."""

    owner_id: UUID

    def attachment(self) -> Attachment:
        """As everybody sees it."""
        return _bare(self)


def _bare(row: Attachment) -> Attachment:
    return Attachment(**{name: getattr(row, name) for name in Attachment.__struct_fields__})


class Declared(msgspec.Struct, frozen=True):
    """What an upload has to be: so many bytes, not complete yet, and of somebody who is active."""

    size: int
    is_complete: bool
    is_wanted: bool


class Recorded(msgspec.Struct, frozen=True):
    """A recorded upload; `replaced_id` is the file of the one before, which is nobody's now."""

    replaced_id: UUID | None


class Upload(msgspec.Struct, frozen=True):
    """What was declared, and what was uploaded last, None where nothing was."""

    content_type: str
    size: int
    sha256: bytes
    is_complete: bool
    file_id: UUID | None
    file_sha256: bytes | None
    file_head: bytes | None


class File(msgspec.Struct, frozen=True):
    """A complete attachment, as it is served."""

    file_id: UUID
    name: str
    content_type: str
    size: int
    sha256: str


sql = load("attachments", Attachment, OwnAttachment, Sendable, Declared, Recorded, Upload, File)


async def create_attachment(
    db: Connection, attachment_id: UUID, owner_id: UUID, *, name: str, content_type: str, size: int, sha256: bytes
) -> None:
    """Remember what somebody is going to upload."""
    await sql.create_attachment(
        db,
        attachment_id=attachment_id,
        owner_id=owner_id,
        name=name,
        content_type=content_type,
        size=size,
        sha256=sha256,
    )


async def sum_unsent(db: Connection, owner_id: UUID) -> int:
    """The bytes of what a person has declared and sent with no message."""
    size: int = await sql.sum_unsent(db, owner_id=owner_id)
    return size


async def find_own(db: Connection, attachment_id: UUID, owner_id: UUID) -> OwnAttachment | None:
    """An attachment of that person's, or None."""
    found: OwnAttachment | None = await sql.find_own(db, attachment_id=attachment_id, owner_id=owner_id)
    return found


async def find_declared(db: Connection, attachment_id: UUID) -> Declared | None:
    """What an upload has to be, or None where there is no such attachment."""
    found: Declared | None = await sql.find_declared(db, attachment_id=attachment_id)
    return found


async def record_upload(
    db: Connection, attachment_id: UUID, file_id: UUID, *, sha256: bytes, head: bytes
) -> Recorded | None:
    """Let a file be what was uploaded last; None where the attachment is complete by now, or gone."""
    recorded: Recorded | None = await sql.record_upload(
        db, attachment_id=attachment_id, file_id=file_id, file_sha256=sha256, file_head=head
    )
    return recorded


async def lock_upload(db: Connection, attachment_id: UUID, owner_id: UUID) -> Upload | None:
    """What was declared and uploaded, its row locked until the transaction ends; None where it is not that person's."""
    found: Upload | None = await sql.lock_upload(db, attachment_id=attachment_id, owner_id=owner_id)
    return found


async def complete_attachment(db: Connection, attachment_id: UUID) -> None:
    """Mark an upload as judged: from here on it does not change. One that is complete stays as it is."""
    await sql.complete_attachment(db, attachment_id=attachment_id)


async def forget_upload(db: Connection, attachment_id: UUID) -> None:
    """Take back what was uploaded; its file is nobody's now."""
    await sql.forget_upload(db, attachment_id=attachment_id)


async def find_visible(db: Connection, attachment_id: UUID, user_id: UUID) -> bool | None:
    """Whether an attachment is complete; None where the person may not see it, or there is none."""
    is_complete: bool | None = await sql.find_visible(db, attachment_id=attachment_id, user_id=user_id)
    return is_complete


async def find_file(db: Connection, attachment_id: UUID) -> File | None:
    """A complete attachment's file, or None."""
    found: File | None = await sql.find_file(db, attachment_id=attachment_id)
    return found


async def list_sendable(db: Connection, asked: Sequence[tuple[UUID, UUID]]) -> dict[tuple[UUID, UUID], Attachment]:
    """Of these pairs of a person and an attachment those that are the person's, complete, and in no message yet.

    Nothing is locked: whoever stores the message judges again.
    """
    rows = sql.list_sendable(db, owner_ids=[pair[0] for pair in asked], attachment_ids=[pair[1] for pair in asked])
    return {(row.owner_id, row.attachment_id): row.attachment() async for row in rows}


async def sweep_unsent(db: Connection, hours: int, batch: int) -> list[UUID | None]:
    """Delete at most `batch` attachments that are older and in no message; the file of each, None where it has none."""
    return [row["file_id"] async for row in sql.sweep_unsent(db, hours=hours, batch=batch)]


async def list_known_files(db: Connection, file_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the files that an attachment has."""
    return {row["file_id"] async for row in sql.list_known_files(db, file_ids=file_ids)}
