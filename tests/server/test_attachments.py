"""The files themselves over HTTP: put and fetched by signed links, within bounds, whole or not at all."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
import structlog

from server import attachments as routes
from server.adapters import attachments as store
from server.commands.links import Purpose
from tests.people import Instance, Person, Refusal
from tests.uploads import (
    BYTES,
    HTML,
    ORIGIN,
    PNG,
    NewServer,
    attach,
    declare,
    execute,
    fetch,
    files,
    link,
    on_folder,
    put,
    putting,
    refused,
    row,
    send,
    signed,
    until,
)


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
def new_server(new_instance: NewServer, tmp_path: Path) -> NewServer:
    """`await new_server()`: one more instance, on the folder of this test."""
    return on_folder(tmp_path, new_instance)


@pytest.fixture
async def parley(new_server: Callable[..., Awaitable[Instance]]) -> Instance:
    return await new_server()


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
