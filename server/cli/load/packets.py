"""What the server says, as far as it is looked at. Pure. Whatever does not read as it should raises `Malformed`."""

from typing import Any, TypeVar

import msgspec

from server.cli.load.frames import Malformed

T = TypeVar("T")
Data = dict[str, Any]


class Place(msgspec.Struct, frozen=True):
    """Where an event stands; `seq` is 0 for what is told once and not kept."""

    room: str = ""
    seq: int = 0


class Hello(msgspec.Struct, frozen=True):
    """The first push of a connection."""

    user_id: str
    epoch: str
    rooms: dict[str, int]
    reset: list[str]


class Error(msgspec.Struct, frozen=True):
    """Why a command was refused."""

    code: str
    message: str = ""
    reason: str = ""
    retry_after_ms: float | None = None
    error_id: str = ""

    @property
    def name(self) -> str:
        """By which it is counted."""
        return f"{self.code}: {self.reason}" if self.reason else self.code


class Answer(msgspec.Struct, frozen=True):
    """An ack: `data`, or an `error`."""

    ok: bool
    data: Data | None = None
    error: Error | None = None


class _Why(msgspec.Struct, frozen=True):
    code: str = "refused"
    retry_after_ms: float | None = None


class ConnectError(msgspec.Struct, frozen=True):
    """Why a connect was refused."""

    message: str = ""
    data: _Why = _Why()


class Acked(msgspec.Struct, frozen=True):
    """The data of `message:send`."""

    seq: int


class Opened(msgspec.Struct, frozen=True):
    """A conversation, where it is new to somebody."""

    conversation_id: str
    head_seq: int = 0


class Event(msgspec.Struct, frozen=True):
    """An event that was missed, as `room:sync` has it."""

    name: str
    payload: Data
    seq: int


class Synced(msgspec.Struct, frozen=True):
    """A page of what was missed in a room."""

    events: list[Event]
    more: bool
    reset: bool


class Money(msgspec.Struct, frozen=True):
    """In minor units."""

    amount: int
    currency: str


class Listing(msgspec.Struct, frozen=True):
    """What is for sale."""

    listing_id: str
    version: int
    quantity: int


class Offer(msgspec.Struct, frozen=True):
    """An offer, at one version."""

    offer_id: str
    negotiation_id: str
    listing_id: str
    maker_id: str
    buyer_id: str
    seller_id: str
    price: Money
    quantity: int
    status: str
    parent_offer_id: str | None
    round: int
    version: int

    @property
    def key(self) -> tuple[str, str]:
        """What it is, and which."""
        return "offer", self.offer_id


class Negotiation(msgspec.Struct, frozen=True):
    """A negotiation, at one version, with the offer that is or was last on the table."""

    negotiation_id: str
    listing_id: str
    buyer_id: str
    seller_id: str
    status: str
    turn: str
    rounds_left: int
    version: int
    current_offer: Offer

    @property
    def key(self) -> tuple[str, str]:
        """What it is, and which."""
        return "negotiation", self.negotiation_id


class Transaction(msgspec.Struct, frozen=True):
    """A deal, at one version."""

    transaction_id: str
    offer_id: str | None
    negotiation_id: str | None
    listing_id: str
    buyer_id: str
    seller_id: str
    subtotal: Money
    status: str
    version: int

    @property
    def key(self) -> tuple[str, str]:
        """What it is, and which."""
        return "transaction", self.transaction_id


class Moved(msgspec.Struct, frozen=True):
    """The data of a move on an offer."""

    offer: Offer
    negotiation: Negotiation
    transaction: Transaction | None = None


def read(said: object, type_: type[T]) -> T:
    """Something decoded, as what it has to be."""
    try:
        return msgspec.convert(said, type_)
    except msgspec.ValidationError as error:
        raise Malformed(f"{error}, where a {type_.__name__} was due") from None


def decode(said: bytes | msgspec.Raw, type_: type[T]) -> T:
    """JSON, as what it has to be."""
    return _decoded(msgspec.json.Decoder(type_), said)


def _decoded(decoder: msgspec.json.Decoder[T], said: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(said)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"{error}, where a {decoder.type.__name__} was due: {bytes(said)[:80]!r}") from None


_places, _answers = msgspec.json.Decoder(Place), msgspec.json.Decoder(list[Answer])


def event_of(packet: bytes) -> tuple[str, Data, Place]:
    """The name, payload and place of an event."""
    said = decode(packet[2:], list[msgspec.Raw])
    if len(said) not in (2, 3):
        raise Malformed(f"an event of {len(said)} parts: {packet[:80]!r}")
    return decode(said[0], str), decode(said[1], Data), decode(said[2], Place) if len(said) == 3 else Place()


def place_of(packet: bytes) -> Place:
    """The place of an event that has one, without a look at the rest."""
    return _decoded(_places, packet[packet.rfind(b',{"room":') + 1 : -1])


def answer_of(packet: bytes) -> tuple[int, Answer]:
    """The number of a command, and its answer."""
    at = packet.find(b"[")
    said = _decoded(_answers, packet[max(at, 0) :])
    if len(said) != 1 or not packet[2:at].isdigit() or (said[0].data if said[0].ok else said[0].error) is None:
        raise Malformed(f"no answer: {packet[:80]!r}")
    return int(packet[2:at]), said[0]


def number_of(packet: bytes, mark: bytes) -> int | None:
    """The number of a message of ours, which stands behind the mark; None of another's."""
    at = packet.find(mark)
    if at < 0:
        return None
    digits = packet[at + len(mark) : packet.find(b'"', at + len(mark))]
    if not digits.isdigit():
        raise Malformed(f"a message with another's client_id: {packet[:80]!r}")
    return int(digits)


def says(packet: bytes, conversation_id: str, sender_id: str, text: str) -> bool:
    """Whether a message of ours is in that conversation, of that sender, with that text, which JSON has as it is."""
    said = packet.decode(errors="replace")
    is_theirs = f'"conversation_id":"{conversation_id}"' in said and f'"sender_id":"{sender_id}"' in said
    return is_theirs and f'"text":"{text}"' in said
