"""What an instance that is killed has said of people: it ends with its lease, and leaves nobody behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from server.rooms import lease, presence
from tests.faults.processes import ServerProcess
from tests.hostile import short_lease
from tests.people import SECRET, Device, Instance, Person
from tests.servers import fetch

NewInstance = Callable[..., Awaitable[Instance]]


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
def doomed(shared_database: str, tmp_path: Path) -> Iterator[ServerProcess]:
    """An instance of its own process with a short lease."""
    environ = {"DATABASE_URL": shared_database, "PARLEY_SECRET": SECRET, "PARLEY_PRESENCE_DEBOUNCE_MS": "0"}
    server = ServerProcess(tmp_path / "log", environ, ("tests.hostile.short_lease",))
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def parley(new_instance: NewInstance, monkeypatch: pytest.MonkeyPatch) -> Instance:
    """An instance that lives, and looks as often."""
    monkeypatch.setattr(lease, "LEASE_S", short_lease.LEASE_S)
    monkeypatch.setattr(presence, "RENEW_S", short_lease.RENEW_S)
    return await new_instance(PARLEY_PRESENCE_DEBOUNCE_MS="0")


async def said_of(parley: Instance, people: list[Person]) -> list[tuple[str, str]]:
    """Who stands in the database as being there, and the lease of the instance that says so."""
    ids = ", ".join(f"'{UUID(person.user_id)}'" for person in people)
    rows = await fetch(parley.dsn, f"select user_id::text, instance_id::text from presences where user_id in ({ids})")
    return sorted((str(user_id), str(instance_id)) for user_id, instance_id in rows)


async def until(seen: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask until it is so."""
    try:
        async with asyncio.timeout(10):
            while not await seen():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None


async def test_who_was_on_an_instance_that_is_killed_is_offline_for_others_and_no_ghost(
    parley: Instance, doomed: ServerProcess, record_property: Callable[[str, object], None]
) -> None:
    watcher = await parley.person("watcher")
    gone = [await parley.person(f"gone{n}") for n in range(5)]
    both = await parley.person("both")
    await parley.chat(watcher, *gone, both, kind="group")
    device = await watcher.connect()
    for person in [*gone, both]:
        await person.connect(to=doomed.url)
    stays = await both.connect()
    ids = [person.user_id for person in [*gone, both]]
    await device.call("presence:watch", user_ids=ids)
    await _all(device, ids, "online")
    living = str(parley.parley.presences._lease.instance_id)

    async def is_said_by_both() -> bool:
        said = await said_of(parley, [both])
        return len(said) == 2 and (both.user_id, living) in said

    await until(is_said_by_both, "of one of them both instances say it")
    doomed.kill()
    killed = time.monotonic()
    await asyncio.gather(*(_told(device, person, "offline") for person in gone))
    record_property("offline after", f"{time.monotonic() - killed:.2f} s")

    async def is_buried() -> bool:
        return await said_of(parley, [*gone, both]) == [(both.user_id, living)] and not await leases_over(parley)

    await until(is_buried, "no ghost is left, and no lease")
    found = {one["user_id"]: one for one in (await device.call("presence:watch", user_ids=ids))["presences"]}
    assert {user_id: one["state"] for user_id, one in found.items()} == {
        **dict.fromkeys((person.user_id for person in gone), "offline"),
        both.user_id: "online",
    }
    assert all(found[person.user_id]["last_seen_at"] for person in gone)
    assert (await stays.call("account:me"))["user_id"] == both.user_id


async def test_who_comes_back_elsewhere_before_the_lease_ends_stays_online(
    parley: Instance, doomed: ServerProcess
) -> None:
    watcher, mover = await parley.person("watcher"), await parley.person("mover")
    await parley.chat(watcher, mover)
    device = await watcher.connect()
    await mover.connect(to=doomed.url)
    await device.call("presence:watch", user_ids=[mover.user_id])
    await _all(device, [mover.user_id], "online")
    doomed.kill()
    await mover.connect()
    living = str(parley.parley.presences._lease.instance_id)

    async def is_said_by_the_living() -> bool:
        return await said_of(parley, [mover]) == [(mover.user_id, living)]

    await until(is_said_by_the_living, "the dead one is buried")
    assert (await device.call("presence:watch", user_ids=[mover.user_id]))["presences"][0]["state"] == "online"
    assert not [p for p in device.heard if p.name == "presence:changed" and p.payload["state"] == "offline"]


async def leases_over(parley: Instance) -> bool:
    return (await fetch(parley.dsn, "select count(*) from presence_instances where expires_at < now()")) != [(0,)]


async def _all(device: Device, user_ids: list[str], state: str) -> None:
    """Until people are what they are expected to be, by whoever asks."""

    async def are_so() -> bool:
        found = (await device.call("presence:watch", user_ids=user_ids))["presences"]
        return [one["state"] for one in found] == [state] * len(user_ids)

    await until(are_so, f"{user_ids} are {state}")


async def _told(device: Device, person: Person, state: str) -> None:
    await device.hearing("presence:changed", user_id=person.user_id, state=state)
