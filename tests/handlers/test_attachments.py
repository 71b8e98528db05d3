"""Attachments as a phone declares, uploads, completes, sends, downloads and forgets them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
import structlog

from server import attachments as routes
from server import jobs
from server.adapters import attachments as store
from server.commands.links import Links, Purpose
from storage import attachments as table
from storage.messages import NewMessage, append_messages
from tests.people import SECRET, Instance, Person, Refusal
from tests.servers import execute as run_sql
from tests.uploads import (
    HTML,
    PNG,
    attach,
    declare,
    fetch,
    files,
    link,
    put,
    putting,
    refused,
    send,
    until,
)

BYTES = 300_000  # of an attachment at most: more than a frame, and more than one chunk
ORIGIN = "https://chat.example"


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


NewServer = Callable[..., Awaitable[Instance]]


@pytest.fixture
def new_server(new_instance: NewServer, tmp_path: Path) -> NewServer:
    """`await new_server()`: one more instance, on the folder of this test."""

    async def start(**environ: str) -> Instance:
        return await new_instance(
            PARLEY_ATTACHMENTS_FOLDER=str(tmp_path),
            PARLEY_ATTACHMENT_BYTES=str(BYTES),
            PARLEY_ORIGINS=ORIGIN,
            **environ,
        )

    return start


@pytest.fixture
async def parley(new_server: Callable[..., Awaitable[Instance]]) -> Instance:
    return await new_server()


async def row(parley: Instance, attachment_id: str) -> Any:
    async with parley.parley.database.connection() as db:
        return await db.fetchrow("select * from message_attachments where attachment_id = $1", attachment_id)


async def execute(parley: Instance, statement: str, *values: object) -> None:
    async with parley.parley.database.connection() as db:
        await db.execute(statement, *values)


def signed(purpose: Purpose, attachment_id: str, by: Person, secret: str = SECRET, ttl_s: int = 60) -> str:
    """A link that a server with this secret would have made for somebody."""
    return Links((secret,), upload_ttl_s=ttl_s, download_ttl_s=ttl_s).sign(purpose, attachment_id, by.user_id).url


# the way of a file


async def test_what_was_uploaded_is_what_is_downloaded(amina: Person, bilal: Person, their_chat: str) -> None:
    parley, data = amina.instance, PNG + os.urandom(BYTES - len(PNG))
    declared = await declare(amina, data, name="قمر.png")
    attachment = declared["attachment"]
    attachment_id = attachment["attachment_id"]
    assert attachment == {
        "attachment_id": attachment_id,
        "name": "قمر.png",
        "content_type": "image/png",
        "size": BYTES,
        "sha256": hashlib.sha256(data).hexdigest(),
        "url": f"/attachments/{attachment_id}",
    }
    assert UUID(attachment_id).version == 7
    await put(parley, declared["upload_url"], data)
    assert await amina.post("attachment:complete", attachment_id=attachment_id) == attachment
    await send(amina, their_chat, attachment_id)
    before = time.time()
    answer = await bilal.post("attachment:get", attachment_id=attachment_id)
    assert answer.keys() == {"url", "expires_at"}
    assert answer["url"].startswith(attachment["url"] + "?")
    ends = int(answer["url"].partition("expires=")[2].partition("&")[0])
    assert 298 <= ends - before <= 300
    assert answer["expires_at"] == time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(ends))
    status, headers, body = await fetch(parley, answer["url"])
    assert (status, body == data) == (200, True)
    assert headers["Content-Length"] == str(BYTES)


async def test_a_socket_declares_and_completes_too(amina: Person) -> None:
    phone = await amina.connect()
    declared = await phone.call(
        "attachment:create",
        name="moon.png",
        content_type="image/png",
        size=len(PNG),
        sha256=hashlib.sha256(PNG).hexdigest().upper(),
        client_id="moon",
    )
    await put(amina.instance, declared["upload_url"], PNG)
    answer = await phone.call("attachment:complete", attachment_id=declared["attachment"]["attachment_id"])
    assert answer == declared["attachment"]


async def test_the_same_client_id_is_the_same_attachment_with_a_fresh_link(amina: Person) -> None:
    first = await declare(amina, PNG, client_id="key")
    await execute(amina.instance, "update message_attachments set at = at - interval '1 hour'")
    again = await declare(amina, PNG, client_id="key")
    assert again["attachment"] == first["attachment"]
    await put(amina.instance, again["upload_url"], PNG)
    with pytest.raises(Refusal) as other:
        await declare(amina, PNG, client_id="key", name="sun.png")
    assert (other.value.code, other.value.error["reason"]) == ("conflict", "key_reuse")
    await amina.post("attachment:complete", attachment_id=first["attachment"]["attachment_id"])
    complete = await declare(amina, PNG, client_id="key")
    assert complete == {"attachment": first["attachment"], "upload_url": None}


async def test_another_persons_client_id_is_another_attachment(amina: Person, bilal: Person) -> None:
    one, two = await declare(amina, PNG, client_id="key"), await declare(bilal, PNG, client_id="key")
    assert one["attachment"]["attachment_id"] != two["attachment"]["attachment_id"]


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "svg": ({"content_type": "image/svg+xml"}, "invalid", "content_type"),
    "html": ({"content_type": "text/html"}, "invalid", "content_type"),
    "with a parameter": ({"content_type": "image/png; charset=x"}, "invalid", "content_type"),
    "empty": ({"size": 0}, "invalid", "size"),
    "size as text": ({"size": "5"}, "invalid", "size"),
    "short hash": ({"sha256": "ab" * 31}, "invalid", "sha256"),
    "no hash": ({"sha256": "z" * 64}, "invalid", "sha256"),
    "nameless": ({"name": ""}, "invalid", "name"),
    "a name with NUL": ({"name": "a\0b"}, "invalid", "name"),
    "a name with a newline": ({"name": "a\nb"}, "invalid", "name"),
    "a name with a delete": ({"name": "a\x7fb"}, "invalid", "name"),
    "a name with a path": ({"name": "../a"}, "invalid", "name"),
    "a name with a Windows path": ({"name": "a\\b"}, "invalid", "name"),
    "a name that runs backwards": ({"name": "photo\u202egnp.exe"}, "invalid", "name"),
    "a name with an isolate": ({"name": "a\u2066b"}, "invalid", "name"),
    "a name with a mark": ({"name": "a\u200fb"}, "invalid", "name"),
    "a name of dots and blanks": ({"name": " .. .\u00a0"}, "invalid", "name"),
    "unknown field": ({"url": "x"}, "invalid", "url"),
    "long name": ({"name": "n" * 256}, "too_large", "255"),
    "too many bytes": ({"size": BYTES + 1}, "too_large", str(BYTES)),
    "more than a bigint": ({"size": 2**63}, "too_large", str(BYTES)),
}


@pytest.mark.parametrize(("fields", "code", "what"), WRONG.values(), ids=WRONG)
async def test_what_may_not_be_attached_is_refused(amina: Person, fields: dict[str, Any], code: str, what: str) -> None:
    with pytest.raises(Refusal) as refusal:
        await declare(amina, PNG, **fields)
    error = refusal.value.error
    assert error["code"] == code
    assert [*error["fields"]] == [what] if code == "invalid" else error["limit"] == int(what)


async def test_what_is_not_as_declared_is_thrown_away_and_may_be_put_again(amina: Person, tmp_path: Path) -> None:
    parley = amina.instance
    declared = await declare(amina, PNG)
    attachment_id, url = declared["attachment"]["attachment_id"], declared["upload_url"]

    async def wrong() -> set[str]:
        with pytest.raises(Refusal) as refusal:
            await amina.post("attachment:complete", attachment_id=attachment_id)
        assert refusal.value.code == "invalid"
        return set(refusal.value.error["fields"])

    assert await wrong() == {"size"}  # nothing has come yet
    await put(parley, url, b"\x89PNG\r\n\x1a\n" + b"?" * (len(PNG) - 8))
    assert await wrong() == {"sha256"}
    assert files(tmp_path) == []
    assert await wrong() == {"size"}
    await put(parley, url, HTML.ljust(len(PNG)))
    assert await wrong() == {"sha256", "content_type"}
    assert files(tmp_path) == []
    await put(parley, url, PNG)
    assert await amina.post("attachment:complete", attachment_id=attachment_id) == declared["attachment"]
    assert await amina.post("attachment:complete", attachment_id=attachment_id) == declared["attachment"]
    assert (await fetch(parley, await link(amina, attachment_id))).body == PNG


async def test_html_that_is_declared_as_a_picture_is_invalid(amina: Person, tmp_path: Path) -> None:
    declared = await declare(amina, HTML, name="moon.png")
    await put(amina.instance, declared["upload_url"], HTML)
    with pytest.raises(Refusal) as refusal:
        await amina.post("attachment:complete", attachment_id=declared["attachment"]["attachment_id"])
    assert [*refusal.value.error["fields"]] == ["content_type"]
    assert files(tmp_path) == []


async def test_a_second_upload_takes_the_place_of_the_first(amina: Person, tmp_path: Path) -> None:
    declared = await declare(amina, PNG)
    await put(amina.instance, declared["upload_url"], bytes(len(PNG)))
    await put(amina.instance, declared["upload_url"], PNG)
    assert len(files(tmp_path)) == 1
    await amina.post("attachment:complete", attachment_id=declared["attachment"]["attachment_id"])


async def test_what_is_complete_does_not_change(amina: Person, tmp_path: Path) -> None:
    parley = amina.instance
    declared = await declare(amina, PNG)
    attachment_id, url = declared["attachment"]["attachment_id"], declared["upload_url"]
    await put(parley, url, PNG)
    async with putting(parley, url, len(PNG)) as late:
        await late.send(bytes(10))
        await until(lambda: len(files(tmp_path)) == 2, "the second upload has not begun")
        await amina.post("attachment:complete", attachment_id=attachment_id)
        await late.send(bytes(len(PNG) - 10))
        assert await late.status() == 409
    status, error = await refused(parley, url, "PUT", PNG)
    assert (status, error["code"], error["reason"]) == (409, "conflict", "not_pending")
    async with putting(parley, url, len(PNG), Expect="100-continue") as asking:
        assert await asking.status() == 409  # and no 100 before it
    assert len(files(tmp_path)) == 1
    assert (await fetch(parley, await link(amina, attachment_id))).body == PNG


async def test_files_outlive_the_server(
    new_server: Callable[..., Awaitable[Instance]], parley: Instance, amina: Person
) -> None:
    attachment_id = await attach(amina)
    await parley.parley.stop()
    again = await new_server()
    amina.instance = again
    assert (await fetch(again, await link(amina, attachment_id))).body == PNG
    await parley.parley.start()  # for the fixture, which stops it


async def test_two_instances_serve_each_others_files(
    new_server: Callable[..., Awaitable[Instance]], parley: Instance, amina: Person
) -> None:
    other = await new_server()
    declared = await declare(amina, PNG)
    await put(other, declared["upload_url"], PNG)
    await amina.post("attachment:complete", attachment_id=declared["attachment"]["attachment_id"])
    assert (await fetch(other, await link(amina, declared["attachment"]["attachment_id"]))).body == PNG


# who may


async def code_of(person: Person, command: str, attachment_id: str) -> str:
    try:
        await person.post(command, attachment_id=attachment_id)
    except Refusal as refusal:
        return refusal.code
    return "ok"


async def test_an_attachment_is_its_owners_until_it_is_sent(amina: Person, bilal: Person, their_chat: str) -> None:
    attachment_id = await attach(amina)
    assert await code_of(amina, "attachment:get", attachment_id) == "ok"
    assert await code_of(bilal, "attachment:get", attachment_id) == "not_found"
    await send(amina, their_chat, attachment_id)
    carol = await amina.instance.person("carol")
    assert await code_of(bilal, "attachment:get", attachment_id) == "ok"
    assert await code_of(carol, "attachment:get", attachment_id) == "not_found"
    for stranger in (bilal, carol):
        assert await code_of(stranger, "attachment:complete", attachment_id) == "not_found"


async def test_what_does_not_exist_is_not_found(amina: Person) -> None:
    for command in ("attachment:get", "attachment:complete"):
        assert await code_of(amina, command, str(uuid4())) == "not_found"
        assert await code_of(amina, command, "../../etc/passwd") == "invalid"


async def test_what_is_not_complete_cannot_be_downloaded(amina: Person, bilal: Person) -> None:
    attachment_id = (await declare(amina, PNG))["attachment"]["attachment_id"]
    assert await code_of(amina, "attachment:get", attachment_id) == "invalid"
    assert await code_of(bilal, "attachment:get", attachment_id) == "not_found"
    status, error = await refused(amina.instance, signed(Purpose.DOWNLOAD, attachment_id, amina))
    assert (status, error["code"]) == (404, "not_found")


async def test_newcomers_see_what_was_attached_behind_their_joining(parley: Instance, amina: Person) -> None:
    bilal, carol = await parley.person("bilal"), await parley.person("carol")
    group = await parley.chat(amina, bilal, kind="group")
    early, late = await attach(amina), await attach(amina)
    await send(amina, group, early)
    await amina.post("participant:add", conversation_id=group, user_id=carol.user_id)
    await send(amina, group, late)
    assert await code_of(carol, "attachment:get", early) == "not_found"
    assert await code_of(carol, "attachment:get", late) == "ok"
    await amina.post("participant:remove", conversation_id=group, user_id=bilal.user_id)
    assert await code_of(bilal, "attachment:get", early) == "not_found"


# links


async def test_a_link_that_is_not_right_is_forbidden_whatever_it_names(amina: Person, tmp_path: Path) -> None:
    parley, attachment_id = amina.instance, await attach(amina)
    good = signed(Purpose.DOWNLOAD, attachment_id, amina)
    assert (await fetch(parley, good)).status == 200
    there = files(tmp_path)
    bad = [
        f"/attachments/{attachment_id}",
        f"/attachments/{uuid4()}",
        good[:-1] + ("0" if good[-1] != "0" else "1"),
        good.replace(attachment_id, str(uuid4())),
        good.replace(attachment_id, attachment_id.upper()),
        good.replace("expires=", "expires=9"),
        good.replace("signature=", "signature=%C3%A9%FF"),
        good.replace("user=", "user=0"),
        good.replace(f"user={amina.user_id}&", ""),
        signed(Purpose.DOWNLOAD, attachment_id, amina, ttl_s=-1),
        signed(Purpose.DOWNLOAD, attachment_id, amina, secret="b" * 32),
        signed(Purpose.UPLOAD, attachment_id, amina),
    ]
    answers = [await refused(parley, url) for url in bad]
    assert all(answer == answers[0] for answer in answers)
    assert (answers[0][0], answers[0][1]["code"]) == (403, "forbidden")
    for url in (good, signed(Purpose.UPLOAD, attachment_id, amina, ttl_s=-1), f"/attachments/{uuid4()}"):
        assert await refused(parley, url, "PUT", PNG) == answers[0]
    assert files(tmp_path) == there


@pytest.mark.parametrize(
    "name", ["..%2f..%2f..%2fetc%2fpasswd", "%2e%2e", "%00", "a%0ab", "%5c..%5c", "%ff", "x" * 1_000]
)
async def test_a_path_for_an_id_is_forbidden(amina: Person, tmp_path: Path, name: str) -> None:
    await attach(amina)
    there = files(tmp_path.parent)
    for method in ("GET", "PUT"):
        url = f"/attachments/{name}?expires=9999999999&signature={'0' * 64}"
        status, _ = await refused(amina.instance, url, method, PNG if method == "PUT" else None)
        assert status == 403
    assert files(tmp_path.parent) == there


async def test_only_what_there_is_for_a_file_may_be_asked(amina: Person) -> None:
    for method in ("POST", "DELETE", "PATCH"):
        status, error = await refused(amina.instance, f"/attachments/{uuid4()}", method)
        assert (status, error["code"]) == (405, "unknown_command")


async def test_a_link_to_what_is_swept_finds_nothing(amina: Person) -> None:
    for method, purpose in (("PUT", Purpose.UPLOAD), ("GET", Purpose.DOWNLOAD)):
        status, error = await refused(amina.instance, signed(purpose, str(uuid4()), amina), method)
        assert (status, error["code"]) == (404, "not_found")


async def test_a_link_ends_with_the_sight_of_what_it_leads_to(parley: Instance, amina: Person) -> None:
    bilal, carol = await parley.person("bilal"), await parley.person("carol")
    group = await parley.chat(amina, bilal, carol, kind="group")
    attachment_id = await attach(amina)
    message_id = await send(amina, group, attachment_id)
    links = {person.user_id: await link(person, attachment_id) for person in (amina, bilal, carol)}
    assert [(await fetch(parley, url)).status for url in links.values()] == [200, 200, 200]
    await amina.post("participant:remove", conversation_id=group, user_id=bilal.user_id)
    swapped = links[bilal.user_id].replace(bilal.user_id, carol.user_id)
    answers = [(await fetch(parley, url)).status for url in (*links.values(), swapped)]
    assert answers == [200, 404, 200, 403]
    await execute(parley, "update users set status = 'suspended' where user_id = $1", UUID(carol.user_id))
    assert (await refused(parley, links[carol.user_id]))[0] == 404
    await execute(parley, "update users set status = 'active' where user_id = $1", UUID(carol.user_id))
    assert (await fetch(parley, links[carol.user_id])).status == 200
    await amina.post("message:delete", message_id=message_id)
    assert (await refused(parley, links[carol.user_id]))[0] == 404


# how much


async def test_what_one_has_in_no_message_is_bounded(new_server: NewServer, their_chat: str, amina: Person) -> None:
    amina.instance = await new_server(PARLEY_UNSENT_BYTES=str(BYTES))
    half = bytes(BYTES // 2)
    sent = await attach(amina, PNG + half[len(PNG) :])
    await send(amina, their_chat, sent)  # what is sent does not count
    first = await declare(amina, half, client_id="first")
    await declare(amina, half)
    with pytest.raises(Refusal) as refusal:
        await declare(amina, b"!")
    assert (refusal.value.code, refusal.value.error["limit"]) == ("too_large", BYTES)
    assert (await declare(amina, half, client_id="first"))["attachment"] == first["attachment"]
    bilal = await amina.instance.person("bilal")
    await declare(bilal, half)  # each their own
    await execute(
        amina.instance, "delete from message_attachments where attachment_id = $1", first["attachment"]["attachment_id"]
    )
    await declare(amina, b"!")


async def test_many_declarations_at_once_stay_within_the_bound(new_server: NewServer, amina: Person) -> None:
    amina.instance, other = (
        await new_server(PARLEY_UNSENT_BYTES=str(BYTES)),
        await new_server(PARLEY_UNSENT_BYTES=str(BYTES)),
    )
    there = Person(other, amina.username, amina.user_id, amina.session_id, amina.token)
    third = bytes(BYTES // 3)
    answers = await asyncio.gather(*(declare(who, third) for who in (amina, there) * 5), return_exceptions=True)
    codes = [answer.code for answer in answers if isinstance(answer, Refusal)]
    assert codes == ["too_large"] * 7


async def test_uploads_count_as_writes(new_server: NewServer, amina: Person) -> None:
    declared = await declare(amina, PNG)
    slow = await new_server(PARLEY_RATE_WRITES="0.001/2")
    for _ in range(2):
        await put(slow, declared["upload_url"], PNG)
    answer = await fetch(slow, declared["upload_url"], "PUT", PNG)
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) > 100


async def test_uploads_at_once_are_bounded_for_each_and_for_all(
    amina: Person, bilal: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "UPLOADS_OF_ONE", 1)
    monkeypatch.setattr(routes, "UPLOADS", 2)
    parley, carol = amina.instance, await amina.instance.person("carol")
    urls = [(await declare(person, PNG))["upload_url"] for person in (amina, bilal, carol, amina)]
    async with putting(parley, urls[0], len(PNG)) as one:
        await one.send(PNG[:10])
        await until(lambda: len(files(tmp_path)) == 1, "the upload has not begun")
        status, error = await refused(parley, urls[3], "PUT", PNG)
        assert (status, error["code"], error["retry_after_ms"]) == (429, "rate_limited", routes.WAIT_MS)
        async with putting(parley, urls[1], len(PNG)) as two:
            await two.send(PNG[:10])
            await until(lambda: len(files(tmp_path)) == 2, "the upload has not begun")
            status, error = await refused(parley, urls[2], "PUT", PNG)
            assert (status, error["code"]) == (503, "unavailable")
            await two.send(PNG[10:])
            assert await two.status() == 204
        await put(parley, urls[2], PNG)
        await one.send(PNG[10:])
        assert await one.status() == 204
    await put(parley, urls[3], PNG)


async def test_who_is_not_active_any_more_uploads_nothing(amina: Person, tmp_path: Path) -> None:
    parley, url = amina.instance, (await declare(amina, PNG))["upload_url"]
    await execute(parley, "update users set status = 'suspended' where user_id = $1", UUID(amina.user_id))
    status, error = await refused(parley, url, "PUT", PNG)
    assert (status, error["code"]) == (403, "forbidden")
    assert files(tmp_path) == []


async def test_what_is_gone_when_its_upload_ends_is_not_found(amina: Person, tmp_path: Path) -> None:
    declared = await declare(amina, PNG)
    async with putting(amina.instance, declared["upload_url"], len(PNG)) as one:
        await one.send(PNG[:10])
        await until(lambda: len(files(tmp_path)) == 1, "the upload has not begun")
        await execute(amina.instance, "delete from message_attachments")
        await one.send(PNG[10:])
        assert await one.status() == 404
    assert files(tmp_path) == []


# uploading


async def test_more_than_was_declared_is_refused_at_once_and_not_kept(amina: Person, tmp_path: Path) -> None:
    parley, url = amina.instance, (await declare(amina, PNG))["upload_url"]

    async def endless() -> AsyncIterator[bytes]:
        yield PNG
        yield b"!"
        await asyncio.Event().wait()

    status, error = await refused(parley, url, "PUT", endless())
    assert (status, error["code"], error["limit"]) == (413, "too_large", len(PNG))
    async with putting(parley, url, len(PNG) + 1, Expect="100-continue") as one:
        assert await one.status() == 413  # and no 100 before it
    assert files(tmp_path) == []


async def test_a_client_that_asks_first_is_told_to_go_on(amina: Person) -> None:
    declared = await declare(amina, PNG)
    async with putting(amina.instance, declared["upload_url"], len(PNG), Expect="100-continue") as one:
        assert await one.status() == 100
        await one.send(PNG)
        assert await one.status() == 204
    await amina.post("attachment:complete", attachment_id=declared["attachment"]["attachment_id"])


async def test_less_than_was_declared_is_not_kept(amina: Person, tmp_path: Path) -> None:
    declared = await declare(amina, PNG)
    for body in (PNG[:-1], b""):
        status, error = await refused(amina.instance, declared["upload_url"], "PUT", body)
        assert (status, error["code"], [*error["fields"]]) == (400, "invalid", ["size"])
    assert files(tmp_path) == []
    with pytest.raises(Refusal) as refusal:
        await amina.post("attachment:complete", attachment_id=declared["attachment"]["attachment_id"])
    assert [*refusal.value.error["fields"]] == ["size"]


async def test_of_an_upload_that_is_cut_nothing_is_kept(amina: Person, tmp_path: Path) -> None:
    parley, data = amina.instance, bytes(BYTES)
    declared = await declare(amina, data)
    with structlog.testing.capture_logs() as logged:
        async with putting(parley, declared["upload_url"], BYTES) as one:
            await one.send(data[: BYTES - 1])
            await until(lambda: len(files(tmp_path)) == 1, "the upload has not begun")
        await until(lambda: not files(tmp_path), "half of a file is left")
    assert logged == []  # that is no fault of ours
    await put(parley, declared["upload_url"], data)
    assert (await row(parley, declared["attachment"]["attachment_id"]))["file_id"] is not None


async def test_of_an_upload_that_stalls_nothing_is_kept(
    amina: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "STALL_S", 0.05)
    declared = await declare(amina, PNG)
    with structlog.testing.capture_logs() as logged:
        async with putting(amina.instance, declared["upload_url"], len(PNG)) as one:
            await one.send(PNG[:10])
            assert await one.status() == 503
    assert files(tmp_path) == []
    assert logged == []
    await put(amina.instance, declared["upload_url"], PNG)


async def test_an_upload_that_crawls_is_ended_however_often_a_byte_comes(
    amina: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "STALL_S", 0.2)
    declared = await declare(amina, bytes(BYTES))
    async with putting(amina.instance, declared["upload_url"], BYTES) as one:
        answered = asyncio.create_task(one.status())
        while not answered.done():  # at most some two hundred bytes a second
            await one.send(b"!")
            await asyncio.wait([answered], timeout=0.005)
        assert await answered == 503
    assert files(tmp_path) == []


async def test_an_attachment_is_uploaded_once_at_a_time(amina: Person, tmp_path: Path) -> None:
    parley, declared, other = amina.instance, await declare(amina, PNG), await declare(amina, PNG)
    async with putting(parley, declared["upload_url"], len(PNG)) as one:
        await one.send(PNG[:10])
        await until(lambda: len(files(tmp_path)) == 1, "the upload has not begun")
        status, error = await refused(parley, declared["upload_url"], "PUT", PNG)
        assert (status, error["code"]) == (503, "unavailable")
        await put(parley, other["upload_url"], PNG)
        await one.send(PNG[10:])
        assert await one.status() == 204
    await amina.post("attachment:complete", attachment_id=declared["attachment"]["attachment_id"])


async def test_many_uploads_at_once_end_in_one_whole_file(
    new_server: Callable[..., Awaitable[Instance]], parley: Instance, amina: Person, tmp_path: Path
) -> None:
    data = PNG + os.urandom(BYTES - len(PNG))
    other, declared = await new_server(), await declare(amina, data)
    answers = await asyncio.gather(
        *(fetch(one, declared["upload_url"], "PUT", data) for one in (parley, other, parley, other))
    )
    assert {answer.status for answer in answers} <= {204, 503}
    await amina.post("attachment:complete", attachment_id=declared["attachment"]["attachment_id"])
    assert len(files(tmp_path)) == 1


async def test_a_disk_that_is_full_says_so_and_keeps_nothing(
    amina: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    declared = await declare(amina, PNG)
    monkeypatch.setattr(store.os, "fsync", full)
    status, error = await refused(amina.instance, declared["upload_url"], "PUT", PNG)
    assert (status, error["code"]) == (503, "unavailable")
    monkeypatch.undo()
    assert files(tmp_path) == []
    await put(amina.instance, declared["upload_url"], PNG)


async def test_a_body_that_unpacks_to_more_is_refused(amina: Person, tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(10_000_000))
    declared = await declare(amina, bytes(BYTES))
    answer = await fetch(amina.instance, declared["upload_url"], "PUT", bomb, Content_Encoding="deflate")
    assert answer.status == 413
    assert files(tmp_path) == []


# downloading


async def test_nothing_that_is_served_runs_in_a_browser(amina: Person) -> None:
    data = PNG[:8] + HTML  # a picture by its first bytes
    url = await link(amina, await attach(amina, data, name='moon".html'))
    status, headers, body = await fetch(amina.instance, url)
    assert (status, body) == (200, data)
    assert headers["Content-Type"] == "image/png"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"  # to the pages of ORIGIN
    assert (
        headers["Content-Disposition"] == "attachment; filename=\"moon_.html.png\"; filename*=UTF-8''moon%22.html.png"
    )
    assert {"private", "immutable"} <= set(headers["Cache-Control"].split(", "))
    assert "Set-Cookie" not in headers


async def test_a_head_has_the_headers_alone(amina: Person) -> None:
    url = await link(amina, await attach(amina))
    head, got = await fetch(amina.instance, url, "HEAD"), await fetch(amina.instance, url)
    assert (head.status, head.body) == (200, b"")
    told = ("Content-Type", "Content-Length", "Content-Disposition", "ETag", "Accept-Ranges")
    assert {name: head.headers[name] for name in told} == {name: got.headers[name] for name in told}
    assert head.headers["Content-Length"] == str(len(PNG))


RANGES = {
    "bytes=0-": (0, 100),
    "bytes=10-19": (10, 20),
    "bytes=99-99": (99, 100),
    "bytes=90-1000": (90, 100),
    "bytes=-10": (90, 100),
    "bytes=-1000": (0, 100),
}


@pytest.fixture
async def hundred(amina: Person) -> tuple[str, bytes]:
    """A link to a hundred bytes, and those."""
    data = PNG[:8] + bytes(range(92))
    return await link(amina, await attach(amina, data)), data


@pytest.mark.parametrize(("asked", "span"), RANGES.items())
async def test_a_part_can_be_asked_for(
    parley: Instance, hundred: tuple[str, bytes], asked: str, span: tuple[int, int]
) -> None:
    url, data = hundred
    status, headers, body = await fetch(parley, url, Range=asked)
    assert (status, body) == (206, data[slice(*span)])
    assert headers["Content-Range"] == f"bytes {span[0]}-{span[1] - 1}/100"
    assert headers["Content-Length"] == str(span[1] - span[0])
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert (await fetch(parley, url, "HEAD", Range=asked)).status == 206


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=200-300", "bytes=-0", "bytes=-000"])
async def test_a_part_that_is_not_there_is_refused(parley: Instance, hundred: tuple[str, bytes], asked: str) -> None:
    status, headers, _ = await fetch(parley, hundred[0], Range=asked)
    assert (status, headers["Content-Range"], headers["Content-Type"]) == (
        416,
        "bytes */100",
        "application/json; charset=utf-8",
    )


@pytest.mark.parametrize("asked", ["bytes=5-2", "bytes=-", "bytes=0-1,5-6", "lines=1-2", "x"])
async def test_of_a_part_that_is_not_understood_all_is_served(
    parley: Instance, hundred: tuple[str, bytes], asked: str
) -> None:
    status, headers, body = await fetch(parley, hundred[0], Range=asked)
    assert (status, body) == (200, hundred[1])
    assert "Content-Range" not in headers


async def test_a_download_is_resumed_only_of_the_same_file(parley: Instance, hundred: tuple[str, bytes]) -> None:
    url, data = hundred
    etag = (await fetch(parley, url)).headers["ETag"]
    same = await fetch(parley, url, Range="bytes=50-", If_Range=etag)
    assert (same.status, same.body) == (206, data[50:])
    other = await fetch(parley, url, Range="bytes=50-", If_Range='"another"')
    assert (other.status, other.body) == (200, data)


async def test_what_a_client_has_already_is_not_sent_again(parley: Instance, hundred: tuple[str, bytes]) -> None:
    url, data = hundred
    etag = (await fetch(parley, url)).headers["ETag"]
    for known in (etag, f"W/{etag}", f'"another", {etag}', "*"):
        for asked in ({}, {"Range": "bytes=50-"}, {"Range": "bytes=100-"}):
            status, headers, body = await fetch(parley, url, If_None_Match=known, Origin=ORIGIN, **asked)
            assert (status, body, headers["ETag"]) == (304, b"", etag)
            assert {"private", "immutable"} <= set(headers["Cache-Control"].split(", "))
            assert headers["Access-Control-Allow-Origin"] == ORIGIN
    assert (await fetch(parley, url, "HEAD", If_None_Match=etag)).status == 304
    other = await fetch(parley, url, If_None_Match='"another"')
    assert (other.status, other.body) == (200, data)


async def test_a_file_that_is_lost_is_not_half_an_answer(parley: Instance, amina: Person, tmp_path: Path) -> None:
    url = await link(amina, await attach(amina))
    (file,) = files(tmp_path)
    file.unlink()
    status, error = await refused(parley, url)
    assert (status, error["code"]) == (503, "unavailable")


async def test_a_client_that_stops_reading_is_let_go(amina: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "STALL_S", 0.05)
    monkeypatch.setattr(store, "CHUNK_BYTES", 10_000)
    sent: list[int] = []
    send = routes._send

    async def watched(*given: Any) -> None:
        sent.append(0)
        await send(*given)
        sent.append(1)

    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(routes, "_send", watched)
    url = await link(amina, await attach(amina, PNG + bytes(100_000)))
    monkeypatch.setattr(routes.web.StreamResponse, "write", never)
    with pytest.raises(aiohttp.ClientPayloadError):  # the connection ended in the middle
        await fetch(amina.instance, url)
    await until(lambda: sent == [0, 1], "it is still served")


# pages of other origins


async def test_pages_of_the_listed_origins_may_upload_and_download(amina: Person) -> None:
    parley, declared = amina.instance, await declare(amina, PNG)
    url = declared["upload_url"]
    asked = await fetch(parley, url, "OPTIONS", Origin=ORIGIN, Access_Control_Request_Method="PUT")
    assert (asked.status, asked.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
    assert "PUT" in asked.headers["Access-Control-Allow-Methods"]
    assert "Content-Type" in asked.headers["Access-Control-Allow-Headers"]
    over = await fetch(parley, url, "PUT", PNG + b"!", Origin=ORIGIN)
    assert (over.status, over.headers["Access-Control-Allow-Origin"]) == (413, ORIGIN)
    done = await fetch(parley, url, "PUT", PNG, Origin=ORIGIN)
    assert (done.status, done.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
    await amina.post("attachment:complete", attachment_id=declared["attachment"]["attachment_id"])
    got = await fetch(parley, await link(amina, declared["attachment"]["attachment_id"]), Origin=ORIGIN)
    assert (got.body, got.headers["Access-Control-Allow-Origin"]) == (PNG, ORIGIN)
    assert "Content-Range" in got.headers["Access-Control-Expose-Headers"]


async def test_where_no_origin_is_listed_pages_of_the_same_origin_alone_may_show_a_file(
    new_instance: Callable[..., Awaitable[Instance]], amina: Person, tmp_path: Path
) -> None:
    url = await link(amina, await attach(amina))
    alone = await new_instance(PARLEY_ATTACHMENTS_FOLDER=str(tmp_path))
    for known in ({}, {"If_None_Match": "*"}):
        answer = await fetch(alone, url, **known)
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"


async def test_pages_of_other_origins_may_not(amina: Person) -> None:
    url = await link(amina, await attach(amina))
    for method in ("OPTIONS", "GET"):
        answer = await fetch(amina.instance, url, method, Origin="https://other.example")
        assert not [name for name in answer.headers if name.startswith("Access-Control")]


# for messages


async def test_what_can_be_sent_is_ones_own_complete_and_unsent(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    one, two, sent, theirs = await attach(amina), await attach(amina), await attach(amina), await attach(bilal)
    declared = (await declare(amina, PNG))["attachment"]["attachment_id"]
    await send(amina, their_chat, sent)
    owner, ids = UUID(amina.user_id), [UUID(id_) for id_ in (two, theirs, declared, sent, str(uuid4()), one)]
    async with parley.parley.database.connection() as db:
        found = await table.list_sendable(db, [(owner, id_) for id_ in ids])
    assert found.keys() == {(owner, UUID(one)), (owner, UUID(two))}
    assert str(found[owner, UUID(one)].attachment_id) == one


async def test_messages_show_their_attachments_in_order(amina: Person, bilal: Person, their_chat: str) -> None:
    phone = await bilal.connect()
    ids = [await attach(amina, name=f"{n}.png") for n in range(3)]
    await send(amina, their_chat, ids[2], ids[0], text=None)
    await send(amina, their_chat, ids[1])
    await send(amina, their_chat)
    history = (await bilal.post("message:history", conversation_id=their_chat))["messages"]
    assert [[file["name"] for file in message["attachments"]] for message in history] == [
        ["2.png", "0.png"],
        ["1.png"],
        [],
    ]
    assert [(message["type"], message["text"]) for message in history] == [
        ("image", None),
        ("image", "look"),
        ("text", "look"),
    ]
    assert history[1]["attachments"] == [
        {
            "attachment_id": ids[1],
            "name": "1.png",
            "content_type": "image/png",
            "size": len(PNG),
            "sha256": hashlib.sha256(PNG).hexdigest(),
            "url": f"/attachments/{ids[1]}",
        }
    ]
    await phone.hearing("message:created", attachments=[])
    assert [push.payload for push in phone.of(f"conversation:{their_chat}")] == history
    edited = await amina.post("message:edit", message_id=history[1]["message_id"], text="closer", version=1)
    assert edited["attachments"] == history[1]["attachments"]


async def test_a_file_is_sent_once_and_by_its_owner(amina: Person, bilal: Person, their_chat: str) -> None:
    mine, theirs, declared = await attach(amina), await attach(bilal), await declare(amina, PNG)
    first = {"conversation_id": their_chat, "client_id": uuid4().hex, "attachment_ids": [mine]}
    sent = await amina.post("message:send", **first)
    assert await amina.post("message:send", **first) == sent
    for attachment_id in (mine, theirs, declared["attachment"]["attachment_id"], str(uuid4())):
        with pytest.raises(Refusal, match="not_found"):
            await send(amina, their_chat, attachment_id)
    with pytest.raises(Refusal, match="invalid"):
        await send(amina, their_chat, text=None)
    both = [await attach(amina), await attach(amina)]
    with pytest.raises(Refusal, match="invalid"):
        await send(amina, their_chat, both[0], both[0])
    with pytest.raises(Refusal, match="too_large"):
        await send(amina, their_chat, *(str(uuid4()) for _ in range(21)))
    answers = await asyncio.gather(*(code_of_send(amina, their_chat, both[0]) for _ in range(5)))
    assert sorted(answers) == ["not_found"] * 4 + ["ok"]


async def code_of_send(person: Person, conversation_id: str, attachment_id: str) -> str:
    try:
        await send(person, conversation_id, attachment_id)
    except Refusal as refusal:
        return refusal.code
    return "ok"


async def test_what_is_deleted_takes_its_files_along(
    amina: Person, bilal: Person, their_chat: str, tmp_path: Path
) -> None:
    before = files(tmp_path)
    attachment_id = await attach(amina)
    message_id = await send(amina, their_chat, attachment_id)
    assert len(files(tmp_path)) == len(before) + 1
    gone = await amina.post("message:delete", message_id=message_id)
    assert gone["attachments"] == []
    await until(lambda: files(tmp_path) == before, "the file goes")
    for person in (amina, bilal):
        assert await code_of(person, "attachment:get", attachment_id) == "not_found"


# the sweep


async def age(parley: Instance, *attachment_ids: str, hours: float = 24.1) -> None:
    await execute(
        parley,
        "update message_attachments set at = now() - make_interval(secs => $2 * 3600) where attachment_id = any ($1)",
        attachment_ids,
        hours,
    )


def age_files(folder: Path, hours: float = 24.1) -> None:
    for path in files(folder):
        os.utime(path, (time.time() - hours * 3600,) * 2)


async def test_what_was_never_sent_is_swept_after_a_day(
    parley: Instance, amina: Person, their_chat: str, tmp_path: Path
) -> None:
    unsent, sent, young = await attach(amina), await attach(amina), await attach(amina)
    declared = (await declare(amina, PNG, client_id="key"))["attachment"]["attachment_id"]
    await send(amina, their_chat, sent)
    await age(parley, unsent, sent, declared)
    await age(parley, young, hours=23.9)
    assert await parley.parley.jobs.sweep_attachments() == 1
    assert [bool(await row(parley, id_)) for id_ in (unsent, declared, sent, young)] == [False, False, True, True]
    assert len(files(tmp_path)) == 2
    assert await code_of(amina, "attachment:get", unsent) == "not_found"
    with pytest.raises(Refusal) as refusal:
        await declare(amina, PNG, client_id="key")
    assert refusal.value.code == "not_found"  # the key is for good, what it made is not


async def test_files_that_no_attachment_has_are_swept_after_a_day(
    parley: Instance, amina: Person, tmp_path: Path
) -> None:
    held = await attach(amina)
    stray = uuid4()

    async def chunks() -> AsyncIterator[bytes]:
        yield PNG

    await parley.parley.services.attachments.write(stray, chunks())
    assert await parley.parley.jobs.sweep_attachments() == 0
    age_files(tmp_path)
    assert await parley.parley.jobs.sweep_attachments() == 1
    assert [path.name for path in files(tmp_path)] == [(await row(parley, held))["file_id"].hex]


async def test_a_file_that_could_not_be_deleted_is_deleted_the_next_time(
    parley: Instance, amina: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await attach(amina), await attach(amina)
    stuck = (await row(parley, one))["file_id"].hex
    await age(parley, one, two)
    age_files(tmp_path)
    unlink = Path.unlink

    def unlink_others(path: Path, missing_ok: bool = False) -> None:
        if path.name == stuck:
            raise PermissionError("not now")
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink_others)
    assert await parley.parley.jobs.sweep_attachments() == 1
    assert [path.name for path in files(tmp_path)] == [stuck]
    monkeypatch.undo()
    assert await parley.parley.jobs.sweep_attachments() == 1
    assert files(tmp_path) == []


async def test_a_sweep_goes_on_until_nothing_is_left_and_instances_share_it(
    new_server: Callable[..., Awaitable[Instance]],
    parley: Instance,
    amina: Person,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "UNSENT_BATCH", 2)
    other = await new_server()
    ids = [await attach(amina) for _ in range(7)]
    await age(parley, *ids)
    swept = await asyncio.gather(parley.parley.jobs.sweep_attachments(), other.parley.jobs.sweep_attachments())
    assert sum(swept) >= 7
    assert files(tmp_path) == []
    assert not any([await row(parley, id_) for id_ in ids])


async def test_what_is_just_being_sent_is_not_swept(
    parley: Instance, amina: Person, their_chat: str, tmp_path: Path
) -> None:
    attachment_id = await attach(amina)
    await age(parley, attachment_id)
    owner, file = UUID(amina.user_id), UUID(attachment_id)
    async with parley.parley.database.unit() as db:
        files_of = await table.list_sendable(db, [(owner, file)])
        new = NewMessage(UUID(their_chat), owner, "1", b"", None, None, (file,), list(files_of.values()))
        assert [row.outcome for row in await append_messages(db, [new], wait=True)] == ["sent"]
        assert await parley.parley.jobs.sweep_attachments() == 0
    assert len(files(tmp_path)) == 1


async def test_another_databases_files_in_the_same_folder_are_left_alone(
    new_server: Callable[..., Awaitable[Instance]],
    new_database: Callable[..., Awaitable[str]],
    parley: Instance,
    amina: Person,
    tmp_path: Path,
) -> None:
    attachment_id = await attach(amina)
    age_files(tmp_path)
    dsn = await new_database(migrated=True)
    await run_sql(dsn, "update deployment set digest_key = uuid_send(gen_random_uuid())")  # the tests' are all copies
    stranger = await Instance(dsn, PARLEY_ATTACHMENTS_FOLDER=str(tmp_path)).start()
    try:
        assert await stranger.parley.jobs.sweep_attachments() == 0
    finally:
        await stranger.stop()
    assert (await fetch(parley, await link(amina, attachment_id))).body == PNG
