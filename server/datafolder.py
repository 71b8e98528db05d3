"""The folder of one server's own files (PARLEY_DATA): claimed by one process at a time; holds its secret."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from pathlib import Path
from types import TracebackType

SECRET_FILE = "secret"
LOCK_FILE = "server.lock"
SECRET_BYTES = 32  # what is asked of PARLEY_SECRET too


class DataFolderError(Exception):
    """The data folder cannot be used; the text says what to do about it."""


class DataFolderInUse(DataFolderError):
    """Another process has claimed the data folder."""


class DataFolder:
    """A claimed data folder: nobody else can claim `path` until `release`, or until this process is gone."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock: int | None = lock

    def release(self) -> None:
        """Let the next one have it. Calling it again does nothing."""
        if self._lock is not None:
            os.close(self._lock)  # closing the only descriptor is what ends an flock
            self._lock = None

    def __enter__(self) -> DataFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def claim(data: Path) -> DataFolder:
    """Make the folder where it is missing and claim it; raises `DataFolderInUse` if another process has it.

    An flock, not a pid file: the kernel drops it with the process, so a kill -9 leaves nothing to clean up.
    The pid in the file is for the message alone.
    """
    path = made(data)
    try:
        lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise _foreign(path) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
        os.close(lock)
        who = f"process {holder}" if holder else "a server that is just starting"
        raise DataFolderInUse(
            f"The data folder {path} is in use by {who}. Stop that server first, "
            "or give this one its own folder and port: PARLEY_DATA=.parley-2 PARLEY_PORT=8081"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return DataFolder(path, lock)


def made(data: Path) -> Path:
    """The folder's real path. Made when missing: for its user alone, or by root so that others may pass.

    (PostgreSQL refuses to run as root, so its files are another user's, in a folder inside this one.)
    """
    try:
        data.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            data.mkdir()
            data.chmod(0o711 if os.geteuid() == 0 else 0o700)
        if not data.is_dir():
            raise DataFolderError(f"{data} is not a folder: set PARLEY_DATA to one, or move that file away.")
    except OSError as error:
        raise DataFolderError(
            f"The data folder {data} cannot be made ({error.strerror}): set PARLEY_DATA to one you may write."
        ) from error
    return data.resolve()


def secret(data: Path) -> str:
    """The folder's secret: 64 random characters, made at the first call and kept in a file with mode 0600.

    Raises `DataFolderError` when others may read the file: they could sign in as anybody.
    """
    path = made(data) / SECRET_FILE
    if not path.exists():
        _make_secret(path)
    try:
        with path.open(encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read().strip()
    except PermissionError as error:
        raise _foreign(path.parent) from error
    if mode & 0o077:
        raise DataFolderError(
            f"{path} is open to other users (mode {mode:04o}), who could sign in as anybody with it. "
            f"If none has read it: chmod 600 {path}. If one may have, delete it: a new one is made, "
            "and everybody signs in again."
        )
    if len(text) < SECRET_BYTES:
        raise DataFolderError(f"{path} is damaged. Delete it: a new one is made, and everybody signs in again.")
    return text


def _make_secret(path: Path) -> None:
    """Put a whole file in place, or leave the one that another process put there first."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise _foreign(path.parent) from error
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)  # a link, where a rename would replace the other's
    finally:
        draft.unlink()


def _foreign(path: Path) -> DataFolderError:
    return DataFolderError(
        f"The data folder {path} belongs to another user: run this as them, or set PARLEY_DATA to your own."
    )
