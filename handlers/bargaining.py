"""What moves do to a negotiation, and how both sides hear of it: what offers, deals, blocks and the clock share.

Locks are taken in one order everywhere: people, listing, negotiations, offers, transactions, and, last and all at once,
rooms.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NoReturn
from uuid import UUID

import msgspec

from handlers.accounts import user_updated
from handlers.conversations import conversation_created, conversation_mine
from handlers.listings import rooms_of, tell_listing
from handlers.matching import match_mutual
from handlers.messages import message_created
from rules.listings import ListingStatus
from rules.offers import By, CloseReason, Move, Mover, NegotiationStatus, OfferStatus, Side, outcome
from server.commands.context import Work
from server.commands.registry import Push, push
from server.errors import Conflict
from server.rooms.names import Room, conversation_room, user_room
from storage import conversations, listings, matches, messages, negotiations, offers, transactions, users
from storage.listings import LockedListing, SharedListing
from storage.matches import MutualMatch
from storage.negotiations import LockedNegotiation, Negotiation
from storage.offers import LockedOffer, Offer, Terms
from storage.transactions import Transaction, TransactionRow

offer_changed = push("offer:changed", Offer, "An offer was made, or moved to another state.", rooms=("conversation",))
negotiation_changed = push(
    "negotiation:changed",
    Negotiation,
    "A negotiation stands otherwise: whose turn it is, how many rounds are left, what is on the table.",
    rooms=("user",),
)
transaction_changed = push("transaction:changed", Transaction, "A deal was made, paid, or has ended.", rooms=("user",))


class Changes:
    """What a transaction moves, gathered to be told at its end: all rooms are locked at once, and nothing after."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self._listing: tuple[LockedListing, Push[SharedListing]] | None = None
        self._negotiations: dict[UUID, LockedNegotiation] = {}
        self._offers: dict[UUID, LockedNegotiation] = {}
        self._made: list[tuple[UUID, UUID, LockedNegotiation]] = []
        self._opened: list[tuple[UUID, tuple[UUID, UUID]]] = []
        self._deals: dict[UUID, None] = {}
        self._counted: dict[UUID, None] = {}
        self._closed: list[UUID] = []
        self._along: list[tuple[Iterable[Room], Callable[[], Awaitable[None]]]] = []
        self._told_offers: dict[UUID, Offer] = {}
        self._told_negotiations: dict[UUID, Negotiation] = {}
        self._told_deals: dict[UUID | None, TransactionRow] = {}

    def opened(self, conversation_id: UUID, pair: tuple[UUID, UUID]) -> None:
        """Two people have a new conversation."""
        self._opened.append((conversation_id, pair))

    def sold(self, listing: LockedListing, how: Push[SharedListing]) -> None:
        """A listing has another stock or status."""
        self._listing = (listing, how)

    def dealt(self, transaction_id: UUID) -> None:
        """A deal was made, or stands otherwise."""
        self._deals[transaction_id] = None

    def counted(self, user_id: UUID) -> None:
        """What a party to a deal is known by, their sales or rating, has changed."""
        self._counted[user_id] = None

    def along(self, rooms: Iterable[Room], tell: Callable[[], Awaitable[None]]) -> None:
        """Something else is to be told, in these rooms, when all are locked."""
        self._along.append((rooms, tell))

    def touched(self, negotiation: LockedNegotiation) -> None:
        """A negotiation stands otherwise."""
        self._negotiations[negotiation.negotiation_id] = negotiation

    async def apply(
        self,
        negotiation: LockedNegotiation,
        offer: LockedOffer,
        mover: Mover,
        move: Move,
        *,
        by: By = By.PERSON,
        moved_by: UUID | None = None,
    ) -> LockedNegotiation:
        """Make a move that was judged and that the table of rules/offers.py has; the negotiation as it is then.

        `moved_by` is the person whose move it is, by which a repeat is recognised.
        """
        what = outcome(offer.status, mover, move)
        if what is None:
            raise LookupError(f"{mover} does not {move} what is {offer.status}")
        status, turn = what.standing(negotiation.rounds_left, negotiation.side_of(offer.maker_id))
        remembered = move if moved_by is not None else None
        await offers.move_offer(
            self.work.db, offer.offer_id, what.status, what.reason, by=by, moved_by=moved_by, move=remembered
        )
        await negotiations.advance(self.work.db, negotiation.negotiation_id, status, turn)
        self._offers[offer.offer_id] = negotiation
        self.touched(negotiation)
        if status is NegotiationStatus.CLOSED:
            self._closed.append(negotiation.negotiation_id)
        return msgspec.structs.replace(negotiation, status=status, turn=turn)

    async def put(
        self,
        negotiation: LockedNegotiation,
        offer_id: UUID,
        terms: Terms,
        *,
        maker_id: UUID,
        listing_version: int,
        parent_id: UUID | None = None,
        by: By = By.PERSON,
    ) -> LockedNegotiation:
        """Put an offer on the table: the other side's turn, a round on."""
        await offers.create_offer(
            self.work.db,
            offer_id,
            negotiation.negotiation_id,
            terms,
            listing_version=listing_version,
            maker_id=maker_id,
            by=by,
            parent_id=parent_id,
            round_=negotiation.round + 1,
        )
        turn = negotiation.side_of(maker_id).other()
        await negotiations.advance(
            self.work.db, negotiation.negotiation_id, NegotiationStatus.OPEN, turn, offer_id=offer_id
        )
        self._offers[offer_id] = negotiation
        self._made.append((offer_id, maker_id, negotiation))
        after = msgspec.structs.replace(
            negotiation,
            status=NegotiationStatus.OPEN,
            turn=turn,
            round=negotiation.round + 1,
            current_offer_id=offer_id,
        )
        self.touched(after)
        return after

    async def end_all(self, ended: Iterable[LockedNegotiation], move: Move) -> None:
        """End negotiations, which are locked, by a move of the system's; what is on their tables goes along.

        One that has ended already, and was still to be written, ends by what ended it.
        """
        gone = [each for each in ended if each.status == NegotiationStatus.OPEN]
        pending = await offers.lock_pending(self.work.db, [each.negotiation_id for each in gone])
        for each in gone:
            offer = pending.get(each.negotiation_id)
            if offer is not None:
                await self.apply(each, offer, Mover.SYSTEM, each.ending or move)
            else:
                await negotiations.advance(self.work.db, each.negotiation_id, NegotiationStatus.CLOSED, Side.NONE)
                self.touched(each)
                self._closed.append(each.negotiation_id)

    async def reworded(self, negotiation: LockedNegotiation, offer_ids: Sequence[UUID]) -> None:
        """Offers of a negotiation, which is locked, say something else; nothing has moved."""
        await negotiations.advance(self.work.db, negotiation.negotiation_id, negotiation.status, negotiation.turn)
        self._offers.update(dict.fromkeys(offer_ids, negotiation))
        self.touched(negotiation)

    async def tell(self) -> None:
        """Lock the rooms of all concerned, and push what has become of everything."""
        deals = await transactions.list_transactions(self.work.db, list(self._deals))
        ended = await matches.close_mutual(self.work.db, self._closed) if self._closed else []
        await self.work.lock(*self._rooms(deals))
        await self._tell_conversations()
        await self._tell_offers()
        for row in deals:
            self._told_deals[row.offer_id] = row
            for user_id in (row.buyer_id, row.seller_id):
                self.work.push(transaction_changed, row.seen_by(user_id), to=user_room(user_id))
        for each in await negotiations.list_negotiations(self.work.db, list(self._negotiations)):
            for user_id in (each.buyer_id, each.seller_id):
                offered = self._negotiations[each.negotiation_id].current_offer_id
                self.work.push(negotiation_changed, each, to=user_room(user_id), message_id=offered)
            self._told_negotiations[each.negotiation_id] = each
        for user_id in self._counted:
            user = await users.get_user(self.work.db, user_id)
            if user is not None:
                self.work.push(user_updated, user, to=user_room(user_id))
        await self._tell_along(ended)
        if self._listing is not None:
            listing, how = self._listing
            await tell_listing(self.work, listing, listing.user_id, how)

    def told(self, offer_id: UUID) -> tuple[Offer, Negotiation, TransactionRow | None]:
        """An offer that was moved, with its negotiation and the deal that came of it, as everybody was told of them."""
        offer = self._told_offers[offer_id]
        return offer, self._told_negotiations[offer.negotiation_id], self._told_deals.get(offer_id)

    async def _tell_along(self, ended: Iterable[MutualMatch]) -> None:
        for mutual in ended:
            for user_id in (mutual.buyer_user_id, mutual.seller_user_id):
                self.work.push(match_mutual, mutual, to=user_room(user_id))
        for _, tell in self._along:
            await tell()

    def _rooms(self, deals: Iterable[TransactionRow]) -> set[Any]:
        people = {user_id for _, pair in self._opened for user_id in pair}
        people |= {user_id for deal in deals for user_id in (deal.buyer_id, deal.seller_id)}
        people |= {user_id for each in self._negotiations.values() for user_id in (each.buyer_id, each.seller_id)}
        rooms = {user_room(user_id) for user_id in people}
        rooms |= {conversation_room(each.conversation_id) for each in self._offers.values()}
        rooms |= {room for along, _ in self._along for room in along}
        return rooms | set(rooms_of(self._listing[0].listing_id, self._listing[0].thread_id) if self._listing else ())

    async def _tell_conversations(self) -> None:
        for conversation_id, pair in self._opened:
            for user_id in pair:
                [seen] = await conversations.list_conversations(self.work.db, user_id, [conversation_id], people=2)
                self.work.push(conversation_created, seen.own(), to=user_room(user_id))

    async def _tell_offers(self) -> None:
        for offer_id, maker_id, negotiation in self._made:
            await self._say(offer_id, maker_id, negotiation.conversation_id)
        for offer in await offers.list_offers(self.work.db, list(self._offers)):
            room = conversation_room(self._offers[offer.offer_id].conversation_id)
            self.work.push(offer_changed, offer, to=room, message_id=offer.offer_id)
            self._told_offers[offer.offer_id] = offer

    async def _say(self, offer_id: UUID, maker_id: UUID, conversation_id: UUID) -> None:
        """Let an offer stand in its conversation, which comes back from the archives."""
        db, room = self.work.db, conversation_room(conversation_id)
        seq = self.work.next_seq(room)
        for user_id in await conversations.wake(db, conversation_id):
            mine = await conversations.get_mine(db, user_id, conversation_id)
            if mine is not None:
                back = msgspec.structs.replace(mine, head_seq=seq - 1)
                self.work.push(conversation_mine, back, to=user_room(user_id))
        message_id = await messages.create_offer_message(db, conversation_id, seq, maker_id, offer_id)
        [message] = await messages.list_messages(db, [message_id])
        self.work.push(message_created, message, to=room, message_id=message_id)


async def refuse(work: Work, offer: LockedOffer, conflict: Conflict) -> NoReturn:
    """Raises the conflict, with the offer as it is now: of one that has ended, as it is going to be written."""
    [current] = await offers.list_offers(work.db, [offer.offer_id])
    stands = {name: getattr(offer, name) for name in ("status", "close_reason", "version")}
    raise conflict.showing(msgspec.structs.replace(current, **stands))


async def refuse_over(work: Work, offer: LockedOffer) -> NoReturn:
    """Raises the conflict of a move with an offer that has ended: why it has, where there is a word for it."""
    conflict = Conflict("not_pending", "The offer is not on the table any more: look again.")
    if offer.close_reason == CloseReason.TIMEOUT:
        conflict = Conflict("expired", "The offer has run out of time: make another.")
    elif offer.close_reason == CloseReason.LISTING_SOLD:
        conflict = Conflict("sold", "Somebody else was faster: nothing is left.")
    elif offer.close_reason == CloseReason.BLOCKED:
        conflict = Conflict("blocked", "One of you has blocked the other.")
    elif offer.close_reason == CloseReason.LISTING_CLOSED:
        conflict = Conflict("listing_changed", "The listing has been closed.")
        [of] = await offers.list_offers(work.db, [offer.offer_id])
        found = await listings.list_listings(work.db, of.seller_id, [of.listing_id])
        if [listing.status for listing in found] == [ListingStatus.EXPIRED]:
            conflict = Conflict("expired", "The listing's time is over.")
    await refuse(work, offer, conflict)


async def judge(work: Work, offer: LockedOffer, side: Side, maker: Side, move: Move, version: int) -> Mover:
    """Who moves, seen from the offer, whose row is held. Raises `Conflict` where the move is not to be made now."""
    mover = Mover.MAKER if side == maker else Mover.OTHER
    if offer.status != OfferStatus.PENDING:
        await refuse_over(work, offer)
    if outcome(offer.status, mover, move) is None:
        whose = "It is your own offer: the other side answers it, you may withdraw it."
        theirs = "It is the other side's offer: answer it, only its maker withdraws it."
        await refuse(work, offer, Conflict("not_your_turn", whose if mover is Mover.MAKER else theirs))
    if offer.version != version:
        await refuse(work, offer, Conflict("version", "The offer has changed: look again."))
    if offer.has_expired:
        await refuse(work, offer, Conflict("expired", "The offer has run out of time: make another."))
    return mover
