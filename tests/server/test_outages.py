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


def test_a_failure_of_another_kind_or_after_the_end_is_told_at_once(time: Time, logged: list[Any]) -> None:
    outage = Outage("redis_away", (OSError,))
    outage.failed(TimeoutError())
    bug = ValueError("a bug")
    outage.failed(bug)
    outage.failed(bug)
    outage.over()
    outage.failed(TimeoutError())
    told = [(line["event"], line["log_level"], line.get("error", line.get("exc_info"))) for line in logged]
    assert told == [
        ("redis_away", "warning", "TimeoutError"),
        ("redis_away", "error", bug),
        ("redis_away_no_more", "info", None),
        ("redis_away", "warning", "TimeoutError"),
    ]
