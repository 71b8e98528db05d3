"""A backup taken while people talk, restored into another PostgreSQL: what it holds, and what clients are told.

docs/operations.md gives the commands that are run here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.embedded import EmbeddedPostgres
from server.embedded_files import Account, installed
from tests.commandline import parley_cli
from tests.faults.checker import Acked, read_log, violations
from tests.people import SECRET, Device, Instance, Person

NewInstance = Callable[..., Awaitable[Instance]]
BEFORE, BEHIND = 40, 10  # messages of each person: at least so many before the backup, and so many after it


@pytest.fixture
def elsewhere(open_folder: Path) -> Iterator[str]:
    """The dsn of an empty database on a PostgreSQL that has hardly lived: its transaction ids are small."""
    server = EmbeddedPostgres(open_folder / "elsewhere", durable=False)
    server.start()
    yield server.dsn
    server.stop()


@dataclass
class Backup:
    """What was known when it was taken, and since, of one conversation."""

    chat: str
    people: tuple[Person, Person]
    before: list[Acked]  # acknowledged before it was begun
    acked: list[Acked]  # in the end
    epoch: str
    position: int  # up to where both have heard

    @property
    def room(self) -> str:
        return f"conversation:{self.chat}"


async def _run(program: str, *arguments: str) -> None:
    binary = installed(None, Account("tests")).folder / program
    process = await asyncio.create_subprocess_exec(binary, *arguments, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 0, said.decode()


async def _say(device: Device, chat: str, client_id: str) -> Acked:
    said = await device.send(chat, client_id, client_id)
    return Acked(client_id.partition(":")[0], client_id, said["message_id"], said["seq"])


@pytest.fixture
async def backup(new_instance: NewInstance, open_folder: Path, elsewhere: str) -> Backup:
    """Two people talk while a backup is taken, and go on; it is restored elsewhere, and theirs is gone."""
    parley = await new_instance(PARLEY_RATE_MESSAGE_SEND="off")
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    phones = [await person.connect() for person in (amina, bilal)]
    acked: list[Acked] = []
    taken = asyncio.Event()

    async def talk(device: Device, user_id: str) -> None:
        n, more = 0, BEHIND
        while more:
            acked.append(await _say(device, chat, f"{user_id}:{n}"))
            n, more = n + 1, more - taken.is_set()

    talks = asyncio.gather(*(talk(phone, one.user_id) for phone, one in zip(phones, (amina, bilal), strict=True)))
    await phones[0].until(lambda _: len(acked) >= 2 * BEFORE, "enough messages")
    before = list(acked)
    dump = open_folder / "parley.dump"
    await _run("pg_dump", "--format=custom", f"--file={dump}", parley.dsn)
    taken.set()
    await talks
    for phone in phones:
        await phone.hearing_up_to(f"conversation:{chat}", max(ack.seq for ack in acked))
    await _run("pg_restore", "--exit-on-error", "--no-owner", f"--dbname={elsewhere}", str(dump))
    return Backup(chat, (amina, bilal), before, acked, phones[0].hello["epoch"], phones[0].position(chat))


async def test_what_was_acknowledged_before_a_backup_is_in_it_and_clients_load_afresh(
    backup: Backup, elsewhere: str
) -> None:
    log = await read_log(elsewhere, backup.chat)
    stored = {message.message_id for message in log.messages}
    assert {ack.message_id for ack in backup.before} <= stored
    assert stored < {ack.message_id for ack in backup.acked}  # some were said behind it: that is what a backup loses
    assert violations(log, [ack for ack in backup.acked if ack.message_id in stored], {}) == []

    said = await parley_cli("restored", DATABASE_URL=elsewhere, PARLEY_SECRET=SECRET)
    assert said.code == 0, said.err
    parley = await Instance(elsewhere, PARLEY_RATE_MESSAGE_SEND="off").start()
    amina, bilal = backup.people
    try:
        phone = await bilal.connect(parley, epoch=backup.epoch, rooms={backup.room: backup.position})
        assert phone.hello["epoch"] != backup.epoch
        assert sorted(phone.hello["reset"]) == sorted([backup.room, f"user:{bilal.user_id}"])
        head = phone.hello["rooms"][backup.room]
        assert head == log.seqs[-1] < backup.position
        page = await phone.call("message:history", conversation_id=backup.chat, limit=200)
        assert [message["message_id"] for message in page["messages"]] == [each.message_id for each in log.messages]

        # What was said behind the backup is said again by those who said it, under the same client_ids.
        writer = await amina.connect(parley, epoch=backup.epoch, rooms={backup.room: backup.position})
        mine = [ack for ack in backup.acked if ack.sender_id == amina.user_id]
        again = [await _say(writer, backup.chat, ack.client_id) for ack in mine]
        assert {ack.message_id for ack in mine} & stored == {ack.message_id for ack in again} & stored
        lost = [ack.client_id for ack in mine if ack.message_id not in stored]
        assert len(lost) >= BEHIND
        await phone.hearing_up_to(backup.room, head + len(lost))
        assert phone.texts(backup.chat) == lost
        assert [push.seq for push in phone.of(backup.room)] == list(range(head + 1, head + len(lost) + 1))
        assert violations(await read_log(elsewhere, backup.chat), again, {}) == []
    finally:
        await _left(backup)
        await parley.stop()


async def test_a_restore_that_nobody_is_told_of_would_go_unseen(backup: Backup, elsewhere: str) -> None:
    parley = await Instance(elsewhere, PARLEY_RATE_MESSAGE_SEND="off").start()
    amina, bilal = backup.people
    try:
        writer = await amina.connect(parley)
        others = range(backup.position - writer.hello["rooms"][backup.room])
        for n in others:
            await _say(writer, backup.chat, f"{amina.user_id}:other {n}")
        phone = await bilal.connect(parley, epoch=backup.epoch, rooms={backup.room: backup.position})
        assert (phone.hello["epoch"], phone.hello["reset"]) == (backup.epoch, [])
        assert phone.hello["rooms"][backup.room] == backup.position  # it asks for nothing, and has other messages
    finally:
        await _left(backup)
        await parley.stop()


async def _left(backup: Backup) -> None:
    for person in backup.people:
        for device in person.devices:
            await device.leave()
