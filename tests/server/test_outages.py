"""What fails again and again does not fill the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from server import outages
from server.errors import Unavailable
from server.outages import AGAIN_S, Outage


class Time:
    """The seconds that a test says it is."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(outages, "time", time)
    return time


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


def test_a_minute_of_failures_is_one_line_and_its_end_another(time: Time, logged: list[Any]) -> None:
    outage = Outage("job_failed", job="sweep")
    for _ in range(240):
        outage.failed(Unavailable())
        time.now += AGAIN_S / 240
    outage.failed(Unavailable())
    outage.over()
    outage.over()
    told = [(line["event"], line["log_level"], line["failures"], line["job"]) for line in logged]
    assert told == [
        ("job_failed", "warning", 1, "sweep"),
        ("job_failed", "warning", 241, "sweep"),
        ("job_failed_no_more", "info", 241, "sweep"),
    ]


def test_failures_of_two_kinds_that_alternate_and_end_all_the_time_are_told_once_a_minute(
    time: Time, logged: list[Any]
) -> None:
    outage, bug = Outage("redis_away", (OSError,)), ValueError("a bug")
    for _ in range(60):
        outage.failed(TimeoutError())
        outage.failed(bug)
        outage.over()
        time.now += AGAIN_S / 60
    told = [(line["event"], line["log_level"], line.get("error", line.get("exc_info"))) for line in logged]
    assert told == [
        ("redis_away", "warning", "TimeoutError"),
        ("redis_away", "error", bug),
        ("redis_away_no_more", "info", None),
    ]
    outage.failed(TimeoutError())
    outage.over()
    assert [line["event"] for line in logged[3:]] == ["redis_away", "redis_away_no_more"]
