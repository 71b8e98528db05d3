"""Three people who also list, ask, haggle, deal and review, and what their phones should show of it then."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Collection, Sequence
from typing import Any
from uuid import uuid4

from rules.matches import LEAST
from server.app import Parley
from tests.convergence.phone import Object, Phone
from tests.convergence.trader import ON_DISPLAY, Trader, listing_room, plain
from tests.convergence.world import Member, Step, World, differing
from tests.market import eur
from tests.people import Instance, Person
from tests.servers import execute, fetch

PRICES = (4_000, 7_000, 9_000, 10_000)
LETTERS = str.maketrans(string.hexdigits[:16], string.ascii_lowercase[:16])
ACTIONS = ("viewed", "interested", "contacted", "interested", "dismissed", "reported")
RULES = ((9_000, 5_000, 700), (None, 5_000, None), (None, None, 900))

_OVER = "now() - interval '1 second' where"
LATE = {
    "negotiation": f"update offers set expires_at = {_OVER} status = 'pending' and negotiation_id =",
    "deal": f"update transactions set pay_by = {_OVER} status = 'pending' and transaction_id =",
    "listing": f"update listings set expires_at = {_OVER} status in ('active', 'reserved') and listing_id =",
}
"""Something's time is over, and nobody has looked."""


class Bazaar(World):
    """One run. Whoever acts goes by what the phone in their hand shows."""

    phone_kind = Trader

    def __init__(self, instances: Sequence[Instance], root: Person) -> None:
        super().__init__(instances, root)
        self.listings: list[str] = []
        self.owners: dict[str, str] = {}
        self.in_threads: dict[str, str] = {}
        self.threads: list[str] = []
        self.ever_apart: set[frozenset[str]] = set()
        # Two of a title, one wanted and one for sale, belong together: those of this run.
        self._titles = [uuid4().hex.translate(LETTERS) for _ in range(2)]
        self._open: set[str] = set()
        self._gone: set[str] = set()
        self._emptied: set[str] = set()

    async def begin(self) -> None:
        """As in the world, with something wanted and something for sale, in a thread and outside."""
        await super().begin()
        await self.open_thread(Step("open_thread"))
        await self.join_thread(Step("join_thread", 1))
        await self.list_ware(Step("list_ware", 0, a=0, b=1))
        await self.list_ware(Step("list_ware", 1, a=0, b=0, on=False))

    # what there is, to who acts

    def _phone(self, step: Step) -> Trader:
        phone = self.members[step.who].phones[step.by % 2]
        assert isinstance(phone, Trader)
        return phone

    def chat(self, step: Step) -> str:
        """One of those that there were at first, or that the phone in hand shows: about wares, of threads."""
        known = [*self.chats, *sorted(self._phone(step).chats)]
        return known[(step.a + step.b) % len(known)]

    def listing(self, step: Step) -> str:
        """One of the listings, whosever it is."""
        return self.listings[step.a % len(self.listings)]

    def thread(self, step: Step) -> str:
        """One of the threads, whoever has joined it."""
        return self.threads[step.a % len(self.threads)]

    def _version(self, step: Step, listing_id: str) -> int:
        ware = self._phone(step).wares.get(listing_id)
        return int(ware.told["version"]) if ware else 1

    @staticmethod
    def _one(step: Step, known: dict[str, Object]) -> Object | None:
        """One of what a phone shows, None where it shows nothing."""
        return known[sorted(known)[-1 - step.a % len(known)]] if known else None

    # threads

    async def open_thread(self, step: Step) -> None:
        payload = {"title": f"Thread {step.b}", "category": "home_decor", "client_id": self.key()}
        made = await self.call(step, "thread:create", **payload)
        self.threads += [made["thread_id"]] if made else []

    async def join_thread(self, step: Step) -> None:
        await self.call(step, "thread:join", thread_id=self.thread(step))

    async def leave_thread(self, step: Step) -> None:
        await self.call(step, "thread:leave", thread_id=self.thread(step))

    async def retitle(self, step: Step) -> None:
        known = self._phone(step).threads.get(self.thread(step))
        version = known["version"] if known else 1
        await self.call(
            step, "thread:update", thread_id=self.thread(step), version=version, title=f"Thread {step.b}",
            description=None if step.on else "All of it.",
        )  # fmt: skip

    async def favor(self, step: Step) -> None:
        await self.call(step, "thread:favorite", thread_id=self.thread(step), on=step.on)

    async def delete_thread(self, step: Step) -> None:
        await self.call(step, "thread:delete", thread_id=self.thread(step))

    async def say(self, step: Step) -> None:
        """Something is said in a thread."""
        said = {"conversation_id": self.thread(step), "client_id": self.key(), "text": f"text {step.b}"}
        await self._send(step, said)

    # listings

    async def list_ware(self, step: Step) -> None:
        """Something is wanted (b=0, 4) or for sale, in a thread or outside; a phone of each looks at it."""
        payload: Object = {
            "kind": "for_sale" if step.b % 4 else "wtb",
            "title": self._titles[step.a % 2],
            "description": "As it is.",
            "price": eur(PRICES[-1]),
            "category": "home_decor",
            "quantity": 1 + step.b % 3,
            "client_id": self.key(),
        }
        if step.on and step.b % 4:
            payload["thread_id"] = self.thread(step)
        made = await self.call(step, "listing:create", **payload)
        if made is not None:
            self.listings.append(made["listing_id"])
            self.owners[made["listing_id"]] = made["user_id"]
            self.in_threads[made["listing_id"]] = made["thread_id"]
            for member in self.members:
                phone = member.phones[step.b % 2]
                if phone.is_connected and isinstance(phone, Trader):
                    phone.look_at(made["listing_id"])

    async def watch(self, step: Step) -> None:
        phone = self._phone(step)
        if phone.is_connected:
            phone.look_at(self.listing(step))

    async def edit_ware(self, step: Step) -> None:
        listing_id = self.listing(step)
        changes: list[Object] = [
            {"price": eur(PRICES[step.b % 4])},
            {"title": self._titles[step.b // 2 % 2]},
            {"quantity": 1 + step.b % 3},
            {"location": {"lat": 52.5, "lng": 13.4} if step.on else None},
        ]
        version = self._version(step, listing_id)
        await self.call(step, "listing:update", listing_id=listing_id, version=version, **changes[step.b % 4])

    async def close_ware(self, step: Step) -> None:
        await self.call(step, "listing:close", listing_id=self.listing(step))

    async def extend_ware(self, step: Step) -> None:
        ends_at = f"{'2027-01' if step.on else '2027-02'}-0{1 + step.b}T00:00:00.000Z"
        await self.call(step, "listing:extend", listing_id=self.listing(step), expires_at=ends_at)

    async def like(self, step: Step) -> None:
        await self.call(step, "listing:like", listing_id=self.listing(step), on=step.on)

    # questions

    async def ask(self, step: Step) -> None:
        await self.call(
            step, "faq:ask", listing_id=self.listing(step), text=f"Question {step.b}?", client_id=self.key()
        )

    async def answer(self, step: Step) -> None:
        await self._say_more(step, "faq:answer", "question")

    async def reply(self, step: Step) -> None:
        await self._say_more(step, "faq:reply", None)

    async def _say_more(self, step: Step, command: str, type_: str | None) -> None:
        if (faq := self._faq(step, type_)) is not None:
            await self.call(step, command, parent_id=faq["faq_id"], text=f"More {step.b}.", client_id=self.key())

    async def accept_answer(self, step: Step) -> None:
        if (faq := self._faq(step, "answer")) is not None:
            await self.call(step, "faq:accept", faq_id=faq["faq_id"])

    def _faq(self, step: Step, type_: str | None) -> Object | None:
        faqs = {
            faq_id: faq
            for ware in self._phone(step).wares.values()
            for faq_id, faq in ware.faqs.items()
            if type_ in (None, faq["type"])
        }
        return self._one(step, faqs)

    # matches, offers, deals

    async def act(self, step: Step) -> None:
        if (found := self._one(step, self._phone(step).stall.matches)) is not None:
            action = ACTIONS[step.b % len(ACTIONS)]
            await self.call(step, "match:act", match_id=found["match_id"], action=action, metadata={"n": step.b})

    async def offer(self, step: Step) -> None:
        listing_id = self.listing(step)
        payload = {"listing_id": listing_id, "price": eur(PRICES[step.b % 4]), "quantity": 1 + step.b // 4}
        ware = self._phone(step).wares.get(listing_id)
        if ware is not None and ware.told["user_id"] == self.members[step.who].user_id:
            payload["buyer_id"] = self.other(step)
        twice = [step, Step("", step.who, 2, step.a + 1)] if step.on else [step]
        payload |= {"listing_version": self._version(step, listing_id), "client_id": self.key(), "message": "Please."}
        made = await asyncio.gather(*(self.call(one, "offer:make", **payload) for one in twice))
        ids = {one["offer"]["offer_id"] for one in made if one}
        assert len(ids) <= 1, f"made twice: {made}"

    async def counter(self, step: Step) -> None:
        await self._move(step, "counter", price=eur(PRICES[step.b % 4] + 100), client_id=self.key())

    async def accept(self, step: Step) -> None:
        await self._move(step, "accept")

    async def decline(self, step: Step) -> None:
        await self._move(step, "decline")

    async def withdraw(self, step: Step) -> None:
        await self._move(step, "withdraw")

    async def _move(self, step: Step, how: str, **more: Any) -> None:
        """Move what is on the table as far as the phone knows: of those that wait for its side, or of its own."""
        mine = how == "withdraw"
        known = {
            key: each
            for key, each in self._phone(step).stall.negotiations.items()
            if (offer := each["current_offer"])
            and offer["status"] == "pending"
            and (offer["maker_id"] == self.members[step.who].user_id) == mine
        }
        if (found := self._one(step, known)) is not None:
            offer = found["current_offer"]
            await self.call(step, f"offer:{how}", offer_id=offer["offer_id"], version=offer["version"], **more)

    async def decline_all(self, step: Step) -> None:
        below = {"below": eur(PRICES[step.b % 4])} if step.on else {}
        await self.call(step, "offer:decline_all", listing_id=self.listing(step), **below)

    async def set_rule(self, step: Step) -> None:
        given = dict(zip(("accept_at", "decline_below", "counter_step"), RULES[step.b % 3], strict=True))
        money = {name: eur(amount) for name, amount in given.items() if amount is not None}
        await self.call(step, "autorule:set", listing_id=self.listing(step), enabled=step.on, **money)

    async def buy(self, step: Step) -> None:
        listing_id = self.listing(step)
        version = self._version(step, listing_id)
        await self.call(step, "listing:buy", listing_id=listing_id, version=version, client_id=self.key())

    async def confirm(self, step: Step) -> None:
        await self._settle_deal(step, "confirm", "pending")

    async def cancel(self, step: Step) -> None:
        await self._settle_deal(step, "cancel", "pending")

    async def refund(self, step: Step) -> None:
        await self._settle_deal(step, "refund", "completed")

    def _deal(self, step: Step, status: str) -> Object | None:
        deals = self._phone(step).stall.deals
        return self._one(step, {key: each for key, each in deals.items() if each["status"] == status})

    async def _settle_deal(self, step: Step, how: str, status: str) -> None:
        if (deal := self._deal(step, status)) is not None:
            asked = {"transaction_id": deal["transaction_id"], "version": deal["version"]}
            await self.call(step, f"transaction:{how}", **asked)

    async def review(self, step: Step) -> None:
        if (deal := self._deal(step, "completed")) is not None:
            asked = {"transaction_id": deal["transaction_id"], "rating": 1 + step.b % 5, "client_id": self.key()}
            await self.call(step, "review:create", **asked, text=f"Review {step.b}.")

    async def block(self, step: Step) -> None:
        if step.on:
            self.ever_apart.add(frozenset((self.members[step.who].user_id, self.other(step))))
        await super().block(step)

    async def run_out(self, step: Step) -> None:
        """Something's time is over, and the clock looks."""
        stall = self._phone(step).stall
        if step.b % 4 == 0:
            found = self.listing(step)
            await execute(self.instances[0].dsn, f"{LATE['listing']} '{found}'")
        elif step.b % 2:
            if (one := self._one(step, stall.negotiations)) is not None:
                await execute(self.instances[0].dsn, f"{LATE['negotiation']} '{one['negotiation_id']}'")
        elif (one := self._one(step, stall.deals)) is not None:
            await execute(self.instances[0].dsn, f"{LATE['deal']} '{one['transaction_id']}'")
        await self._look_at_the_clock(self.instances[step.a % 2].parley)

    async def _look_at_the_clock(self, parley: Parley) -> None:
        jobs = parley.jobs
        for look in (jobs.expire_offers, jobs.expire_listings, jobs.lapse_deals):
            await look()
        for look in (jobs.empty_threads, jobs.match_listings):
            await look()

    # what all of it comes to

    async def check(self, step: Step) -> None:
        """As in the world, when all that follows behind the answers has been done."""
        await self._settle()
        for instance in self.instances:
            await instance.parley.dispatcher.drained()
            await self._look_at_the_clock(instance.parley)
        self._open = await self._ids("select listing_id::text from listings where status = 'active'")
        self._emptied = await self._ids("select thread_id::text from threads where deleted_at is not null")
        self._gone = await self._ids("select user_id::text from users where status = 'deleted'")
        await super().check(step)

    async def _ids(self, sql: str) -> set[str]:
        return {row[0] for row in await fetch(self.instances[0].dsn, sql)}

    async def heads(self, fresh: Phone, member: Member) -> dict[str, int]:
        """Of the listings that their phones look at too, which the fresh one looks at now."""
        heads = await super().heads(fresh, member)
        assert isinstance(fresh, Trader)
        for listing_id in {each for phone in member.phones if isinstance(phone, Trader) for each in phone.wares}:
            await fresh.watch(listing_id)
            found = await fetch(self.instances[0].dsn, f"select last_seq from rooms where room_id = '{listing_id}'")
            if found:
                heads[listing_room(listing_id)] = found[0][0]
        return heads

    async def _check_lists(self, fresh: Phone) -> None:
        """As in the world; the list of threads has those that one stands in, a negotiation's history what was said."""
        await super()._check_lists(fresh)
        assert isinstance(fresh, Trader)
        listed = await fresh.listed("thread:list", "thread_id", joined=True)
        assert {key: plain(each) for key, each in listed.items()} == fresh.threads
        for key, each in fresh.stall.negotiations.items():
            said = (message["offer"] for message in fresh.chats[each["conversation_id"]].messages.values())
            offers = {offer["round"]: offer for offer in said if offer and offer["negotiation_id"] == key}
            history = (await fresh.ask("negotiation:history", negotiation_id=key))["offers"]
            assert [offers.get(n) for n in range(1, len(offers) + 1)] == history

    def differences(self, phone: Phone, fresh: Phone, apart: Collection[frozenset[str]]) -> list[str]:
        """Of the market too."""
        assert isinstance(phone, Trader)
        assert isinstance(fresh, Trader)
        shown, is_ = phone.stall, fresh.stall
        found = super().differences(phone, fresh, apart)
        found += differing("negotiation", shown.negotiations, is_.negotiations)
        found += differing("deal", shown.deals, is_.deals)
        found += differing("mutual match", shown.mutuals, is_.mutuals)
        found += differing("review", self._said(shown.reviews), self._said(is_.reviews))
        found += self._differing_matches(shown.matches, is_.matches)
        joined = {key: self._thread(phone, key) for key in phone.threads.keys() & phone.chats.keys()}
        found += differing("thread", joined, fresh.threads)
        for thread_id in joined.keys() & fresh.shelves.keys():
            shelf = phone.shelves[thread_id].items()
            displayed = {key: each for key, each in shelf if each["status"] in ON_DISPLAY}
            found += differing(f"on display in {thread_id}", displayed, fresh.shelves[thread_id])
        for listing_id, ware in phone.wares.items():
            if (whole := fresh.wares.get(listing_id)) is None:
                found += [f"{listing_id} is gone, shown as {ware.told}"] if ware.told["status"] != "closed" else []
            else:
                found += differing("listing", {listing_id: ware.told}, {listing_id: whole.told})
                found += differing(f"asked about {listing_id}", self._said(ware.faqs), self._said(whole.faqs))
        return found

    def _said(self, known: dict[str, Object]) -> dict[str, Object]:
        """What people said, without the words of those who are gone: they are taken out of the log, and not told."""
        return {
            key: {**each, "text": None} if {each.get("user_id"), each.get("author_id")} & self._gone else each
            for key, each in known.items()
        }

    @staticmethod
    def _thread(phone: Trader, thread_id: str) -> Object:
        """A thread as it is shown: its members are counted by who has come and gone."""
        return {**phone.threads[thread_id], "member_count": len(phone.chats[thread_id].people)}

    def _differing_matches(self, shown: dict[str, Object], is_: dict[str, Object]) -> list[str]:
        """Every match that is listed is shown as it is, but for those that nothing tells; and the other way around.

        One under 40 points, or with a listing that is over, is not listed any more. Of what they have dismissed nobody
        hears how much it is worth by now. Nobody hears of matches with whom a block stands between, and of what has
        stood in a deleted thread while it is emptied.
        """
        hidden = {key for key, each in shown.items() if key not in is_ and self._is_over(each)}
        untold = {key for key, each in (shown | is_).items() if self._is_untold(each)}
        sides = [
            {
                key: {"status": "dismissed"} if each["status"] == "dismissed" else each
                for key, each in side.items()
                if key not in hidden | untold
            }
            for side in (shown, is_)
        ]
        return differing("match", *sides)

    def _is_over(self, match: Object) -> bool:
        return match["score"] < LEAST or not {match["source_listing"], match["matched_listing"]} <= self._open

    def _is_untold(self, match: Object) -> bool:
        pair = match["source_listing"], match["matched_listing"]
        is_apart = frozenset(self.owners[listing_id] for listing_id in pair) in self.ever_apart
        return is_apart or any(self.in_threads[listing_id] in self._emptied for listing_id in pair)


class SlowBazaar(Bazaar):
    """One run in which whoever acts has heard all that has happened, so that every step finds what it is about."""

    async def before(self, step: Step) -> None:
        phone = self._phone(step)
        if phone.is_connected:
            rooms = [phone.me, *phone.chats, *phone.wares]
            ids = ", ".join(f"'{room}'" for room in rooms)
            sql = f"select kind || ':' || room_id, last_seq from rooms where room_id in ({ids})"
            await phone.reaches(dict(await fetch(self.instances[0].dsn, sql)))
