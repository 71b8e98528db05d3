"""The store of attachments: whole files or none, for the server's user alone."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from server.adapters import attachments
from server.adapters.attachments import FolderStore, delete_files
from tests.uploads import files

DAY_S = 86_400.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "attachments"


@pytest.fixture
def store(folder: Path) -> FolderStore:
    return FolderStore(folder)


async def pieces(*chunks: bytes, error: BaseException | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if error is not None:
        raise error


async def kept(store: FolderStore, data: bytes = b"data") -> UUID:
    file_id = uuid4()
    await store.write(file_id, pieces(data))
    return file_id


async def read(store: FolderStore, file_id: UUID, start: int = 0, length: int = 2**40) -> bytes:
    return b"".join([chunk async for chunk in await store.read(file_id, start, length)])


async def old(store: FolderStore, older_s: float = DAY_S) -> set[UUID]:
    return {file_id async for batch in store.list_old(older_s) for file_id in batch}


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


async def test_what_is_written_is_read_and_measured(store: FolderStore) -> None:
    data, file_id = os.urandom(3_000), uuid4()
    written = await store.write(file_id, pieces(data[:100], b"", data[100:700], data[700:]))
    assert written == (3_000, hashlib.sha256(data).digest(), data[: attachments.HEAD_BYTES])
    assert await read(store, file_id) == data


async def test_any_part_of_a_file_can_be_read(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachments, "CHUNK_BYTES", 7)
    data = bytes(range(100))
    file_id = await kept(store, data)
    for start, length in ((0, 100), (0, 1), (99, 1), (3, 7), (3, 50), (50, 100)):
        assert await read(store, file_id, start, length) == data[start : start + length]


async def test_files_are_for_the_servers_user_alone_and_two_levels_deep(store: FolderStore, folder: Path) -> None:
    umask = os.umask(0)
    try:
        file_id = await kept(store)
    finally:
        os.umask(umask)
    path = folder / file_id.hex[:2] / file_id.hex[2:4] / file_id.hex
    assert files(folder) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for made in (folder.parent, folder, path.parent.parent, path.parent):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


async def test_a_file_has_its_name_only_when_it_is_whole_and_synced(
    store: FolderStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id, seen = uuid4(), []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        seen.append((path.name, [file.name for file in files(folder)]))
        fsync(descriptor)

    await kept(store)  # makes the folders
    name = file_id.hex
    (folder / name[:2] / name[2:4]).mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(os, "fsync", watched)
    before = [file.name for file in files(folder)]
    await store.write(file_id, pieces(b"data"))
    assert [(what, set(there) - set(before)) for what, there in seen] == [
        (f"{name}.part", {f"{name}.part"}),
        (name[2:4], {name}),
    ]


@pytest.mark.parametrize("error", [ConnectionResetError(), ValueError(), asyncio.CancelledError()])
async def test_of_what_breaks_off_nothing_is_kept(store: FolderStore, folder: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        await store.write(uuid4(), pieces(b"one", b"two", error=error))
    assert files(folder) == []


async def test_of_a_write_that_is_cancelled_nothing_is_kept(store: FolderStore, folder: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"one"
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(store.write(uuid4(), endless()))
    await begun.wait()
    assert len(files(folder)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(folder) == []


async def test_on_a_full_disk_nothing_is_kept(
    store: FolderStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    await kept(store)
    there = files(folder)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        await kept(store)
    monkeypatch.undo()
    assert files(folder) == there


async def test_a_file_that_is_not_there_says_so_before_its_first_byte(store: FolderStore) -> None:
    with pytest.raises(FileNotFoundError):
        await store.read(uuid4(), 0, 1)


async def test_what_is_deleted_is_gone_and_may_be_deleted_again(store: FolderStore, folder: Path) -> None:
    gone, there = await kept(store), await kept(store)
    for _ in range(2):
        await store.delete(gone)
    assert [path.name for path in files(folder)] == [there.hex]


async def test_a_reader_gets_all_of_a_file_that_is_deleted_meanwhile(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachments, "CHUNK_BYTES", 2)
    file_id = await kept(store, b"abcdef")
    chunks = await store.read(file_id, 0, 6)
    first = await anext(chunks)
    await store.delete(file_id)
    assert first + b"".join([chunk async for chunk in chunks]) == b"abcdef"


async def test_old_files_and_what_a_crash_left_of_them_are_listed(store: FolderStore, folder: Path) -> None:
    assert await old(store) == set()  # and no folder is made for that
    assert not folder.exists()
    young, aged, crashed = await kept(store), await kept(store), await kept(store)
    (draft,) = (path for path in files(folder) if path.name == crashed.hex)
    draft = draft.rename(f"{draft}.part")
    (folder / "notes.txt").write_text("not ours")
    (draft.parent / "notes.txt").write_text("not ours")
    for path in files(folder):
        if path.name != young.hex:
            age(path, DAY_S + 5)
    assert await old(store) == {aged, crashed}
    assert await old(store, DAY_S + 60) == set()
    assert await delete_files(store, [aged, crashed]) == 2
    assert {path.name for path in files(folder)} == {young.hex, "notes.txt"}


async def test_a_file_that_cannot_be_deleted_does_not_keep_the_others(
    store: FolderStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = [await kept(store) for _ in range(3)]
    unlink = Path.unlink

    def stuck(path: Path, missing_ok: bool = False) -> None:
        if path.name == two.hex:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", stuck)
    assert await delete_files(store, [one, two, three]) == 2
    assert [path.name for path in files(folder)] == [two.hex]
