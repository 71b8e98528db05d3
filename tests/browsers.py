"""Devices by socket.io-client, beside those by python-socketio's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from typing import Any, cast

import pytest
import socketio

from tests.people import PATIENCE_S, Device, Person
from tests.servers import Node


class Browser:
    """socket.io-client in a process of its own, with what a `Device` needs of python-socketio's client."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ids = count(1)
        self.gone = asyncio.Event()

    async def listen(self, device: Device) -> None:
        """Pass on what it hears, until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            if "heard" in told:
                await device.hears(*told["heard"])
            elif "gone" in told:
                self.gone.set()
            else:
                self._answers.pop(told["id"]).set_result(told["answer"])

    async def do(self, deed: str, name: str = "", payload: Any = None) -> Any:
        """Let it do something; what came of it."""
        number, answer = next(self._ids), asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps({"id": number, "do": deed, "name": name, "payload": payload}).encode() + b"\n"
        )
        async with asyncio.timeout(PATIENCE_S):
            return await answer

    async def call(self, name: str, payload: Any, timeout: float) -> Any:
        return await self.do("call", name, payload)

    async def disconnect(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            await self._process.wait()


Opens = Callable[..., Awaitable[Device]]


@pytest.fixture
async def browse(node: Node) -> AsyncIterator[Opens]:
    """`await browse(amina)`: a device of hers by socket.io-client, that has heard its hello."""
    script = node.clients / "messenger.mjs"
    listening: list[asyncio.Task[None]] = []
    browsers: list[Browser] = []

    async def start(person: Person, *transport: str) -> Device:
        process = await asyncio.create_subprocess_exec(
            str(node.binary), str(script), person.instance.url, person.token, *transport, stdin=PIPE, stdout=PIPE
        )
        browsers.append(Browser(process))
        device = Device(cast("socketio.AsyncClient", browsers[-1]))
        listening.append(asyncio.create_task(browsers[-1].listen(device)))
        await device.hearing("hello")
        return device

    yield start
    for browser in browsers:
        await browser.disconnect()
    for task in listening:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def browser_of(device: Device) -> Browser:
    """The process behind a device that `browse` has opened."""
    browser = device.client
    assert isinstance(browser, Browser)
    return browser
