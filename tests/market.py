"""What the market's tests share: listings, offers, and the moves of the people who haggle."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from tests.people import Device, Instance, Person, Refusal


def eur(amount: int) -> dict[str, Any]:
    """A price in euro cents."""
    return {"amount": amount, "currency": "EUR"}


async def listed(owner: Person, **terms: Any) -> dict[str, Any]:
    """Something for sale, at 100 euro where nothing else is said."""
    asked = {
        "kind": "for_sale",
        "title": "A moon lamp",
        "description": "Glows.",
        "price": eur(10_000),
        "category": "home_decor",
        "client_id": uuid4().hex,
        **terms,
    }
    listing: dict[str, Any] = await owner.post("listing:create", **asked)
    return listing


async def thread_of(owner: Person, *members: Person) -> str:
    """A thread of these people; its id."""
    made = await owner.post("thread:create", title="Lamps", category="home_decor", client_id=uuid4().hex)
    for member in members:
        await member.post("thread:join", thread_id=made["thread_id"])
    thread_id: str = made["thread_id"]
    return thread_id


async def offer(maker: Person, listing: dict[str, Any], amount: int = 9_000, **more: Any) -> dict[str, Any]:
    """An offer on a listing, as it was answered."""
    asked = {"listing_id": listing["listing_id"], "listing_version": listing["version"], "price": eur(amount)}
    made: dict[str, Any] = await maker.post("offer:make", client_id=uuid4().hex, **{**asked, **more})
    return made


async def counter(person: Person, made: dict[str, Any], amount: int, **more: Any) -> dict[str, Any]:
    """An answer to an offer by another."""
    asked = {"offer_id": made["offer"]["offer_id"], "version": made["offer"]["version"], "price": eur(amount)}
    answered: dict[str, Any] = await person.post("offer:counter", client_id=uuid4().hex, **{**asked, **more})
    return answered


async def move(person: Person, how: str, made: dict[str, Any]) -> dict[str, Any]:
    """Accept, decline or withdraw an offer."""
    offered = made["offer"]
    moved: dict[str, Any] = await person.post(f"offer:{how}", offer_id=offered["offer_id"], version=offered["version"])
    return moved


async def refused(person: Person, command: str, **payload: Any) -> dict[str, Any]:
    """The error of a command that is to fail."""
    try:
        answer = await person.post(command, **payload)
    except Refusal as refusal:
        return dict(refusal.error)
    raise AssertionError(f"{command} was answered: {answer}")


async def conflict(person: Person, how: str, made: dict[str, Any], **more: Any) -> str:
    """The reason for which a move is refused; the offer comes along as it is now."""
    offered = made["offer"]
    asked = {"offer_id": offered["offer_id"], "version": offered["version"], **more}
    error = await refused(person, f"offer:{how}", **asked)
    assert error["code"] == "conflict", error
    assert error["current"]["offer_id"] == offered["offer_id"]
    reason: str = error["reason"]
    return reason


async def set_(parley: Instance, sql: str, *arguments: Any) -> None:
    """Change a row behind everybody's back, as time would."""
    async with parley.parley.database.connection() as db:
        await db.execute(sql, *(UUID(a) if isinstance(a, str) and len(a) == 36 else a for a in arguments))


async def run_out(parley: Instance, made: dict[str, Any]) -> None:
    """Let an offer's time be over, by the database's clock."""
    await set_(
        parley,
        "update offers set expires_at = now() - interval '1 second' where offer_id = $1",
        made["offer"]["offer_id"],
    )


async def stock(parley: Instance, listing: dict[str, Any]) -> tuple[int, int, str]:
    """How much of a listing is reserved and sold, and its status."""
    async with parley.parley.database.connection() as db:
        row = await db.fetchrow(
            "select reserved, sold, status from listings where listing_id = $1", UUID(listing["listing_id"])
        )
    return tuple(row)


async def settled(device: Device, person: Person) -> None:
    """Wait until a device has heard all that has been said in its person's own room."""
    own = f"user:{person.user_id}"
    synced = await person.post("room:sync", room=own, after=0)
    await device.hearing_up_to(own, synced["head_seq"])


async def seen(person: Person, listing: dict[str, Any]) -> dict[str, Any]:
    """A listing as somebody sees it now."""
    found: dict[str, Any] = await person.post("listing:get", listing_id=listing["listing_id"])
    return found


async def update(person: Person, listing: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A listing after a change of it."""
    asked = {"listing_id": listing["listing_id"], "version": listing["version"], **fields}
    changed: dict[str, Any] = await person.post("listing:update", **asked)
    return changed


async def watch(person: Person, listing: dict[str, Any]) -> Device:
    """A device that stands in a listing's room."""
    device = await person.connect()
    await device.call("room:join", room=f"listing:{listing['listing_id']}")
    return device
