"""`parley load`: whole, against an instance."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from server.cli.load.circles import Circle, Someone
from server.cli.load.command import UNLIMITED
from server.cli.load.faults import Fault
from server.cli.load.options import Options
from server.cli.load.result import Result
from server.cli.load.running import Running, share_of
from server.cli.load.servers import LoadFailed
from tests.people import SECRET, Instance
from tests.server.spoiler import Spoiler, cut_each
from tests.server.test_cli import Said, parley_cli

LIMITLESS = {f"PARLEY_RATE_{name}": "off" for name in UNLIMITED}


async def load(parley: Instance, *arguments: str) -> Said:
    """`parley load` against an instance, for half a second, by one worker."""
    fixed = (parley.url, "--seconds", "0.5", "--workers", "1")
    return await parley_cli("load", *fixed, *arguments, DATABASE_URL=parley.dsn, PARLEY_SECRET=SECRET)


# whole


async def test_people_talk_in_pairs_and_groups_and_haggle_and_all_checks_hold(
    new_instance: Callable[..., Awaitable[Instance]], tmp_path: Path
) -> None:
    parley = await new_instance(**LIMITLESS)
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
    assert "2 of 30 sockets were left over." in said.out
    assert result["acked"] == result["sent"] > 0
    assert result["delivered"] > 2 * result["sent"]
    assert result["moved"] > 0
    assert result["rate_limited"] == 0
    assert result["errors"] == {}
    assert 0 < sum(second["acked"] for second in result["seconds"]) <= result["acked"]
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


async def test_who_is_cut_in_the_middle_comes_back_and_all_checks_hold(
    new_instance: Callable[..., Awaitable[Instance]], tmp_path: Path
) -> None:
    parley = await new_instance(**LIMITLESS)
    people = ("--sockets", "8", "--pairs", "--negotiate", "--sends", "400", "--json", str(tmp_path / "a.json"))
    async with Spoiler(parley.url, cut_each(20), times=8) as spoiler:
        fixed = ("--seconds", "5", "--workers", "1")
        said = await parley_cli("load", spoiler.url, *people, *fixed, DATABASE_URL=parley.dsn, PARLEY_SECRET=SECRET)
    assert (said.code, said.err) == (0, ""), said
    assert json.loads((tmp_path / "a.json").read_bytes())["reconnects"] == spoiler.spoilt >= 4
    assert f"{spoiler.spoilt} times a socket was cut, and came back." in said.out


async def test_a_rate_that_cannot_be_held_fails_and_says_so_beside_the_figures(
    new_instance: Callable[..., Awaitable[Instance]],
) -> None:
    parley = await new_instance(PARLEY_RATE_MESSAGE_SEND="1/1")
    said = await load(parley, "--sockets", "2", "--pairs", "--rate", "300", "--drain", "0.2")
    assert said.code == 1
    assert "The rate was not held: " in said.out
    assert "the percentiles are too low" in said.out
    assert re.search(r"BROKEN, \d+ times: the rate was held", said.out)


# Ctrl-C


async def running(parley: Instance, seconds: float, shown: Callable[[str], None]) -> Running:
    """A test of two people, with who is told of each phase."""
    amina, bilal = [await parley.person("load") for _ in range(2)]
    chat = await parley.chat(amina, bilal)
    circle = Circle("pairs", [Someone(person.token, 0) for person in (amina, bilal)], chat)
    options = Options(urls=[parley.url], sockets=2, seconds=seconds, workers=1)
    return Running(options, [circle], lambda phase, done, span: shown(phase))


async def test_a_test_that_is_stopped_reports_all_the_same(parley: Instance) -> None:
    def stop(phase: str) -> None:
        if phase == "playing" and not test._is_stopped:
            test._stop()

    test = await running(parley, 60.0, stop)
    result = await test.run()
    assert result.stopped_early
    assert result.acked == result.sent > 0
    assert result.ran_s < 30


@pytest.mark.parametrize(
    ("at", "told"),
    [("connecting", "Stopped before it began."), ("playing", "Stopped at once: nothing is known.")],
)
async def test_a_test_that_has_not_begun_or_is_stopped_twice_ends_without_a_report(
    parley: Instance, at: str, told: str
) -> None:
    def stop(phase: str) -> None:
        if phase == at:
            test._stop()
            test._stop()

    test = await running(parley, 60.0, stop)
    with pytest.raises(LoadFailed) as failed:
        await test.run()
    assert failed.value.message == told


async def test_a_stop_while_the_servers_are_measured_does_not_begin_it(
    parley: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def measure(urls: Sequence[str]) -> None:
        test._stop()

    monkeypatch.setattr("server.cli.load.running.measure_servers", measure)
    test = await running(parley, 60.0, lambda phase: None)
    with pytest.raises(LoadFailed, match=r"Stopped before it began\."):
        await test.run()


@pytest.mark.parametrize(("sends", "shares"), [(1, [1, 0]), (3, [2, 1]), (4, [2, 2])])
def test_what_is_to_be_sent_is_shared_out_to_the_last(sends: int, shares: list[int]) -> None:
    assert [share_of(sends, 2, number) for number in range(2)] == shares
