"""A phone that trades: what it shows of the market it has from a snapshot, then pushes, and nothing else.

- threads: `thread:changed`; their members: `member:joined`, `member:left`; what is for sale there: `listing:created`,
  `changed`, `sold`, `expired`, `closed`.
- a listing that it looks at, in the listing's own room: the same pushes; what was asked: `faq:posted`, `faq:accepted`.
- the desk: `negotiation:changed`; an offer in its conversation's message: `offer:changed`. The higher version holds.
- deals: `transaction:changed`; matches: `match:found`, `match:changed`, `match:mutual`; reviews: `review:created`.

Views and likes are counted in batches and told by nobody; `liked` and `favorite` are one's own, and have no push.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.convergence.phone import LIST_PAGE, MARKS, Chat, Object, Phone
from tests.people import Refusal, unwrap

ON_DISPLAY = ("active", "reserved")
UNTOLD = {"views", "likes", "liked", "distance_m", "joined", "favorite", "rivals"}


def plain(shown: Object) -> Object:
    """An object without what no push tells."""
    return {name: value for name, value in shown.items() if name not in UNTOLD}


def listing_room(listing_id: str) -> str:
    """The room of a listing."""
    return f"listing:{listing_id}"


@dataclass
class Ware:
    """A listing that is looked at, and what was asked about it."""

    told: Object
    position: int
    faqs: dict[str, Object] = field(default_factory=dict)

    def post(self, faq: Object) -> None:
        """Take what was asked or answered; of a question's answers one is accepted."""
        if faq["is_accepted"]:
            for faq_id, known in self.faqs.items():
                if known["parent_id"] == faq["parent_id"]:
                    self.faqs[faq_id] = {**known, "is_accepted": False}
        self.faqs[faq["faq_id"]] = faq


@dataclass
class Stall:
    """What one's own room tells of the market, each by its id."""

    negotiations: dict[str, Object] = field(default_factory=dict)
    deals: dict[str, Object] = field(default_factory=dict)
    matches: dict[str, Object] = field(default_factory=dict)
    mutuals: dict[str, Object] = field(default_factory=dict)
    reviews: dict[str, Object] = field(default_factory=dict)

    def hear(self, name: str, payload: Object, me: str) -> None:
        """Take a push of one's own room."""
        if name == "negotiation:changed":
            _keep_newer(self.negotiations, payload["negotiation_id"], plain(payload))
        elif name == "transaction:changed":
            _keep_newer(self.deals, payload["transaction_id"], payload)
        elif name in ("match:found", "match:changed"):
            self.matches[payload["match_id"]] = match(payload)
        elif name == "match:mutual":
            self.mutuals[payload["mutual_match_id"]] = payload
        elif name == "review:created" and payload["subject_id"] == me:
            self.reviews[payload["review_id"]] = payload


def _keep_newer(known: dict[str, Object], key: str, told: Object) -> None:
    if key not in known or known[key]["version"] < told["version"]:
        known[key] = told


def match(told: Object) -> Object:
    """A match with its two listings' ids: what these say is told by the listings' own pushes."""
    return {**told, **{name: told[name]["listing_id"] for name in ("source_listing", "matched_listing")}}


class Trader(Phone):
    """A phone with the market on it. `shelves` are the listings of the threads it has joined."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stall = Stall()
        self.wares: dict[str, Ware] = {}
        self.threads: dict[str, Object] = {}
        self.shelves: dict[str, dict[str, Object]] = {}

    def watched(self) -> dict[str, int]:
        return {listing_room(listing_id): ware.position for listing_id, ware in self.wares.items()}

    def look_at(self, listing_id: str) -> None:
        """Look at a listing from here on, in the order of what comes."""
        self._inbox.put_nowait(("look at", listing_id, {}))

    # snapshots

    async def listed(self, command: str, key: str, **asked: Any) -> dict[str, Object]:
        """All pages of a list, by its objects' ids."""
        noun, before, found = key.removesuffix("_id"), None, {}
        name = {"reply": "replies", "match": "matches", "mutual_match": "mutual_matches"}.get(noun, f"{noun}s")
        while True:
            page = await self.ask(command, before=before, limit=LIST_PAGE, **asked)
            found |= {each[key]: each for each in page[name]}
            if (before := page["next"]) is None:
                return found

    async def _load_all(self) -> None:
        self.stall = await self._load_stall()  # first: the position is a head from before it
        await super()._load_all()

    async def _load_matches(self) -> dict[str, Object]:
        matches = await self.listed("match:list", "match_id")
        matches |= await self.listed("match:list", "match_id", status="dismissed")
        return {key: match(each) for key, each in matches.items()}

    async def _load_stall(self) -> Stall:
        negotiations = await self.listed("negotiation:list", "negotiation_id")
        return Stall(
            {key: plain(each) for key, each in negotiations.items()},
            await self.listed("transaction:list", "transaction_id"),
            await self._load_matches(),
            await self.listed("mutual:list", "mutual_match_id"),
            await self.listed("review:list", "review_id", user_id=self.me),
        )

    async def _read(self, conversation_id: str) -> Chat | None:
        chat = await super()._read(conversation_id)
        if chat is not None and conversation_id in self._threads:
            try:
                self.threads[conversation_id] = plain(await self.ask("thread:get", thread_id=conversation_id))
            except Refusal as refusal:
                if refusal.code != "not_found":
                    raise
                return None
            shelf = await self.listed("listing:search", "listing_id", thread_id=conversation_id)
            self.shelves[conversation_id] = {key: plain(each) for key, each in shelf.items()}
        return chat

    async def _load_ware(self, listing_id: str) -> None:
        """Load a listing; its position is a head from before it was read."""
        position = self.heads[listing_room(listing_id)]
        try:
            told = await self.ask("listing:get", listing_id=listing_id)
            faqs = await self.listed("faq:list", "faq_id", listing_id=listing_id)
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
            self.wares.pop(listing_id, None)
        else:
            self.wares[listing_id] = Ware(plain(told), position, faqs)

    async def watch(self, listing_id: str) -> None:
        """Stand in a listing's room, and look at it."""
        room = listing_room(listing_id)
        try:
            joined = unwrap(await self.call("room:join", {"room": room}))
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
            return
        self.asked.add("room:join")
        self.heads[room] = max(joined["head_seq"], self.heads.get(room, 0))
        await self._load_ware(listing_id)

    # pushes

    async def _take(self, name: str, payload: Any, meta: Any) -> None:
        if name == "look at" and not meta:
            self.heard.append(f"look at {payload}")
            await self.watch(payload)
        else:
            await super()._take(name, payload, meta)

    def _follows(self, room: str) -> bool:
        kind, _, listing_id = room.partition(":")
        return listing_id in self.wares if kind == "listing" else super()._follows(room)

    def _position(self, room: str) -> int | None:
        kind, _, listing_id = room.partition(":")
        if kind != "listing":
            return super()._position(room)
        return self.wares[listing_id].position if listing_id in self.wares else None

    async def _greet_watched(self, hello: Object) -> None:
        for listing_id in list(self.wares):
            room = listing_room(listing_id)
            if room not in self.heads:
                if room in self._named:
                    del self.wares[listing_id]
            elif room in hello["reset"]:
                await self._load_ware(listing_id)

    async def _load_room(self, room: str) -> None:
        kind, _, listing_id = room.partition(":")
        await (self._load_ware(listing_id) if kind == "listing" else super()._load_room(room))

    async def _apply(self, room: str, name: str, payload: Any, seq: int) -> None:
        kind, _, key = room.partition(":")
        if kind == "listing":
            self._apply_ware(self.wares[key], name, payload, seq)
            return
        await super()._apply(room, name, payload, seq)
        if kind == "thread":
            self._apply_thread(key, name, payload)
        elif name == "offer:changed":
            self._apply_offer(self.chats[key], payload)

    async def _apply_own(self, name: str, payload: Any, seq: int) -> None:
        await super()._apply_own(name, payload, seq)
        self.stall.hear(name, payload, self.me)
        if name == "member:left":
            self.chats.pop(payload["thread_id"], None)
        if name in ("participant:added", "member:left"):  # in which threads one is decides which matches one sees
            self.stall.matches = await self._load_matches()

    def _apply_ware(self, ware: Ware, name: str, payload: Object, seq: int) -> None:
        if name.startswith("listing:"):
            ware.told = plain(payload)
        elif name.startswith("faq:"):
            ware.post(payload)
        ware.position = seq

    def _apply_thread(self, thread_id: str, name: str, payload: Object) -> None:
        chat = self.chats[thread_id]
        if name == "thread:changed":
            self.threads[thread_id] = payload
            chat.shared |= {field: payload[field] for field in ("title", "version")}
        elif name == "member:joined":
            someone = {"user_id": payload["user_id"], "joined_seq": 0, **dict.fromkeys(MARKS, 0)}
            chat.people.setdefault(payload["user_id"], someone)
        elif name == "member:left":
            chat.people.pop(payload["user_id"], None)
        elif name.startswith("listing:"):
            self.shelves[thread_id][payload["listing_id"]] = plain(payload)
        if name == "thread:deleted" or (name == "member:left" and payload["user_id"] == self.me):
            del self.chats[thread_id]

    @staticmethod
    def _apply_offer(chat: Chat, offer: Object) -> None:
        """An offer stands in the message that said it as it is now."""
        for message in list(chat.messages.values()):
            known = message["offer"]
            if known and known["offer_id"] == offer["offer_id"] and known["version"] < offer["version"]:
                chat.keep({**message, "offer": offer})
