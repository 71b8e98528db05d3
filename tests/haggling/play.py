"""A listing, its seller and three buyers at two live servers, beside the model that says what should become of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from tests.haggling.model import BUYER, SELLER, Market, Negotiation, Offer, Refusals, Rule
from tests.market import eur, listed
from tests.people import Device, Instance, Person

BUYERS = 3
ROUNDS = 4  # of a negotiation: few, so that they are spent
PRICES = (4_000, 7_000, 8_000, 9_000)
ASKED = (10_000, 12_000, 8_500)
RULES = (
    Rule(9_000, 5_000, 700, None),
    Rule(None, 5_000, 1_500, 2),
    Rule(8_000, None, None, 3),
    Rule(None, None, 900, None),
    Rule(9_000, 5_000, 700, None, enabled=False),
)

Object = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """What is done: whose table, by which side, and two numbers that choose from what there is."""

    do: str
    who: int = 0
    is_buyer: bool = True
    a: int = 0
    b: int = 0


def same(what: str, shown: Any, expected: Any) -> None:
    """Raises AssertionError, with both, where they are not equal."""
    assert shown == expected, f"{what}: shown is\n{shown}\nand expected\n{expected}"


class Game:
    """One run. `trace` is what was asked and answered, `done` and `refused` count it."""

    def __init__(self, instances: Sequence[Instance]) -> None:
        self.instances = instances
        self.trace: list[str] = []
        self.done: list[str] = []
        self.refused: list[str] = []
        self._ids: dict[int, str] = {}  # of the model's objects

    async def begin(self, quantity: int) -> None:
        """Everybody is there, with a phone, and something is for sale."""
        self.seller = await self.instances[0].person("seller")
        self.buyers = [await self.instances[n % 2].person(f"buyer{n}") for n in range(BUYERS)]
        self.phones: dict[str, Device] = {}
        self.listing = await listed(self.seller, quantity=quantity, price=eur(ASKED[0]))
        self.listing_id: str = self.listing["listing_id"]
        self.market = Market(quantity, ASKED[0], ROUNDS)
        for person in (self.seller, *self.buyers):
            phone = self.phones[person.user_id] = await person.connect()
            await phone.call("room:join", room=self._room)

    async def end(self) -> None:
        """Everybody goes."""
        for phone in self.phones.values():
            await phone.leave()

    async def play(self, steps: Sequence[Step]) -> None:
        """Take the steps, looking at all that there is after each, and at what everybody has heard in the end."""
        for step in steps:
            self.trace.append(str(step))
            await getattr(self, step.do)(step)
            await self.compare()
        await self.compare_all()

    # the steps

    async def make(self, step: Step) -> None:
        buyer = self.buyers[step.who]
        side, person = (BUYER, buyer) if step.is_buyer else (SELLER, self.seller)
        price, quantity = PRICES[step.a], 1 + step.b % 2
        version = self.market.version - (step.b == 7)
        against = self.market.make(step.who, side, price, quantity, version)
        payload = {"listing_id": self.listing_id, "price": eur(price), "quantity": quantity, "listing_version": version}
        if side == SELLER:
            payload["buyer_id"] = buyer.user_id
        data = await self._ask(person, "offer:make", against, **payload, client_id=uuid4().hex)
        await self._show(data, self.market.of(step.who))

    async def counter(self, step: Step) -> None:
        await self._move(step, "counter", price=eur(PRICES[step.a]), client_id=uuid4().hex)

    async def accept(self, step: Step) -> None:
        await self._move(step, "accept")

    async def decline(self, step: Step) -> None:
        await self._move(step, "decline")

    async def withdraw(self, step: Step) -> None:
        await self._move(step, "withdraw")

    async def _move(self, step: Step, how: str, **more: Any) -> None:
        """Move a buyer's latest offer, or now and then one that was before, now and then by an older version."""
        at = self.market.of(step.who)
        if at is None or at.last is None:
            return
        offer = at.offers[-2] if step.b == 6 and len(at.offers) > 1 else at.last
        version = max(1, offer.version - (step.b in (4, 5)))
        side, person = (BUYER, self.buyers[step.who]) if step.is_buyer else (SELLER, self.seller)
        offer_id = self._ids[id(offer)]
        if how == "counter":
            against = self.market.counter(at, offer, side, version, PRICES[step.a], offer.quantity)
        else:
            against = getattr(self.market, how)(at, offer, side, version)
        data = await self._ask(person, f"offer:{how}", against, offer_id=offer_id, version=version, **more)
        await self._show(data, at, offer if how != "counter" else None)

    async def run_out(self, step: Step) -> None:
        """An offer's time is over, and nobody has looked."""
        at = self.market.of(step.who)
        if at is not None and at.pending is not None:
            at.pending.is_late = True
            sql = "update offers set expires_at = now() - interval '1 second' where offer_id = $1"
            await self._write(sql, self._ids[id(at.pending)])

    async def sweep(self, step: Step) -> None:
        self.market.sweep()
        await self.instances[step.a % 2].parley.jobs.expire_offers()

    async def edit(self, step: Step) -> None:
        version = self.market.version - (step.b == 7)
        price = ASKED[step.a % len(ASKED)]
        against = self.market.edit(price, version)
        await self._ask(
            self.seller, "listing:update", against, listing_id=self.listing_id, version=version, price=eur(price)
        )

    async def set_rule(self, step: Step) -> None:
        rule = self.market.rule = RULES[step.b % len(RULES)]
        given = {"accept_at": rule.accept_at, "decline_below": rule.decline_below, "counter_step": rule.step}
        money = {name: eur(amount) for name, amount in given.items() if amount is not None}
        if rule.most is not None:
            money["max_rounds"] = rule.most
        await self._ask(self.seller, "autorule:set", set(), listing_id=self.listing_id, enabled=rule.enabled, **money)

    async def decline_all(self, step: Step) -> None:
        below = PRICES[step.a] if step.is_buyer else None
        told = self.market.decline_all(below)
        more = {} if below is None else {"below": eur(below)}
        data = await self._ask(self.seller, "offer:decline_all", set(), listing_id=self.listing_id, **more)
        assert data == {"declined": told}, self.trace

    async def block(self, step: Step) -> None:
        one, other = (self.buyers[step.who], self.seller) if step.is_buyer else (self.seller, self.buyers[step.who])
        self.market.block(step.who)
        await self._ask(one, "user:block", set(), user_id=other.user_id)

    async def unblock(self, step: Step) -> None:
        buyer = self.buyers[step.who]
        self.market.blocked.discard(step.who)
        await self._ask(self.seller, "user:unblock", set(), user_id=buyer.user_id)
        await self._ask(buyer, "user:unblock", set(), user_id=self.seller.user_id)

    async def close(self, step: Step) -> None:
        if step.b == 7:  # seldom: nothing goes on after it
            await self._ask(self.seller, "listing:close", self.market.close(), listing_id=self.listing_id)

    async def buy(self, step: Step) -> None:
        version = self.market.version - (step.b == 7)
        against = self.market.buy(step.who, 1, version)
        payload = {"listing_id": self.listing_id, "version": version, "client_id": uuid4().hex}
        data = await self._ask(self.buyers[step.who], "listing:buy", against, **payload)
        if data is not None:
            self._ids[id(self.market.deals[-1])] = data["transaction"]["transaction_id"]

    async def confirm(self, step: Step) -> None:
        if self.market.deals:
            deal = self.market.deals[step.a % len(self.market.deals)]
            side, person = (BUYER, self.buyers[deal.buyer]) if step.is_buyer else (SELLER, self.seller)
            asked = {"transaction_id": self._ids[id(deal)], "version": deal.version}
            against = self.market.confirm(deal, side, deal.version)
            await self._ask(person, "transaction:confirm", against, **asked)

    async def cancel(self, step: Step) -> None:
        if self.market.deals:
            deal = self.market.deals[step.a % len(self.market.deals)]
            person = self.buyers[deal.buyer] if step.is_buyer else self.seller
            asked = {"transaction_id": self._ids[id(deal)], "version": deal.version}
            await self._ask(person, "transaction:cancel", self.market.cancel(deal, deal.version), **asked)

    async def lapse(self, step: Step) -> None:
        """The time to pay is over, and the clock looks."""
        waiting = [deal for deal in self.market.deals if deal.status == "pending"]
        if waiting:
            deal = waiting[step.a % len(waiting)]
            sql = "update transactions set pay_by = now() - interval '1 second' where transaction_id = $1"
            await self._write(sql, self._ids[id(deal)])
            self.market.lapse(deal)
            await self.instances[step.b % 2].parley.jobs.lapse_deals()

    # what is answered

    async def _ask(self, person: Person, command: str, against: Refusals, **payload: Any) -> Any:
        """The data of an answer, None where it is refused; either has to be as the model has it."""
        _, answer = await person.instance.post(command, payload, token=person.token)
        said = answer["data"] if answer["ok"] else answer["error"]
        self.trace.append(f"  {command} {payload} -> {'ok' if answer['ok'] else said}; expected {against or 'ok'}")
        if answer["ok"]:
            assert not against, f"{command} is ok, against it is {against}"
            self.done.append(command)
            return said
        reason = said["reason"] if said["code"] == "conflict" else said["code"]
        assert reason in against, f"{command} is refused for {reason}, expected {against or 'ok'}"
        self.refused.append(f"{command} {reason}")
        if "current" in said:
            await self._check_current(person, said["current"])
        return None

    async def _check_current(self, person: Person, current: Object) -> None:
        """What a conflict shows is what there is."""
        if "offer_id" in current and "price" in current:
            history = await person.post("negotiation:history", negotiation_id=current["negotiation_id"])
            assert current in history["offers"], f"no such offer: {current}"
        elif "turn" in current:
            fresh = await person.post("negotiation:get", negotiation_id=current["negotiation_id"])
            assert {**current, "rivals": None} == {**fresh, "rivals": None}
        elif "views" in current:
            fresh = await person.post("listing:get", listing_id=current["listing_id"])
            assert {**current, "views": 0} == {**fresh, "views": 0}

    async def _show(self, data: Any, at: Negotiation | None, offer: Offer | None = None) -> None:
        """What a move was answered with is what the model has."""
        if data is None or at is None:
            return
        self._ids.setdefault(id(at), data["negotiation"]["negotiation_id"])
        await self._learn(at)
        mine = offer
        if mine is None:  # the one just made, which a rule may have countered
            mine = next(each for each in at.offers if self._ids[id(each)] == data["offer"]["offer_id"])
            assert mine in at.offers[-2:]
        deals = [each for each in self.market.deals if each.negotiation is at and at.last is mine]
        if "transaction" in data and deals:  # the latest of them: who has cancelled one may agree again
            self._ids[id(deals[-1])] = data["transaction"]["transaction_id"]
        rivals = {"rivals": None}
        same("the offer", self._plain(data["offer"]), self._offer(at, mine))
        same("its negotiation", self._plain(data["negotiation"]) | rivals, self._negotiation(at) | rivals)

    async def _learn(self, at: Negotiation) -> None:
        """The ids of what the servers have made."""
        if any(id(offer) not in self._ids for offer in at.offers):
            history = await self.seller.post("negotiation:history", negotiation_id=self._ids[id(at)])
            assert len(history["offers"]) == len(at.offers), f"{len(at.offers)} offers were expected: {history}"
            for offer, shown in zip(at.offers, history["offers"], strict=True):
                self._ids[id(offer)] = shown["offer_id"]
        for deal in self.market.deals:
            if id(deal) not in self._ids and deal.negotiation is at:
                page = await self.seller.post("transaction:list")
                current = self._ids[id(at.last)]
                found = [each for each in page["transactions"] if each["offer_id"] == current]
                self._ids[id(deal)] = found[0]["transaction_id"]

    # what there is

    async def compare(self) -> None:
        """The seller's desk is the model's."""
        page = await self.seller.post("negotiation:list", listing_id=self.listing_id, limit=100)
        shown = [self._plain(each) for each in reversed(page["negotiations"])]
        same("the desk", shown, [self._negotiation(each) for each in self.market.negotiations])

    async def compare_all(self) -> None:
        """Everything is the model's, to all of them, and so is what they have heard."""
        for person in (self.seller, *self.buyers):
            n = None if person is self.seller else self.buyers.index(person)
            mine = [each for each in self.market.negotiations if n in (None, each.buyer)]
            page = await person.post("negotiation:list", limit=100)
            desk = list(reversed(page["negotiations"]))
            rivals = {} if n is None else {"rivals": None}
            same(
                "their desk", [self._plain(each) for each in desk], [self._negotiation(each) | rivals for each in mine]
            )
            offers: list[Object] = []
            for at, shown in zip(mine, desk, strict=True):
                history = await person.post("negotiation:history", negotiation_id=shown["negotiation_id"])
                expected = [self._offer(at, each) for each in at.offers]
                same("the history", [self._plain(each) for each in history["offers"]], expected)
                offers += history["offers"]
            phone = self.phones[person.user_id]
            await self._settle(phone, person, {each["conversation_id"] for each in desk})
            self._compare_heard(phone, desk, offers)
            await self._compare_deals(phone, person, n)
            await self._compare_listing(phone, person)

    def _compare_heard(self, phone: Device, desk: Sequence[Object], offers: Sequence[Object]) -> None:
        """A phone that began with nothing and took the pushes has what a fresh look shows, each offer said once."""
        heard = self._heard(phone, "negotiation:changed", "negotiation_id")
        same("heard of negotiations", heard, {o["negotiation_id"]: self._of(o) | {"rivals": None} for o in desk})
        heard = self._heard(phone, "offer:changed", "offer_id")
        same("heard of offers", heard, {each["offer_id"]: self._of(each) for each in offers})
        said = [push.payload["offer"]["offer_id"] for push in phone.heard if push.name == "message:created"]
        same("said", sorted(said), sorted(each["offer_id"] for each in offers))
        seqs: dict[str, list[int]] = {}
        for push in phone.heard:
            if push.room is not None and "seq" in push.meta:
                seqs.setdefault(push.room, []).append(push.seq)
        for room, found in seqs.items():
            same(room, found, list(range(found[0], found[0] + len(found))))

    async def _compare_deals(self, phone: Device, person: Person, n: int | None) -> None:
        page = await person.post("transaction:list", limit=100)
        deals = {each["transaction_id"]: each for each in page["transactions"]}
        same("heard of deals", self._heard(phone, "transaction:changed", "transaction_id"), deals)
        expected = {self._ids[id(o)]: (o.status, o.version) for o in self.market.deals if n in (None, o.buyer)}
        same("deals", {key: (each["status"], each["version"]) for key, each in deals.items()}, expected)

    async def _compare_listing(self, phone: Device, person: Person) -> None:
        market, listing = self.market, await person.post("listing:get", listing_id=self.listing_id)
        shown = [listing[name] for name in ("status", "reserved", "sold", "version", "price")]
        same("listing", shown, [market.status, market.reserved, market.sold, market.version, eur(market.price)])
        pushed = [push.payload for push in phone.heard if push.room == self._room]
        if pushed:
            last = {name: value for name, value in pushed[-1].items() if name != "views"}
            same("heard of the listing", last, {name: listing[name] for name in last})

    async def _settle(self, phone: Device, person: Person, conversations: set[str]) -> None:
        """Let a phone hear all that was said until now, in its person's room, their conversations and the listing's."""
        rooms = [*(f"conversation:{each}" for each in conversations), f"user:{person.user_id}", self._room]
        heads = await asyncio.gather(*(person.post("room:sync", room=room, after=0) for room in rooms))
        for room, synced in zip(rooms, heads, strict=True):
            if synced["head_seq"]:
                await phone.hearing_up_to(room, synced["head_seq"])

    def _heard(self, phone: Device, name: str, key: str) -> dict[str, Object]:
        """The last push of each object; where it is an offer, by its version."""
        found: dict[str, Object] = {}
        for push in phone.heard:
            if push.name == name:
                known = found.get(push.payload[key])
                assert known is None or known["version"] < push.payload["version"], f"{name} is pushed twice: {known}"
                found[push.payload[key]] = self._of(push.payload)
        return found

    # how things look

    @property
    def _room(self) -> str:
        return f"listing:{self.listing_id}"

    @staticmethod
    def _of(shown: Object) -> Object:
        """An object without the end of an offer, which is moved behind everybody's back."""
        plain = {name: value for name, value in shown.items() if name != "expires_at"}
        if plain.get("current_offer"):
            plain["current_offer"] = Game._of(plain["current_offer"])
        return plain

    @staticmethod
    def _plain(shown: Object) -> Object:
        """What the model has of an object: neither its times nor how often a negotiation has changed."""
        left_out = {"expires_at", "at", "conversation_id", *(["version"] if "turn" in shown else [])}
        plain = {name: value for name, value in shown.items() if name not in left_out}
        if plain.get("current_offer"):
            plain["current_offer"] = Game._plain(plain["current_offer"])
        return plain

    def _offer(self, at: Negotiation, offer: Offer) -> Object:
        buyer_id, seller_id = self.buyers[at.buyer].user_id, self.seller.user_id
        parent, changes = offer.parent, []
        if parent is not None:
            changes = [name for name in ("price", "quantity") if getattr(offer, name) != getattr(parent, name)]
        return {
            "offer_id": self._ids[id(offer)],
            "negotiation_id": self._ids[id(at)],
            "listing_id": self.listing_id,
            "listing_version": offer.listing_version,
            "maker_id": buyer_id if offer.maker == BUYER else seller_id,
            "buyer_id": buyer_id,
            "seller_id": seller_id,
            "price": eur(offer.price),
            "quantity": offer.quantity,
            "message": None,
            "status": offer.status,
            "close_reason": offer.reason,
            "by": offer.by,
            "parent_offer_id": None if parent is None else self._ids[id(parent)],
            "changes": changes,
            "round": offer.round,
            "version": offer.version,
        }

    def _negotiation(self, at: Negotiation) -> Object:
        rivals = [each for each in self.market.negotiations if each is not at and each.is_rival]
        return {
            "negotiation_id": self._ids[id(at)],
            "listing_id": self.listing_id,
            "buyer_id": self.buyers[at.buyer].user_id,
            "seller_id": self.seller.user_id,
            "status": at.status,
            "turn": at.turn,
            "round": len(at.offers),
            "rounds_left": at.left,
            "rivals": len(rivals),
            "current_offer": None if at.last is None else self._offer(at, at.last),
        }

    async def _write(self, sql: str, row_id: str) -> None:
        async with self.instances[0].parley.database.connection() as db:
            await db.execute(sql, UUID(row_id))
