"""Reports: filed on what one sees, listed and closed by administrators."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.market import listed, thread_of
from tests.people import PASSWORD, Instance, Person, Refusal

FILED = {"reporter_id", "resolved_by"}
LISTED = {"message", "conversation", "user", "listing", "faq"}
REPORT = {"report_id", "subject", "reason", "text", "status", "resolution", "at", "resolved_at"}


@pytest.fixture
def migrated_database(shared_database: str) -> str:
    """Nothing here needs a database of its own."""
    return shared_database


@pytest.fixture
async def root(parley: Instance) -> Person:
    """An administrator."""
    person = await parley.person("root")
    async with parley.parley.database.connection() as db:
        await db.execute("update users set roles = '{admin}' where user_id = $1", person.user_id)
    return person


async def report(by: Person, kind: str, id_: str, **fields: Any) -> dict[str, Any]:
    payload = {"subject": {"kind": kind, "id": id_}, "reason": "spam", "client_id": uuid4().hex, **fields}
    filed: dict[str, Any] = await by.post("report:file", **payload)
    return filed


async def refused(person: Person, command: str, **payload: Any) -> dict[str, Any]:
    with pytest.raises(Refusal) as refusal:
        await person.post(command, **payload)
    error: dict[str, Any] = refusal.value.error
    return error


async def say(person: Person, chat: str, text: str) -> str:
    sent = await person.post("message:send", conversation_id=chat, client_id=uuid4().hex, text=text)
    return str(sent["message_id"])


# filed


async def test_a_person_a_conversation_and_a_message_are_reported(
    amina: Person, bilal: Person, their_chat: str
) -> None:
    subjects = {"user": bilal.user_id, "conversation": their_chat, "message": await say(bilal, their_chat, "buy!")}
    for kind, id_ in subjects.items():
        filed = await report(amina, kind, id_, text="look at that")
        assert filed.keys() == REPORT
        assert filed["subject"] == {"kind": kind, "id": id_}
        assert (filed["reason"], filed["text"]) == ("spam", "look at that")
        assert (filed["status"], filed["resolution"], filed["resolved_at"]) == ("open", None, None)
    assert (await report(amina, "user", bilal.user_id))["text"] is None


@pytest.mark.both_postgres
async def test_what_one_does_not_see_one_does_not_report(
    parley: Instance, amina: Person, bilal: Person, their_chat: str
) -> None:
    carim, gone = await parley.person("carim"), await parley.person("gone")
    group = await parley.chat(amina, bilal, kind="group")
    before = await say(amina, group, "before")
    await amina.post("participant:add", conversation_id=group, user_id=carim.user_id)
    after = await say(amina, group, "after")
    assert (await report(carim, "message", after))["status"] == "open"
    with pytest.raises(Refusal, match="not_found"):
        await report(carim, "message", before)
    async with parley.parley.database.connection() as db:
        await db.execute("update users set status = 'deleted' where user_id = $1", gone.user_id)
    unseen = [("conversation", their_chat), ("message", await say(bilal, their_chat, "secret"))]
    unseen += [("user", gone.user_id), ("user", group), ("message", bilal.user_id)]
    unseen += [(kind, str(uuid4())) for kind in ("user", "conversation", "message")]
    await amina.post("participant:remove", conversation_id=group, user_id=carim.user_id)
    unseen += [("conversation", group), ("message", after)]
    errors = [
        await refused(carim, "report:file", subject={"kind": kind, "id": id_}, reason="spam", client_id=uuid4().hex)
        for kind, id_ in unseen
    ]
    assert errors == [errors[0]] * len(unseen)
    assert errors[0]["code"] == "not_found"


async def test_a_report_is_filed_once_for_its_client_id(
    root: Person, amina: Person, bilal: Person, their_chat: str
) -> None:
    filed = await report(amina, "user", bilal.user_id, client_id="one")
    assert await report(amina, "user", bilal.user_id, client_id="one") == filed
    error = await refused(
        amina, "report:file", subject={"kind": "conversation", "id": their_chat}, reason="spam", client_id="one"
    )
    assert (error["code"], error["reason"], error["current"]) == ("conflict", "key_reuse", filed)
    closed = await root.post("report:resolve", report_id=filed["report_id"], resolution="done")
    again = await report(amina, "user", bilal.user_id, client_id="one")
    assert again == {name: closed[name] for name in REPORT}
    assert (await report(bilal, "user", amina.user_id, client_id="one"))["report_id"] != filed["report_id"]


async def ask(person: Person, listing: dict[str, Any], text: str) -> str:
    asked = await person.post("faq:ask", listing_id=listing["listing_id"], text=text, client_id=uuid4().hex)
    return str(asked["faq_id"])


@pytest.mark.both_postgres
async def test_listings_and_what_is_asked_about_them_are_reported_while_they_are_seen(
    parley: Instance, root: Person, amina: Person, bilal: Person
) -> None:
    seller = await parley.register("seller")
    thread = await thread_of(amina)
    here, lamp = await listed(amina, thread_id=thread), await listed(seller)
    about_here, about_lamp = await ask(bilal, here, "Is it real?"), await ask(seller, lamp, "Who wants it?")
    subjects = [
        ("listing", here["listing_id"]),
        ("faq", about_here),
        ("listing", lamp["listing_id"]),
        ("faq", about_lamp),
    ]
    filed = [await report(bilal, kind, id_) for kind, id_ in subjects]
    assert [one["subject"] for one in filed] == [{"kind": kind, "id": id_} for kind, id_ in subjects]

    async def shown() -> list[dict[str, Any]]:
        found = {one["report_id"]: one for one in (await root.post("report:list", limit=50))["reports"]}
        return [{name: found[one["report_id"]][name] for name in LISTED} for one in filed]

    nothing = dict.fromkeys(LISTED)
    everybodys = {key: value for key, value in lamp.items() if key not in ("liked", "distance_m")}
    [faq] = (await bilal.post("faq:list", listing_id=here["listing_id"]))["faqs"]
    about = await shown()
    assert about[1:3] == [nothing | {"faq": faq}, nothing | {"listing": everybodys}]
    await amina.post("thread:delete", thread_id=thread)
    await seller.post("account:delete", password=PASSWORD)
    await parley.parley.jobs.empty_threads()
    assert await shown() == [nothing] * 4
    unseen = [*subjects, ("faq", lamp["listing_id"]), ("listing", about_lamp), ("listing", str(uuid4()))]
    errors = [
        await refused(bilal, "report:file", subject={"kind": kind, "id": id_}, reason="spam", client_id=uuid4().hex)
        for kind, id_ in unseen
    ]
    assert {error["code"] for error in errors} == {"not_found"}


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"reason": ""}, "invalid"),
        ({"reason": "x" * 101}, "too_large"),
        ({"text": "x" * 2_001}, "too_large"),
        ({"subject": {"kind": "offer", "id": str(uuid4())}}, "invalid"),
        ({"subject": {"kind": "user", "id": str(uuid4()), "color": "red"}}, "invalid"),
        ({"subject": "user"}, "invalid"),
        ({"client_id": ""}, "invalid"),
    ],
)
async def test_a_report_is_bounded(amina: Person, bilal: Person, fields: dict[str, Any], code: str) -> None:
    payload = {"subject": {"kind": "user", "id": bilal.user_id}, "reason": "spam", "client_id": "x", **fields}
    assert (await refused(amina, "report:file", **payload))["code"] == code


# closed


async def test_administrators_alone_see_and_close_reports(root: Person, amina: Person, bilal: Person) -> None:
    filed = await report(amina, "user", bilal.user_id)
    for person in (amina, bilal):
        assert (await refused(person, "report:list"))["code"] == "forbidden"
        for report_id in (filed["report_id"], str(uuid4())):
            error = await refused(person, "report:resolve", report_id=report_id, resolution="no")
            assert error["code"] == "forbidden"
    assert (await refused(root, "report:resolve", report_id=str(uuid4()), resolution="no"))["code"] == "not_found"


@pytest.mark.parametrize(("dismiss", "status"), [(False, "resolved"), (True, "dismissed")])
async def test_a_report_is_closed_once(root: Person, amina: Person, bilal: Person, dismiss: bool, status: str) -> None:
    filed = await report(amina, "user", bilal.user_id, text="look")
    asked = {"report_id": filed["report_id"], "resolution": "spoken to", "dismiss": dismiss}
    closed = await root.post("report:resolve", **asked)
    assert closed.keys() == REPORT | FILED
    assert closed == filed | {
        "reporter_id": amina.user_id,
        "resolved_by": root.user_id,
        "status": status,
        "resolution": "spoken to",
        "resolved_at": closed["resolved_at"],
    }
    assert closed["resolved_at"] >= closed["at"]
    assert await root.post("report:resolve", **asked) == closed
    for other in ({"resolution": "shot"}, {"dismiss": not dismiss}):
        error = await refused(root, "report:resolve", **{**asked, **other})
        assert (error["code"], error["reason"], error["current"]) == ("conflict", "version", closed)


async def test_reports_are_listed_the_newest_first_page_by_page(root: Person, amina: Person, bilal: Person) -> None:
    filed = [(await report(amina, "user", bilal.user_id))["report_id"] for _ in range(5)]
    await root.post("report:resolve", report_id=filed[1], resolution="done")
    await root.post("report:resolve", report_id=filed[2], resolution="nothing", dismiss=True)

    async def listed(**asked: Any) -> list[str]:
        """The reports of this test, by pages of two."""
        ids: list[str] = []
        before = None
        while True:
            page = await root.post("report:list", limit=2, **asked, **({"before": before} if before else {}))
            assert all(one.keys() == REPORT | FILED | LISTED for one in page["reports"])
            ids += [one["report_id"] for one in page["reports"]]
            before = page["next"]
            if before is None or ids[-1] < filed[0]:
                return [id_ for id_ in ids if id_ in filed]
            assert len(page["reports"]) == 2

    assert await listed() == filed[::-1]
    assert await listed(status="open") == [filed[4], filed[3], filed[0]]
    assert await listed(status="resolved") == [filed[1]]
    assert await listed(status="dismissed") == [filed[2]]
    assert (await refused(root, "report:list", limit=101))["code"] == "too_large"
    assert (await refused(root, "report:list", before="nowhere"))["code"] == "invalid"


async def test_administrators_see_what_a_report_is_about_as_it_is_now(
    parley: Instance, root: Person, amina: Person, bilal: Person
) -> None:
    group = await parley.chat(amina, bilal, kind="group", title="Bicycles")
    said = await say(bilal, group, "buy!")
    gone = await parley.person("gone")
    subjects = [("message", said), ("message", said), ("conversation", group), ("user", bilal.user_id)]
    filed = [await report(amina, kind, id_) for kind, id_ in [*subjects, ("user", gone.user_id)]]

    async def listed() -> list[dict[str, Any]]:
        found = {one["report_id"]: one for one in (await root.post("report:list", limit=50))["reports"]}
        return [found[one["report_id"]] for one in filed]

    nothing = dict.fromkeys(LISTED)
    about = [{name: one[name] for name in LISTED} for one in await listed()]
    [message] = (await amina.post("message:history", conversation_id=group))["messages"]
    header = {"conversation_id": group, "kind": "group", "title": "Bicycles"}
    profile = await amina.post("user:get", user_id=bilal.user_id)
    assert about[0] == about[1] == nothing | {"message": message}
    assert about[2] == nothing | {"conversation": header}
    assert about[3] == nothing | {"user": profile}
    await bilal.post("message:edit", message_id=said, text="sell!", version=1)
    await amina.post("conversation:update", conversation_id=group, title="Boats", version=1)
    async with parley.parley.database.connection() as db:
        await db.execute("update users set status = 'deleted' where user_id = $1", gone.user_id)
    reports = await listed()
    assert reports[0]["message"]["text"] == "sell!"
    assert reports[2]["conversation"]["title"] == "Boats"
    assert reports[4]["user"] is None
    await bilal.post("message:delete", message_id=said)
    assert [one["message"] for one in (await listed())[:2]] == [None, None]
