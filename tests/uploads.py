"""Files that people attach, and the way they take: declared, put, completed, sent."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from yarl import URL

from server.commands.links import Links, Purpose
from tests.people import PATIENCE_S, SECRET, Instance, Person

BYTES = 300_000  # of an attachment at most: more than a frame, and more than one chunk
ORIGIN = "https://chat.example"
NewServer = Callable[..., Awaitable[Instance]]

PNG = b"\x89PNG\r\n\x1a\n" + bytes.fromhex(
    "0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)
HTML = b"<!doctype html><script>alert(document.domain)</script>"


class Fetched(NamedTuple):
    """What HTTP answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def exactly(parley: Instance, url: str) -> URL:
    """The address of a path, which is sent as it is written."""
    return URL(parley.url + url, encoded=True)


async def fetch(parley: Instance, url: str, method: str = "GET", data: Any = None, **headers: str) -> Fetched:
    """An answer as it comes; in the headers' names _ stands for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with parley.http.request(method, exactly(parley, url), data=data, headers=named) as response:
        return Fetched(response.status, response.headers, await response.read())


async def refused(parley: Instance, url: str, method: str = "GET", data: Any = None) -> tuple[int, dict[str, Any]]:
    """The status and the error of an answer in the contract's form."""
    async with parley.http.request(method, exactly(parley, url), data=data) as response:
        assert response.content_type == "application/json", await response.read()
        answer = await response.json()
        assert answer.keys() == {"ok", "error"}
        assert answer["ok"] is False
        return response.status, answer["error"]


async def put(parley: Instance, url: str, data: bytes) -> None:
    """Upload, and be let in."""
    answer = await fetch(parley, url, "PUT", data)
    assert (answer.status, answer.body) == (204, b"")


async def declare(person: Person, data: bytes, **fields: Any) -> Any:
    """The answer to attachment:create for these bytes; `fields` say otherwise."""
    told = {
        "name": "moon.png",
        "content_type": "image/png",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "client_id": uuid4().hex,
    }
    return await person.post("attachment:create", **{**told, **fields})


async def attach(person: Person, data: bytes = PNG, **fields: Any) -> str:
    """A complete attachment; its id."""
    declared = await declare(person, data, **fields)
    await put(person.instance, declared["upload_url"], data)
    attachment = await person.post("attachment:complete", attachment_id=declared["attachment"]["attachment_id"])
    attachment_id: str = attachment["attachment_id"]
    return attachment_id


async def link(person: Person, attachment_id: str) -> str:
    """Where an attachment can be downloaded."""
    url: str = (await person.post("attachment:get", attachment_id=attachment_id))["url"]
    return url


async def send(person: Person, conversation_id: str, *attachment_ids: str, text: str | None = "look") -> str:
    """A message of the person's with these attachments; its id."""
    sent = await person.post(
        "message:send",
        conversation_id=conversation_id,
        client_id=uuid4().hex,
        text=text,
        attachment_ids=list(attachment_ids),
    )
    message_id: str = sent["message_id"]
    return message_id


def files(folder: Path) -> list[Path]:
    """Every file in a folder, however deep."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def until(seen: Any, what: str) -> None:
    """Poll until `seen` answers something true."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not seen():
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(what) from None


class Put:
    """A PUT that a test sends piece by piece."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def status(self) -> int:
        """The status of the next answer; its headers are read past."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1])


@asynccontextmanager
async def putting(parley: Instance, url: str, length: int, **headers: str) -> AsyncIterator[Put]:
    """A PUT whose head has been sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(parley.url.rpartition(":")[2]))
    lines = [f"PUT {url} HTTP/1.1", "Host: parley", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    one = Put(reader, writer)
    await one.send("\r\n".join([*lines, "", ""]).encode())
    yield one
    writer.close()


def on_folder(folder: Path, new_instance: NewServer) -> NewServer:
    """What starts instances whose files lie in a folder, small ones, with a page of another origin let in."""

    async def start(**environ: str) -> Instance:
        return await new_instance(
            PARLEY_ATTACHMENTS_FOLDER=str(folder),
            PARLEY_ATTACHMENT_BYTES=str(BYTES),
            PARLEY_ORIGINS=ORIGIN,
            **environ,
        )

    return start


async def row(parley: Instance, attachment_id: str) -> Any:
    async with parley.parley.database.connection() as db:
        return await db.fetchrow("select * from message_attachments where attachment_id = $1", attachment_id)


async def execute(parley: Instance, statement: str, *values: object) -> None:
    async with parley.parley.database.connection() as db:
        await db.execute(statement, *values)


def signed(purpose: Purpose, attachment_id: str, by: Person, secret: str = SECRET, ttl_s: int = 60) -> str:
    """A link that a server with this secret would have made for somebody."""
    return Links((secret,), upload_ttl_s=ttl_s, download_ttl_s=ttl_s).sign(purpose, attachment_id, by.user_id).url
