"""`parley load`: whole, against an instance; its judgement of what was heard, against histories that are made up."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jwt
import pytest
from typer.testing import CliRunner

from server.cli.load.deals import Deals
from server.cli.load.faults import DEALS, Fault, Faults
from server.cli.load.frames import Frames, Malformed, masked
from server.cli.load.ledger import Ears, Ledger
from server.cli.load.measure import Span, bucket_of, floor_of, merged, percentile
from server.cli.load.options import Options
from server.cli.load.page import page
from server.cli.load.result import Result, put_together
from server.cli.load.running import LoadFailed
from server.cli.load.worker import Done
from server.cli.main import app
from server.errors import Invalid
from server.wire.frames import Kind, frame
from tests.people import SECRET, Instance
from tests.server.test_cli import Said, parley_cli

UNLIMITED = {
    f"PARLEY_RATE_{name}": "off" for name in ("MESSAGE_SEND", "OFFER_MOVES", "WRITES", "CONNECTS", "HANDSHAKES")
}
ROOM = "conversation:0"


async def load(parley: Instance, *arguments: str) -> Said:
    """`parley load` against an instance, for half a second, by one worker."""
    fixed = (parley.url, "--seconds", "0.5", "--workers", "1")
    return await parley_cli("load", *fixed, *arguments, DATABASE_URL=parley.dsn, PARLEY_SECRET=SECRET)


# whole


async def test_people_talk_in_pairs_and_groups_and_haggle_and_all_checks_hold(
    new_instance: Callable[..., Awaitable[Instance]], tmp_path: Path
) -> None:
    parley = await new_instance(**UNLIMITED)
    files = ("--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html"))
    shapes = ("--sockets", "30", "--pairs", "--groups", "5", "--negotiate", "--workers", "2")
    said = await load(parley, *shapes, *files)
    assert (said.code, said.err) == (0, ""), said
    result = json.loads((tmp_path / "a.json").read_bytes())
    assert set(result) == set(Result.__struct_fields__)
    assert result["ok"]
    assert all(check["held"] for check in result["checks"])
    assert {check["promise"] for check in result["checks"]} >= {fault.value for fault in Fault}
    assert (result["people"], result["cost"]["workers"]) == (10 + 10 + 8, 2)
    assert result["acked"] == result["sent"] > 0
    assert result["delivered"] > 2 * result["sent"]
    assert result["moved"] > 0
    assert result["rate_limited"] == 0
    assert result["errors"] == {}
    assert sum(second["acked"] for second in result["seconds"]) == result["acked"]
    assert sum(count for _, count in result["ack"]["buckets"]) == result["ack"]["count"] == result["acked"]
    assert result["ack"]["p50_ms"] <= result["ack"]["p99_ms"] <= result["ack"]["max_ms"]
    assert result["cost"]["servers_each_us"] > 0
    html = (tmp_path / "a.html").read_text()
    assert "Every check held" in html
    assert not re.search(r"<script|src=|https?://(?!127\.0\.0\.1|www\.w3\.org/2000/svg)", html)
    for drawing in re.findall(r"<svg.*?</svg>", html):
        ElementTree.fromstring(drawing)


async def test_people_with_tokens_make_their_own_conversations_and_wait_where_they_are_limited(
    new_instance: Callable[..., Awaitable[Instance]], tmp_path: Path
) -> None:
    parley = await new_instance(PARLEY_RATE_MESSAGE_SEND="20/5")
    people = [await parley.person("load") for _ in range(6)]
    tokens = tmp_path / "tokens"
    tokens.write_text("# of a test\n\n" + "".join(f"{person.token}\n" for person in people))
    result = tmp_path / "a.json"
    sized = ("--sockets", "6", "--groups", "3", "--rate", "150", "--senders", "1")
    said = await load(parley, "--tokens", str(tokens), "--json", str(result), *sized)
    assert (said.code, said.err) == (0, ""), said
    found = json.loads(result.read_bytes())
    assert found["rate_limited"] > 0
    assert "Rate limits were hit" in said.out
    assert found["acked"] == found["sent"] > 0
    assert found["delivered"] == 3 * found["acked"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--sockets", "3", "--groups", "9"), "--sockets 3 are too few: these shapes need 9."),
        (("--seconds", "0"), "--seconds 0: from 0.1 to 3600."),
        (("--rate", "nan"), "--rate nan: from 0.01 to 1000000."),
        (("http://192.0.2.7",), "http://192.0.2.7 is not this machine. .* give --yes-remote"),
        (("http://192.0.2.7", "--yes-remote"), "give their --tokens"),
        (("http://127.0.0.1:80/chat",), "an address is like"),
        (("http://127.0.0.1:port",), "not an address"),
        (("--json", "{folder}/none/a.json"), "there is no such folder"),
        (("--groups", "501", "--sockets", "600"), "--groups 501: from 2 to 500."),
        (("--tokens", "{folder}/none"), "token 1 is none: one a line"),
        (("--tokens", "{folder}/twice"), "tokens 1 and 2 are one person's"),
        (("--tokens", "{folder}/few"), "has 1 tokens, and 200 are needed"),
    ],
)
def test_options_that_make_no_sense_are_clear_errors(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    token = jwt.encode({"sub": "somebody"}, SECRET)
    for name, text in (("none", "no token\n"), ("twice", f"{token}\n{token}\n"), ("few", f"# few\n\n{token}\n")):
        (tmp_path / name).write_text(text)
    words = [word.replace("{folder}", str(tmp_path)) for word in arguments]
    said = CliRunner().invoke(app, ["load", *words], env={"DATABASE_URL": None})
    assert isinstance(said.exception, Invalid), said
    assert re.search(told, said.exception.message)


async def test_a_token_that_is_not_valid_is_a_clear_error(parley: Instance, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    people = [await parley.person("load") for _ in range(2)]
    tokens.write_text("".join(f"{person.token[:-3]}abc\n" for person in people))
    said = await load(parley, "--tokens", str(tokens), "--sockets", "2")
    assert (said.code, said.out) == (1, "")
    assert "unauthenticated: This token is not valid" in said.err


def test_a_server_that_is_not_there_is_a_clear_error() -> None:
    said = CliRunner().invoke(app, ["load", "http://127.0.0.1:9"], env={"DATABASE_URL": None})
    assert isinstance(said.exception, LoadFailed), said
    assert said.exception.message == "Nobody answers on http://127.0.0.1:9: start a server with `parley serve`."


# judging what was heard


class Heard:
    """Two people of a room, and what they hear of it."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.ledger = Ledger(self.faults)
        self.amina, self.bilal = self.ledger.ears("amina"), self.ledger.ears("bilal")
        for ears in (self.amina, self.bilal):
            self.ledger.anchor(ears, ROOM, 10)
        for number in (1, 2, 3):
            self.ledger.say(number, ROOM, 2, at=0.0)
            self.ledger.ack(number, 10 + number)

    def hear(self, ears: Ears, *numbers: int) -> Heard:
        """Somebody hears these messages, each under the number of its ack."""
        for number in numbers:
            self.ledger.hear(ears, ROOM, 10 + number, number)
        return self

    def found(self) -> set[Fault]:
        """What is wrong when all is over."""
        self.ledger.close()
        return set(self.faults.found)


def test_a_history_in_order_is_right() -> None:
    heard = Heard()
    assert not heard.ledger.is_settled
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    assert heard.ledger.is_settled
    assert heard.found() == set()


@pytest.mark.parametrize(
    ("numbers", "faults"),
    [
        ((1, 3), {Fault.LOST, Fault.GAP}),
        ((1, 2), {Fault.LOST}),
        ((), {Fault.LOST}),
        ((1, 2, 2, 3), {Fault.DOUBLED}),
        ((1, 2, 3, 1), {Fault.DOUBLED}),
        ((1, 3, 2), {Fault.REORDERED}),
        ((2, 3, 1), {Fault.REORDERED}),
    ],
)
def test_what_is_lost_doubled_or_reordered_is_found(numbers: tuple[int, ...], faults: set[Fault]) -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, *numbers)
    assert heard.found() == faults


def test_what_was_lost_is_told_with_who_did_not_hear_it() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2)
    assert heard.found() == {Fault.LOST}
    assert "bilal" in heard.faults.found[Fault.LOST].examples[0]


def test_a_message_that_comes_again_under_another_number_is_doubled() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.hear(heard.amina, ROOM, 14, 2)
    assert heard.found() == {Fault.DOUBLED}


def test_an_ack_and_a_delivery_of_two_numbers_are_found() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3)
    for number, seq in ((2, 11), (1, 12), (3, 13)):
        heard.ledger.hear(heard.bilal, ROOM, seq, number)
    assert heard.found() == {Fault.MISNUMBERED}


def test_a_message_that_nobody_sent_or_that_was_refused_may_not_be_heard() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.say(4, ROOM, 2, at=0.0)
    heard.ledger.refuse(4)
    assert heard.ledger.is_settled
    heard.hear(heard.amina, 4, 99)
    assert heard.found() >= {Fault.STRANGE}
    assert heard.faults.count(Fault.STRANGE) == 2


def test_a_message_that_is_never_answered_is_found() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.say(4, ROOM, 2, at=0.0)
    assert heard.found() == {Fault.UNANSWERED}


def test_events_that_are_no_messages_count_in_their_room() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.hear(heard.amina, ROOM, 14)
    heard.ledger.hear(heard.bilal, ROOM, 15)
    assert heard.found() == {Fault.GAP}


def test_what_was_said_in_a_new_room_while_somebody_was_away_may_come_late_but_has_to_come() -> None:
    heard = Heard()
    heard.hear(heard.amina, 1, 2, 3).hear(heard.bilal, 1, 2, 3)
    heard.ledger.owe(heard.bilal, "conversation:1", 0, 2)
    heard.ledger.hear(heard.bilal, "conversation:1", 3)
    assert [heard.ledger.fill(heard.bilal, "conversation:1", seq) for seq in (1, 3, 1)] == [True, False, False]
    assert set(heard.faults.found) == set()
    assert heard.found() == {Fault.GAP}
    assert "never heard 2 of conversation:1" in heard.faults.found[Fault.GAP].examples[0]


def offer(offer_id: str, version: int, status: str, **more: Any) -> dict[str, Any]:
    return {"offer_id": offer_id, "version": version, "status": status, "listing_id": "l", "quantity": 1, **more}


class Table:
    """One piece for sale, and what its seller and two buyers hear."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.deals = Deals(self.faults)
        self.deals.listed("l", 1)
        self.tell(offer("x", 1, "pending"), "seller", "amina")
        self.tell(offer("y", 1, "pending"), "seller", "bilal")

    def tell(self, what: dict[str, Any], *names: str) -> None:
        for name in names:
            self.deals.hear(name, "offer", what)

    def accept(self, offer_id: str, buyer: str, *told: str) -> None:
        """The seller accepts a buyer's offer, and these are told."""
        self.deals.moved("seller", "accept", offer_id, 1)
        self.deals.accepted("seller", offer(offer_id, 2, "accepted"))
        self.tell(offer(offer_id, 2, "accepted"), *(told or ("seller", buyer)))

    def found(self) -> set[Fault]:
        self.deals.close()
        return set(self.faults.found)


def test_a_deal_of_which_both_sides_are_told_is_right() -> None:
    table = Table()
    table.accept("x", "amina")
    table.tell(offer("y", 2, "rejected"), "seller", "bilal")
    assert table.deals.is_settled
    assert table.found() == set()
    assert table.deals.agreed == 1


def test_a_piece_that_is_sold_twice_is_found() -> None:
    table = Table()
    table.accept("x", "amina")
    table.accept("y", "bilal")
    assert table.found() == {Fault.OVERSOLD}


def test_two_moves_that_win_at_one_version_are_found() -> None:
    table = Table()
    table.accept("x", "amina")
    table.deals.moved("amina", "withdraw", "x", 1)
    assert table.found() == {Fault.TWO_WINNERS}


def test_a_version_that_does_not_go_up_is_found() -> None:
    table = Table()
    table.accept("x", "amina")
    table.tell(offer("x", 1, "pending"), "amina")
    assert table.found() == {Fault.VERSION}


def test_sides_that_are_told_differently_are_found() -> None:
    table = Table()
    table.tell(offer("x", 2, "rejected"), "seller")
    table.tell(offer("x", 2, "expired"), "amina")
    assert table.found() == {Fault.SIDES_DIFFER}


@pytest.mark.parametrize("told", [("seller",), ("amina",)])
def test_a_deal_of_which_one_side_alone_is_told_is_found(told: tuple[str, ...]) -> None:
    table = Table()
    table.accept("x", "amina", *told)
    assert table.found() == {Fault.SIDES_DIFFER, Fault.UNTOLD}
    assert set(table.faults.found) <= set(DEALS)


def test_what_one_side_alone_is_told_of_a_transaction_is_no_difference() -> None:
    table, paid = Table(), {"transaction_id": "t", "version": 1, "status": "pending"}
    table.deals.hear("seller", "transaction", paid | {"client_secret": None})
    table.deals.hear("amina", "transaction", paid | {"client_secret": "s"})
    table.accept("x", "amina")
    table.tell(offer("y", 2, "rejected"), "seller", "bilal")
    assert table.found() == set()


# figures and frames


def test_durations_keep_their_size_to_three_percent() -> None:
    for us in (0, 1, 63, 64, 65, 127, 128, 1_000, 999_999, 86_400_000_000):
        bucket = bucket_of((us + 0.5) / 1e6)
        low, high = floor_of(bucket) * 1e6, floor_of(bucket + 1) * 1e6
        assert low - 0.5 < us < high
        assert high - low <= max(1.5, us * 0.035)
    buckets = [bucket_of((us + 0.5) / 1e6) for us in range(5_000)]
    assert buckets == sorted(buckets)
    assert percentile({}, 0.5) is None
    many = merged({bucket_of(ms / 1000): 1} for ms in range(1, 101))
    assert percentile(many, 0.5) == pytest.approx(0.05, rel=0.05)
    assert percentile(many, 1.0) == pytest.approx(0.1, rel=0.05)


def test_spans_add_up() -> None:
    one, two = (
        Span(sent=1, ack_s={3: 1}, errors={"invalid": 1}),
        Span(sent=2, ack_s={3: 1, 4: 2}, errors={"invalid": 2}),
    )
    assert Span.of([one, two]) == Span(sent=3, ack_s={3: 2, 4: 2}, errors={"invalid": 3})


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536])
def test_frames_come_whole_however_they_are_cut(size: int) -> None:
    payload = b"x" * size
    whole = frame(Kind.TEXT, payload) + frame(Kind.TEXT, b"next")
    for at in sorted({1, 2, 3, len(whole) // 2, len(whole) - 1}):
        frames = Frames()
        heard = [*frames.feed(whole[:at]), *frames.feed(whole[at:])]
        assert heard == [(1, payload), (1, b"next")]
    sent = masked(payload)
    header = 2 + (0 if size < 126 else 2 if size < 65_536 else 8)
    key, body = sent[header : header + 4], sent[header + 4 :]
    assert bytes(byte ^ key[n % 4] for n, byte in enumerate(body)) == payload


@pytest.mark.parametrize("data", [b"\x01\x01x", b"\x81\x81abcdx", b"\xc1\x01x", b"\x81\x7f" + b"\xff" * 8])
def test_what_is_no_frame_of_a_server_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        list(Frames().feed(data))


def test_a_page_of_nothing_is_a_page_still() -> None:
    faults = Faults()
    faults.note(Fault.LOST, "<b>1</b>")
    done = Done({}, faults.found, 1.0, 0.1, {}, 0, 0, 0)
    result = put_together(
        Options(urls=["http://127.0.0.1:1"]), 2, [done], started_at=0.0, stopped_early=True, servers=None
    )
    assert not result.ok
    html = page(result)
    assert "Not every check held" in html
    assert "&lt;b&gt;1&lt;/b&gt;" in html
    assert "<b>1</b>" not in html
