"""The figures of the commands, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from server.commands.meter import Meter
from server.commands.registry import commands
from server.histogram import BOUNDS_S
from tests.people import Instance, Person


def read(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """By name and labels the samples of a scrape."""
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_outcomes_are_counted_and_times_gathered_in_buckets() -> None:
    meter, registry = Meter([]), CollectorRegistry()
    registry.register(meter)
    for outcome, seconds in (("ok", 0.0005), ("ok", 0.003), ("invalid", 0.001), ("ok", 60.0)):
        meter.count("test:do", outcome, seconds)
    meter.count("test:other", "ok", 0.2)
    found = read(generate_latest(registry).decode())
    assert found[key("parley_commands_total", command="test:do", outcome="ok")] == 3
    assert found[key("parley_commands_total", command="test:do", outcome="invalid")] == 1

    def bucket(bound: str, command: str = "test:do") -> float:
        return found[key("parley_command_seconds_bucket", command=command, le=bound)]

    assert [bucket(bound) for bound in ("0.001", "0.0025", "0.005", "5.0", "+Inf")] == [2, 2, 3, 3, 4]
    assert bucket("0.1", "test:other") == 0
    assert bucket("0.25", "test:other") == 1
    assert found[key("parley_command_seconds_count", command="test:do")] == 4
    assert abs(found[key("parley_command_seconds_sum", command="test:do")] - 60.0045) < 1e-9
    assert list(BOUNDS_S) == sorted(BOUNDS_S)


def test_a_meter_that_has_counted_nothing_shows_nothing() -> None:
    registry = CollectorRegistry()
    registry.register(Meter([]))
    assert read(generate_latest(registry).decode()) == {}


async def test_the_first_scrape_has_every_commands_bugs_at_none(parley: Instance) -> None:
    """A series that is born with its first bug would have risen by nothing."""
    async with parley.http.get(f"{parley.url}/metrics") as response:
        found = read(await response.text())
    for command in (*commands, "unknown"):
        assert found[key("parley_commands_total", command=command, outcome="internal")] == 0, command


async def test_what_is_refused_before_it_has_run_has_no_time(
    new_instance: Callable[..., Awaitable[Instance]],
) -> None:
    parley = await new_instance(PARLEY_RATE_MESSAGE_SEND="0.001/1")
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    chat = await parley.chat(amina, bilal)
    phone = await amina.connect()
    answers = [await phone.answer("message:send", conversation_id=chat, text="hello", client_id=f"{n}") for n in "ab"]
    async with parley.http.get(f"{parley.url}/metrics") as response:
        found = read(await response.text())
    assert [each["ok"] for each in answers] == [True, False]
    assert found[key("parley_commands_total", command="message:send", outcome="rate_limited")] == 1
    assert found[key("parley_command_seconds_count", command="message:send")] == 1


async def test_every_answer_is_counted_once_under_its_commands_name(
    parley: Instance, amina: Person, their_chat: str
) -> None:
    phone = await amina.connect()
    for n in range(3):
        await phone.send(their_chat, str(n))
    await phone.answer("message:send", text="to nowhere")
    await amina.post("account:me")
    for n in range(3):  # names that clients make up are one label
        await phone.answer(f"made:up{n}")
        await parley.post(f"made:up{n}", {})
    async with parley.http.get(f"{parley.url}/metrics") as response:
        assert response.status == 200
        found = read(await response.text())
    total = "parley_commands_total"
    assert found[key(total, command="message:send", outcome="ok")] == 3
    assert found[key(total, command="message:send", outcome="invalid")] == 1
    assert found[key(total, command="account:me", outcome="ok")] == 1
    assert found[key("parley_command_seconds_count", command="message:send")] == 3
    assert found[key(total, command="unknown", outcome="unknown_command")] >= 3
    assert not any("made:up" in str(one) for one in found)
