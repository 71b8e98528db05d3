"""Where the bytes of attachments are kept: an interface, and a folder that fills it.

A file is named by an id that is used once, and it never changes: a second upload of an attachment is another file.
So whoever reads one gets what was judged, whatever is being written, and an object store (S3) can fill the interface.
"""

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol
from uuid import UUID

import structlog

from rules.attachments import HEAD_BYTES

CHUNK_BYTES = 256 * 1024  # what goes to or comes from a thread at once

logger = structlog.get_logger("parley.attachments")


class Written(NamedTuple):
    """What was written: how many bytes, their SHA-256, and the first of them."""

    size: int
    sha256: bytes
    head: bytes


class AttachmentStore(Protocol):
    """A store of files. Its failures are OSErrors."""

    async def write(self, file_id: UUID, chunks: AsyncIterator[bytes]) -> Written:
        """Keep what the chunks hold, for good once this returns. Where they raise, nothing is kept."""

    async def read(self, file_id: UUID, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """Open a file, then answer with those of its bytes. Raises FileNotFoundError before the first of them."""

    async def delete(self, file_id: UUID) -> None:
        """Delete a file, and what is left of its writing; one that is not there is deleted already."""

    def list_old(self, older_s: float) -> AsyncIterator[list[UUID]]:
        """The files, unfinished ones too, that were written longer ago, in batches."""


async def delete_files(store: AttachmentStore, file_ids: Iterable[UUID]) -> int:
    """Delete files; how many of them could be. The others are logged, and left to the sweep."""
    deleted = 0
    for file_id in file_ids:
        try:
            await store.delete(file_id)
            deleted += 1
        except OSError as error:
            logger.warning("file_not_deleted", file_id=str(file_id), error=str(error))
    return deleted


class FolderStore:
    """Files in a folder, two levels deep; made with the first of them, for this process's user alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    async def write(self, file_id: UUID, chunks: AsyncIterator[bytes]) -> Written:
        """Written under another name, synced, then renamed."""
        draft = await asyncio.to_thread(_Draft, self._path(file_id))
        try:
            async for chunk in chunks:
                await asyncio.to_thread(draft.add, chunk)
            return await asyncio.to_thread(draft.keep)
        finally:
            # Also when this is cancelled: what is not kept is not left.
            await asyncio.shield(asyncio.to_thread(draft.close))

    async def read(self, file_id: UUID, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """Read in chunks."""
        file = await asyncio.to_thread(_open_at, self._path(file_id), start)
        return _chunks(file, length)

    async def delete(self, file_id: UUID) -> None:
        """Delete the file and its draft."""
        await asyncio.to_thread(_delete, self._path(file_id))

    async def list_old(self, older_s: float) -> AsyncIterator[list[UUID]]:
        """A batch for each folder of the first level."""
        before = time.time() - older_s
        for folder in await asyncio.to_thread(_folders, self._folder):
            if old := await asyncio.to_thread(_old_files, folder, before):
                yield old

    def _path(self, file_id: UUID) -> Path:
        name = file_id.hex
        return self._folder / name[:2] / name[2:4] / name


class _Draft:
    """A file that is being written, under a name beside its own. Its methods belong into a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = _draft_of(path)
        _make(path.parent)
        descriptor = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "wb")
        self._hash = hashlib.sha256()
        self._head = b""
        self._size = 0

    def add(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self._head += chunk[: HEAD_BYTES - len(self._head)]
        self._size += len(chunk)

    def keep(self) -> Written:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._draft.rename(self._path)
        _sync(self._path.parent)
        return Written(self._size, self._hash.digest(), self._head)

    def close(self) -> None:
        """Close the file; delete it unless it has been kept."""
        with contextlib.suppress(OSError):  # a full disk shows again when a buffer is flushed
            self._file.close()
        self._draft.unlink(missing_ok=True)


def _draft_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _make(folder: Path) -> None:
    """Make a folder and those above it, where they are missing, so that a crash takes none of them back."""
    if not folder.is_dir():
        _make(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o700)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_at(path: Path, start: int) -> BinaryIO:
    file = path.open("rb")
    file.seek(start)
    return file


async def _chunks(file: BinaryIO, length: int) -> AsyncGenerator[bytes, None]:
    try:
        while length and (chunk := await asyncio.to_thread(file.read, min(length, CHUNK_BYTES))):
            length -= len(chunk)
            yield chunk
    finally:
        file.close()


def _delete(path: Path) -> None:
    path.unlink(missing_ok=True)
    _draft_of(path).unlink(missing_ok=True)


def _folders(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _old_files(folder: Path, before: float) -> list[UUID]:
    """The ids of those files below a folder that were written before a time."""
    old = []
    for path in folder.glob("*/*"):
        with contextlib.suppress(ValueError, FileNotFoundError):  # not a file of ours, or gone while we look
            file_id = UUID(path.name.removesuffix(".part"))
            if path.stat().st_mtime < before:
                old.append(file_id)
    return old
