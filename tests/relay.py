"""A way to PostgreSQL that can be taken away and given back, as a network or a restart does it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from urllib.parse import parse_qs, urlencode


class Relay:
    """A socket in a folder that passes on what is said to the server of a dsn (of the embedded form).

    `dsn` leads through it. While it is closed nothing listens, and whoever was connected is cut off.
    """

    def __init__(self, dsn: str, folder: Path) -> None:
        before, _, options = dsn.partition("?")
        asked = parse_qs(options)
        name = f".s.PGSQL.{asked.get('port', ['5432'])[0]}"
        self._target = Path(asked["host"][0]) / name
        self._path = folder / name
        self.dsn = f"{before}?{urlencode({**asked, 'host': [str(folder)]}, doseq=True)}"
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.flows = asyncio.Event()
        """Unset, nothing passes, and nobody is told: as with a server that hangs."""
        self.flows.set()

    async def open(self) -> None:
        """Listen; no effect where it does."""
        if self._server is None:
            self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def close(self) -> None:
        """Listen no more, and cut off whoever is connected."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, back}
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        self._writers -= {writer, back}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self.flows.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
