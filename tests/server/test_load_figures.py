"""What `parley load` counts, draws and sends: figures, plots, frames, packets."""

from __future__ import annotations

from typing import Any

import pytest

from server.cli.load import packets
from server.cli.load.faults import Fault, Faults
from server.cli.load.frames import Frames, Malformed, masked
from server.cli.load.measure import Span, bucket_of, floor_of, merged, percentile
from server.cli.load.options import Options
from server.cli.load.page import page
from server.cli.load.recent import Recent
from server.cli.load.result import Result, put_together
from server.cli.load.timing import Timing
from server.cli.load.words import Done
from server.wire.frames import Kind, frame


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


def result(spans: dict[int, Span] | None = None, after: Span | None = None, **more: Any) -> Result:
    """Of one worker that has run for two seconds, at a hundred a second."""
    kept = {"faults": {}, "ran_s": 2.0, "cpu_s": 0.1, "late_s": {}, "reconnects": 0, "held_back": 0, "agreed": 0}
    done = Done(spans=spans or {}, after=after or Span(), **{**kept, "tried": 0, **more})
    options = Options(urls=["http://127.0.0.1:1"], rate=100.0)
    return put_together(options, 2, [done], started_at=0.0, stopped_early=True, servers=None)


def test_a_page_of_nothing_is_a_page_still() -> None:
    faults = Faults()
    faults.note(Fault.LOST, "<b>1</b>")
    found = result(faults=faults.found)
    assert not found.ok
    html = page(found)
    assert "Not every check held" in html
    assert "&lt;b&gt;1&lt;/b&gt;" in html
    assert "<b>1</b>" not in html


def test_what_is_so_much_a_second_is_of_the_play_and_latencies_are_of_all() -> None:
    slow = bucket_of(3.0)
    spans = {0: Span(sent=10, acked=6, delivered=12, ack_s={1: 6}), 1: Span(acked=2, delivered=4, ack_s={1: 2})}
    found = result(spans, Span(acked=2, delivered=4, ack_s={slow: 2}))
    assert (found.sent, found.acked, found.delivered, found.ack.count) == (10, 10, 20, 10)
    assert (found.sends_per_s, found.deliveries_per_s) == (4.0, 8.0)
    assert found.cost.each_us == round(0.1 / 8 * 1e6, 1)
    assert (found.ack.max_ms or 0) > 3_000
    assert [second.second for second in found.seconds] == [0, 1]
    assert found.ok


def test_a_rate_that_was_not_held_breaks_a_check_and_says_what_that_makes_of_the_percentiles() -> None:
    found = result({0: Span(sent=1, acked=1, ack_s={1: 1})}, held_back=3)
    assert [check.promise for check in found.checks if not check.held] == ["the rate was held"]
    assert "percentiles are too low" in page(found)


def test_conflicts_and_limits_are_no_errors() -> None:
    found = result({0: Span(errors={"conflict: sold": 4, "rate_limited": 3, "unavailable": 2})})
    assert (found.conflicts, found.rate_limited, found.errors) == ({"sold": 4}, 3, {"unavailable": 2})
    [second] = found.seconds
    assert (second.lost, second.rate_limited, second.errors) == (4, 3, 2)


def test_a_second_of_which_nothing_is_known_is_a_gap_in_its_place() -> None:
    html = page(result({0: Span(sent=1, acked=5, ack_s={1: 5}), 3: Span(acked=9, ack_s={1: 9})}, ran_s=4.0))
    assert "acked sends, second 1: 5" in html
    assert "acked sends, second 4: 9" in html
    assert "acked sends, second 2" not in html


def test_each_side_is_timed_whether_the_answer_or_the_push_comes_first() -> None:
    timing, key = Timing(), ("x", 2)
    assert timing.heard(key, 11.0) == []
    assert timing.asked(key, 10.0) == [1.0]
    assert timing.heard(key, 12.0) == [2.0]
    assert timing.heard(key, 12.0) == []


@pytest.mark.parametrize(
    "packet",
    [b'42["x"]', b'42["x",[]]', b"42{}", b"42", b"42[1,{}]", b'42["x",{},{"seq":"1"}]', b'42["x",{},{},{}]', b"42\xff"],
)
def test_what_is_no_event_is_malformed(packet: bytes) -> None:
    with pytest.raises(Malformed):
        packets.event_of(packet)


@pytest.mark.parametrize(
    "packet",
    [b"43", b"431[]", b"43[]", b'431{"a":1}', b'431["x"]', b'43x[{"ok":true,"data":{}}]', b'431[{"ok":false}]'],
)
def test_what_is_no_answer_is_malformed(packet: bytes) -> None:
    with pytest.raises(Malformed):
        packets.answer_of(packet)


def test_a_listing_without_a_version_is_none() -> None:
    with pytest.raises(Malformed):
        packets.read({"listing_id": "l", "quantity": 1}, packets.Listing)


def test_an_answer_and_an_event_are_read() -> None:
    assert packets.answer_of(b'4312[{"ok":true,"data":{"seq":3}}]') == (12, packets.Answer(True, {"seq": 3}))
    event = packets.event_of(b'42["x",{"a":1},{"room":"user:1","seq":2,"at":""}]')
    assert event == ("x", {"a": 1}, packets.Place("user:1", 2))
    assert packets.place_of(b'42["x",{"a":1},{"room":"user:1","seq":2,"at":""}]') == packets.Place("user:1", 2)


def test_what_is_remembered_is_the_latest() -> None:
    recent: Recent[int, str] = Recent(2)
    assert recent.put(1, "a") == recent.put(1, "b") == "a"
    recent[2] = recent[3] = "c"
    assert list(recent) == [2, 3]
