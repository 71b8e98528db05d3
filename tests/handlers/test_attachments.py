"""Attachments as a phone declares, uploads, completes, sends, downloads and forgets them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from server import jobs
from server.commands.links import Purpose
from storage import attachments as table
from storage.messages import NewMessage, append_messages
from tests.people import Instance, Person, Refusal
from tests.servers import execute as run_sql
from tests.uploads import (
    BYTES,
    HTML,
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
    after = time.time()
    assert answer.keys() == {"url", "expires_at"}
    assert answer["url"].startswith(attachment["url"] + "?")
    ends = int(answer["url"].partition("expires=")[2].partition("&")[0])
    assert before + 299 <= ends <= after + 300
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
