"""Who comes to a namespace and goes: handlers that take their time, and clients that don't wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from server.wire import Connection, Refused, Server
from tests.wire.bare import until
from tests.wire.test_socketio import joined, nothing_left, server_site

NAMESPACES = ["/", "/custom"]


class Slow:
    """Handlers of `/custom`; the one that hears who left takes its time, until `go_on`."""

    def __init__(self, server: Server) -> None:
        self.heard: list[str] = []
        self.go_on = asyncio.Event()
        server.on("connect", self._connect, namespace="/custom")
        server.on("disconnect", self._disconnect, namespace="/custom")
        server.on("x", self._say, namespace="/custom")

    async def _connect(self, sid: str, environ: Any, auth: Any) -> None:
        self.heard.append("comes")

    async def _disconnect(self, sid: str, reason: str) -> None:
        self.heard.append("goes")
        await self.go_on.wait()
        self.heard.append("is gone")

    async def _say(self, sid: str) -> str:
        return sid


async def after(seconds: float) -> None:
    """When so much time has passed: for what has to be a matter of time."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()


# coming back


@pytest.mark.parametrize("by", ["client", "server"])
async def test_who_comes_back_waits_until_it_has_been_heard_that_they_left(
    by: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(namespaces=NAMESPACES)
    slow = Slow(server)
    async with server_site(server) as site:
        raw = await site.raw()
        first = await joined(raw, "/custom")
        leaving = None
        if by == "client":
            raw.send("41/custom,")
        else:
            leaving = asyncio.ensure_future(server.disconnect(first, namespace="/custom"))
            assert await raw.text() == "41/custom,"
        raw.send("40/custom,", '42/custom,7["x"]')
        [session] = server.eio.sessions.values()
        await until(lambda: session.is_held, "nobody judges it")
        assert slow.heard == ["comes", "goes"]
        slow.go_on.set()
        second = (await raw.text()).removeprefix('40/custom,{"sid":"').removesuffix('"}')
        assert await raw.text() == f'43/custom,7["{second}"]'
        assert slow.heard == ["comes", "goes", "is gone", "comes"]
        assert second != first
        if leaving is not None:
            await leaving
        raw.cut()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_whose_session_ends_while_they_wait_to_come_back_leaves_nothing() -> None:
    server = Server(namespaces=NAMESPACES)
    slow = Slow(server)
    async with server_site(server) as site:
        raw = await site.raw()
        await joined(raw, "/custom")
        raw.send("41/custom,", "40/custom,")
        [session] = server.eio.sessions.values()
        await until(lambda: session.is_held, "nobody judges it")
        session.abort()
        slow.go_on.set()
        await nothing_left(server)
        assert slow.heard == ["comes", "goes", "is gone"]


@pytest.mark.parametrize("by", ["client", "server", "end"])
async def test_a_handler_that_breaks_as_it_hears_who_left_leaves_nothing(by: str) -> None:
    server = Server(namespaces=NAMESPACES)

    @server.on("disconnect", namespace="/custom")
    async def disconnect(sid: str, reason: str) -> None:
        raise RuntimeError("as asked")

    async with server_site(server) as site:
        raw = await site.raw()
        await joined(raw)
        sid = await joined(raw, "/custom")
        if by == "client":
            raw.send("41/custom,")
        elif by == "server":
            with pytest.raises(RuntimeError):
                await server.disconnect(sid, namespace="/custom")
        else:
            raw.cut()
        await until(lambda: "/custom" not in server.manager.rooms, "it is there")
        raw.cut()


# what handlers know of who is gone


async def test_what_is_kept_with_a_client_stays_until_its_handlers_have_heard_that_it_is_gone() -> None:
    server = Server(namespaces=NAMESPACES)
    told: dict[str, Any] = {}

    def tell(namespace: str) -> Callable[[str, str], Awaitable[None]]:
        async def disconnect(sid: str, reason: str) -> None:
            for _ in range(3):
                await asyncio.sleep(0)
            told[namespace] = (
                await server.get_session(sid, namespace=namespace),
                server.get_environ(sid, namespace=namespace)["HTTP_X_MINE"],
            )

        return disconnect

    for namespace in NAMESPACES:
        server.on("disconnect", tell(namespace), namespace=namespace)
    async with server_site(server) as site:
        raw = await site.raw(headers={"X-Mine": "1"})
        sid = await joined(raw)
        await joined(raw, "/custom")
        await server.save_session(sid, {"name": "amina"})
        raw.cut()
        await nothing_left(server)
        assert told == {"/": ({"name": "amina"}, "1"), "/custom": ({}, "1")}


async def test_nothing_is_kept_of_a_client_that_may_still_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(namespaces=NAMESPACES)
    gone: list[str] = []
    server.on("disconnect", lambda sid, reason: gone.append(reason))
    async with server_site(server) as site:
        sid = await site.open_polling()
        assert await site.post(sid, "40") == 200
        await site.poll(sid)
        await server.emit("x")
        server.eio.sessions[sid].close()
        await until(lambda: gone and not server.eio._tasks, "nobody heard it")
        assert sid in server.eio.sessions
        assert not server.environ
        assert not server.eio._kept
        await site.poll(sid)


# how long a client has


class Guard:
    """A listener that refuses who says nothing, when it `may` judge."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.may.set()

    async def connecting(self, connection: Connection, auth: Any) -> None:
        await self.may.wait()
        if auth is None:
            raise Refused("no", {})

    def connected(self, connection: Connection) -> None:
        """Nothing is said."""

    def received(self, connection: Connection, name: str, arguments: Any, ack_id: int | None) -> None:
        """Nothing is done."""

    def disconnected(self, connection: Connection) -> None:
        """Nothing is left."""


async def refuse(sid: str, environ: Any, auth: Any) -> bool:
    return False


async def test_a_server_of_all_namespaces_knows_any() -> None:
    async with server_site(Server(namespaces="*")) as site, server_site(Server(namespaces=["/custom"])) as narrow:
        raw, refused = await site.raw(), await narrow.raw()
        assert await joined(raw, "/any/at/all")
        refused.send("40/any/at/all,")
        assert await refused.text() == '44/any/at/all,{"message":"Invalid namespace"}'
        for each in (raw, refused):
            each.cut()


@pytest.mark.parametrize("namespace", NAMESPACES)
async def test_who_is_refused_has_no_more_time_than_before(namespace: str) -> None:
    server = Server(Guard(), connect_timeout_ms=200, namespaces=["/custom"])
    server.on("connect", refuse, namespace="/custom")
    where = "" if namespace == "/" else f"{namespace},"
    async with server_site(server) as site:
        raw = await site.raw()

        async def go_on_asking() -> None:
            while True:
                raw.send(f"40{where}")
                assert (await raw.text()).startswith(f"44{where}")

        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(go_on_asking(), 5)


async def test_how_long_a_connect_is_judged_is_not_the_clients_time() -> None:
    guard = Guard()
    guard.may.clear()
    server = Server(guard, connect_timeout_ms=600)
    async with server_site(server) as site:
        raw = await site.raw()
        raw.send("40")
        asyncio.get_running_loop().call_later(0.7, guard.may.set)
        assert (await raw.text()).startswith("44")
        await joined(raw, auth="{}")
        raw.cut()


async def test_who_is_in_one_namespace_and_refused_in_another_stays() -> None:
    server = Server(Guard(), connect_timeout_ms=50, namespaces=["/custom"])
    server.on("x", lambda sid: "here", namespace="/custom")
    async with server_site(server) as site:
        raw = await site.raw()
        await joined(raw, "/custom")
        raw.send("40")
        assert (await raw.text()).startswith("44")
        await after(0.15)
        raw.send('42/custom,1["x"]')
        assert await raw.text() == '43/custom,1["here"]'
        raw.cut()


async def test_who_loses_one_namespace_while_another_judges_them_stays() -> None:
    guard = Guard()
    guard.may.clear()
    server = Server(guard, connect_timeout_ms=50, namespaces=["/custom"])
    async with server_site(server) as site:
        raw = await site.raw()
        sid = await joined(raw, "/custom")
        raw.send("40{}")
        [session] = server.eio.sessions.values()
        await until(lambda: session.is_held, "nobody judges it")
        await server.disconnect(sid, namespace="/custom")
        assert await raw.text() == "41/custom,"
        await after(0.15)
        guard.may.set()
        assert (await raw.text()).startswith('40{"sid"')
        raw.cut()


async def test_who_leaves_has_the_time_anew() -> None:
    server = Server(connect_timeout_ms=100, namespaces=NAMESPACES)
    async with server_site(server) as site:
        raw = await site.raw()
        await joined(raw)
        await after(0.15)
        raw.send("41")
        await joined(raw)
        raw.send("41")
        assert await raw.end() is None
