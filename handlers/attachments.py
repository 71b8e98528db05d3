"""Attachments: declared, uploaded beside the commands, completed, and then sent with a message."""

from typing import Annotated
from uuid import UUID

import msgspec

from handlers.permissions import owner_at_the_lock, viewer_of_the_attachment
from rules.attachments import NAME, ContentType, mismatches
from rules.users import UserStatus
from server.commands.context import Context
from server.commands.links import Link, Purpose
from server.commands.registry import ClientId, Limit, Payload, command, signed_in
from server.errors import Invalid, NotFound, TooLarge, Unauthenticated
from storage import attachments, users
from storage.attachments import Attachment, Upload

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=NAME)]
Size = Annotated[int, msgspec.Meta(ge=1)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-Fa-f]{64}\Z")]


class CreateAttachment(Payload, frozen=True):
    name: Name
    content_type: ContentType
    size: Size
    sha256: Sha256
    client_id: ClientId


class Declared(msgspec.Struct, frozen=True):
    """An attachment and where its bytes are to be PUT; upload_url is null once it is complete."""

    attachment: Attachment
    upload_url: str | None


async def as_declared(ctx: Context, attachment_id: UUID) -> Declared:
    """One's own attachment, with an upload_url made now. Raises `NotFound` where it was swept."""
    found = await attachments.find_own(ctx.db, attachment_id, ctx.user.user_id)
    if found is None:
        raise NotFound
    url = None if found.is_complete else ctx.services.links.sign(Purpose.UPLOAD, attachment_id, ctx.user.user_id).url
    return Declared(found.attachment(), url)


@command("attachment:create", allow=signed_in, limit=Limit.WRITES, again=as_declared)
async def create(ctx: Context, p: CreateAttachment) -> Declared:
    """Declare a file. Its bytes go to upload_url by PUT; then attachment:complete, then message:send."""
    most = ctx.services.bounds.attachment_bytes
    if p.size > most:
        raise TooLarge(f"size: an attachment has at most {most} bytes.", most)
    await _fit(ctx, p.size)
    await attachments.create_attachment(
        ctx.db,
        ctx.new_id,
        ctx.user.user_id,
        name=p.name,
        content_type=p.content_type,
        size=p.size,
        sha256=bytes.fromhex(p.sha256),
    )
    return await as_declared(ctx, ctx.new_id)


async def _fit(ctx: Context, size: int) -> None:
    """Hold the owner's row, and count what they have in no message. Raises `TooLarge`, `Unauthenticated`."""
    owner = await users.lock_user(ctx.db, ctx.user.user_id)
    if owner is None or owner.status != UserStatus.ACTIVE:
        raise Unauthenticated("This account is closed.")  # its sockets are about to be
    most = ctx.services.bounds.unsent_bytes
    if await attachments.sum_unsent(ctx.db, ctx.user.user_id) + size > most:
        message = f"size: one's attachments that are in no message have at most {most} bytes: send some, or wait a day."
        raise TooLarge(message, most)


class CompleteAttachment(Payload, frozen=True):
    attachment_id: UUID


@command("attachment:complete", allow=owner_at_the_lock, limit=Limit.WRITES, transaction=False)
async def complete(ctx: Context, p: CompleteAttachment) -> Attachment:
    """Say that the upload is whole. What differs from its declaration is `invalid` and thrown away: PUT it again."""
    async with ctx.transaction():
        upload = await attachments.lock_upload(ctx.db, p.attachment_id, ctx.user.user_id)
        if upload is None:
            raise NotFound
        wrong = _judge(upload)
        if not wrong:
            await attachments.complete_attachment(ctx.db, p.attachment_id)
            return (await as_declared(ctx, p.attachment_id)).attachment
        await attachments.forget_upload(ctx.db, p.attachment_id)
    if upload.file_id is not None:
        await ctx.services.delete_files([upload.file_id])
    raise Invalid(wrong)


def _judge(upload: Upload) -> dict[str, str]:
    """What is wrong with an upload, by field; nothing is with one that has been judged."""
    if upload.is_complete:
        return {}
    return mismatches(
        content_type=upload.content_type,
        sha256=upload.sha256,
        size=upload.size,
        file_sha256=upload.file_sha256,
        file_head=upload.file_head,
    )


class GetAttachment(Payload, frozen=True):
    attachment_id: UUID


@command("attachment:get", allow=viewer_of_the_attachment, limit=Limit.READS, reads=True)
async def get(ctx: Context, p: GetAttachment) -> Link:
    """Sign a link to download an attachment, valid for some minutes; url is relative to the server's address."""
    is_complete = await attachments.find_visible(ctx.db, p.attachment_id, ctx.user.user_id)
    if is_complete is None:
        raise NotFound
    if not is_complete:
        raise Invalid({"attachment_id": "not complete: PUT its bytes to the upload_url, then call attachment:complete"})
    return ctx.services.links.sign(Purpose.DOWNLOAD, p.attachment_id, ctx.user.user_id)
