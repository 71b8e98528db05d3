"""A disk that is full indeed: a small file system of its own, for an account that needs no rights to have it.

It is mounted in a namespace of a process that holds it, and is gone with that process, whatever becomes of us. Others
find it below that process' own root, which /proc shows them. A kernel may refuse all this; then there is no such disk.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from pathlib import Path

from server.embedded_files import Account

SIZE = "64m"
# The mount is the holder's own; `files` is the user's part, the ballast stands beside it.
HOLDER = """
mount -t tmpfs -o "size=$2,mode=0700" tmpfs "$1" && mkdir -m 0700 "$1/files" && echo there || exit 1
while read -r word; do
    case $word in
        fill) cat /dev/zero >"$1/ballast" 2>/dev/null ;;
        free) rm -f "$1/ballast" ;;
    esac
    echo "$word"
done
"""


class SmallDisk:
    """A file system of 64 MB that can be filled up and made free again."""

    def __init__(self, holder: subprocess.Popen[bytes], folder: Path) -> None:
        self._holder = holder
        self._folder = folder

    @classmethod
    async def mounted(cls, account: Account, folder: Path) -> SmallDisk | None:
        """Make one for an account, in a folder that is made for it; None where the kernel does not let us."""
        folder.mkdir(mode=0o700)
        account.owns(folder)
        disk = cls(await asyncio.to_thread(_held, account, folder), folder)
        if await disk._heard() != "there":
            await disk.gone()
            return None
        return disk

    @property
    def files(self) -> Path:
        """Where its files are, for its account."""
        return Path("/proc", str(self._holder.pid), "root", *self._folder.parts[1:], "files")

    async def fill(self) -> None:
        """Leave no room for another page."""
        await self._tell("fill")

    async def free(self) -> None:
        """Make room."""
        await self._tell("free")

    async def gone(self) -> None:
        """Let it go, with all that is on it."""
        await asyncio.to_thread(self._holder.communicate)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _tell(self, word: str) -> None:
        assert self._holder.stdin is not None
        self._holder.stdin.write(f"{word}\n".encode())
        self._holder.stdin.flush()
        assert await self._heard() == word

    async def _heard(self) -> str:
        assert self._holder.stdout is not None
        return (await asyncio.to_thread(self._holder.stdout.readline)).decode().strip()


def _held(account: Account, folder: Path) -> subprocess.Popen[bytes]:
    command = ["unshare", "--user", "--map-root-user", "--mount", "/bin/sh", "-c", HOLDER, "-", str(folder), SIZE]
    identity = account.identity(signal.SIGKILL)
    del identity["preexec_fn"]  # this thread ends at once; the holder ends with its input
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **identity
    )
