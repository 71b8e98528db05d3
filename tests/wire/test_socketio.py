"""python-socketio's API on our engine, with its own client and with bytes of our own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest
import socketio
from aiohttp import web

from server.wire import Server
from tests.wire import bare
from tests.wire.bare import PATIENCE_S, TEXT, Raw, Site, client_frame, handshake, serving, until

TRANSPORTS = pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]], ids="+".join)


@asynccontextmanager
async def server_site(server: Server) -> AsyncIterator[Site]:
    """Serve a server, and hold that it has nothing left in the end."""
    app = web.Application()
    server.attach(app)
    async with serving(app) as site:
        yield site
        for session in list(server.eio.sessions.values()):
            session.abort()
        await nothing_left(server)
        await server.shutdown()


async def nothing_left(server: Server) -> None:
    """Wait until the server holds no session, nobody who is in a namespace, and no task."""
    await bare.nothing_left(server.eio)
    await until(lambda: not server.eio._tasks, "a task is left")
    assert not server.environ
    assert not server.manager.rooms
    assert not server.manager.callbacks
    assert not server.manager._entered
    assert not server.eio._kept
    assert not server._admission.addresses
    assert not any(server.manager.pending_connect.values())
    assert not any(server.manager.pending_disconnect.values())


@pytest.fixture
def server() -> Server:
    return Server(connect_timeout_ms=60_000, namespaces=["/", "/custom"])


@pytest.fixture
async def site(server: Server) -> AsyncIterator[Site]:
    async with server_site(server) as one:
        yield one


@asynccontextmanager
async def client(site: Site, **options: Any) -> AsyncIterator[socketio.AsyncClient]:
    """python-socketio's own client, connected."""
    serializer = options.pop("serializer", "default")
    one = socketio.AsyncClient(reconnection=False, serializer=serializer)
    one.heard = []
    one.on("*", lambda name, *arguments: one.heard.append((name, *arguments)))
    await one.connect(site.url, **{"transports": ["websocket"], **options})
    yield one
    await one.disconnect()


async def joined(raw: Raw, namespace: str = "/", auth: str = "") -> str:
    """Connect to a namespace; the sid there."""
    where = "" if namespace == "/" else f"{namespace},"
    raw.send(f"40{where}{auth}")
    answer = await raw.text()
    assert answer.startswith(f"40{where}"), answer
    sid: str = json.loads(answer.removeprefix(f"40{where}"))["sid"]
    return sid


# who may open a session


async def test_what_is_no_handshake_takes_nothing_of_what_handshakes_may() -> None:
    async with server_site(Server(handshakes=SimpleNamespace(per_second=0.001, burst=1))) as site:
        for _ in range(3):
            async with site.http.get(f"{site.url}{site.path}?EIO=4&transport=websocket") as response:
                assert response.status == 400
        raw = await site.raw()
        raw.cut()
        async with site.http.get(site.polling()) as response:
            assert response.status == 503


async def test_an_address_has_no_more_sessions_than_it_may_though_they_are_opened_at_once() -> None:
    waits, may = asyncio.Event(), asyncio.Event()

    async def signal(request: web.Request, response: web.StreamResponse) -> None:
        if response.status == 101:
            waits.set()
            await may.wait()

    server, app = Server(per_address=1), web.Application()
    app.on_response_prepare.append(signal)
    server.attach(app)
    async with serving(app) as site:
        first = await site.plain()
        first.writer.write(handshake(f"{site.path}?EIO=4&transport=websocket"))
        await waits.wait()
        async with site.http.get(site.polling()) as response:
            assert response.status == 429
        first.cut()
        await until(lambda: site.requests <= 1, "its connection is kept")
        may.set()
        await until(lambda: not server._admission.addresses, "who has not come is still counted")
        await site.open_polling()
        async with site.http.get(site.polling()) as response:
            assert response.status == 429
        await server.shutdown()
        assert not server._admission.addresses


# connects


@TRANSPORTS
@pytest.mark.parametrize("serializer", ["default", "msgpack"])
async def test_a_client_connects_talks_and_leaves(
    server: Server, site: Site, transports: list[str], serializer: str
) -> None:
    reasons: list[str] = []
    server.on("connect", lambda sid, environ, auth: None)
    server.on("echo", lambda sid, *arguments: arguments)
    server.on("disconnect", lambda sid, reason: reasons.append(reason))
    arguments = ({"a": [1, 2.5, None, True, "é"]}, "x", b"\x00\xff", [b"y"])
    async with client(site, transports=transports, serializer=serializer) as one:
        assert one.transport() == transports[-1]
        assert await one.call("echo", arguments) == arguments
    await until(lambda: reasons, "nobody said that it went")
    assert reasons in (["client disconnect"], ["transport close"])  # this client closes before it has said so


async def test_a_namespace_that_is_none_is_refused_and_the_session_stays(site: Site) -> None:
    raw = await site.raw()
    raw.send("40/other,")
    assert await raw.text() == '44/other,{"message":"Invalid namespace"}'
    await joined(raw)
    raw.send("40/other,{}")
    assert await raw.text() == '44/other,{"message":"Invalid namespace"}'
    raw.cut()


async def test_namespaces_are_apart(server: Server, site: Site) -> None:
    heard: list[Any] = []
    for namespace in ("/", "/custom"):
        server.on("x", lambda sid, n, namespace=namespace: heard.append((namespace, sid, n)), namespace=namespace)
    raw = await site.raw()
    at_root, at_custom = await joined(raw), await joined(raw, "/custom")
    assert at_root != at_custom
    raw.send('42["x",1]', '42/custom,["x",2]')
    await until(lambda: len(heard) == 2)
    assert heard == [("/", at_root, 1), ("/custom", at_custom, 2)]
    await server.emit("y", 3, namespace="/custom")
    assert await raw.text() == '42/custom,["y",3]'
    raw.send("41/custom,", '42["x",4]')
    await until(lambda: len(heard) == 3)
    raw.send('42/custom,["x",5]')
    assert await raw.end() == 1002


async def test_what_is_emitted_during_the_connect_comes_behind_its_answer(server: Server, site: Site) -> None:
    @server.on("connect", namespace="/custom")
    async def connect(sid: str, environ: Any, auth: Any) -> None:
        await server.emit("first", 1, to=sid, namespace="/custom")
        await server.enter_room(sid, "room", namespace="/custom")
        await server.emit("second", {"auth": auth}, room="room", namespace="/custom")
        await asyncio.sleep(0)
        await server.emit("third", namespace="/custom")

    raw = await site.raw()
    await joined(raw, "/custom", '{"token":"x"}')
    texts = [await raw.text() for _ in range(3)]
    assert texts == ['42/custom,["first",1]', '42/custom,["second",{"auth":{"token":"x"}}]', '42/custom,["third"]']
    raw.cut()


async def test_who_is_refused_hears_why_and_nothing_that_was_emitted_before(server: Server, site: Site) -> None:
    @server.on("connect")
    async def connect(sid: str, environ: Any, auth: Any) -> None:
        await server.emit("early", to=sid)
        if auth != {"token": "right"}:
            raise socketio.exceptions.ConnectionRefusedError("no", {"code": 7})

    raw = await site.raw()
    raw.send("40")
    assert await raw.text() == '44{"message":"no","data":{"code":7}}'
    raw.send('40{"token":"right"}')
    assert (await raw.text()).startswith('40{"sid"')
    assert await raw.text() == '42["early"]'
    raw.cut()


async def test_who_is_refused_may_not_talk(server: Server, site: Site) -> None:
    server.on("connect", lambda sid, environ, auth: False)
    heard: list[Any] = []
    server.on("x", lambda *arguments: heard.append(arguments))
    raw = await site.raw()
    raw.send("40", '42["x"]')
    assert (await raw.text()).startswith("44")
    assert await raw.end() == 1002
    assert heard == []


async def test_what_a_client_sends_right_behind_its_connect_waits_for_it(server: Server, site: Site) -> None:
    let_in = asyncio.Event()
    order: list[Any] = []

    @server.on("connect")
    async def connect(sid: str, environ: Any, auth: Any) -> None:
        await let_in.wait()
        order.append("connect")

    server.on("x", lambda sid, n: order.append(n))
    raw = await site.raw()
    raw.send("40", *(f'42["x",{n}]' for n in range(50)), '427["x",50]')
    await until(lambda: server.eio._tasks, "nobody judges it")
    assert order == []
    let_in.set()
    await raw.text()
    assert await raw.text() == "437[]"
    assert order == ["connect", *range(51)]
    raw.cut()


async def test_a_client_that_goes_while_it_is_judged_leaves_nothing(server: Server, site: Site) -> None:
    let_in = asyncio.Event()
    left: list[str] = []

    @server.on("connect")
    async def connect(sid: str, environ: Any, auth: Any) -> None:
        await let_in.wait()
        await server.enter_room(sid, "room")

    server.on("disconnect", lambda sid, reason: left.append(sid))
    raw = await site.raw()
    raw.send("40")
    await until(lambda: server.eio._tasks, "nobody judges it")
    raw.cut()
    let_in.set()
    await nothing_left(server)
    assert len(left) == 1  # it was let in, and went


async def test_a_handler_that_breaks_at_the_connect_ends_the_session(server: Server, site: Site) -> None:
    @server.on("connect")
    async def connect(sid: str, environ: Any, auth: Any) -> None:
        raise RuntimeError("as asked")

    raw = await site.raw()
    raw.send("40")
    assert await raw.end() is None
    await nothing_left(server)


async def test_a_namespace_that_is_no_text_ends_the_session(site: Site) -> None:
    raw = await site.raw()
    raw.writer.write(client_frame(TEXT, b"40/custom?a=\xff,"))
    assert await raw.end() == 1007


async def test_a_second_connect_ends_the_session(site: Site) -> None:
    raw = await site.raw()
    await joined(raw, "/custom")
    raw.send("40/custom,")
    assert await raw.end() == 1002


async def test_who_connects_to_nothing_is_cut() -> None:
    async with server_site(Server(connect_timeout_ms=50)) as site:
        raw = await site.raw()
        assert await raw.end() is None


@pytest.mark.parametrize("name", ["connect", "disconnect", "connect_error", "newListener"])
async def test_a_reserved_event_from_a_client_ends_the_session(server: Server, site: Site, name: str) -> None:
    called: list[Any] = []
    server.on("connect", lambda *arguments: called.append(arguments))
    raw = await site.raw()
    await joined(raw)
    raw.send(f'42["{name}",{{}}]')
    assert await raw.end() == 1002
    assert len(called) == 1


# events


async def test_the_events_of_one_client_begin_in_order(server: Server, site: Site) -> None:
    begun: list[int] = []
    go_on = asyncio.Event()

    @server.on("x")
    async def handle(sid: str, n: int) -> int:
        begun.append(n)
        await go_on.wait()
        return n

    raw = await site.raw()
    await joined(raw)
    raw.send(*(f'42{n}["x",{n}]' for n in range(200)))
    await until(lambda: len(begun) == 200)
    assert begun == list(range(200))
    go_on.set()
    assert [await raw.text() for _ in range(200)] == [f"43{n}[{n}]" for n in range(200)]
    raw.cut()


async def test_a_handler_that_breaks_is_logged_and_the_socket_lives(
    server: Server, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    @server.on("x")
    async def handle(sid: str) -> None:
        raise RuntimeError("as asked")

    server.on("y", lambda sid: "still here")
    raw = await site.raw()
    await joined(raw)
    raw.send('42["x"]', '420["y"]')
    assert await raw.text() == '430["still here"]'
    assert "a handler failed" in caplog.text
    raw.cut()


async def test_bytes_come_as_attachments_and_go_as_attachments(server: Server, site: Site) -> None:
    server.on("x", lambda sid, *arguments: arguments)
    raw = await site.raw()
    await joined(raw)
    raw.send('452-3["x",{"_placeholder":true,"num":1},{"a":{"_placeholder":true,"num":0}}]', b"\x01", b"\x02\x03")
    assert await raw.text() == '462-3[{"_placeholder":true,"num":0},{"a":{"_placeholder":true,"num":1}}]'
    assert [(await raw.frame()).payload for _ in range(2)] == [b"\x02\x03", b"\x01"]
    raw.cut()


@pytest.mark.parametrize("late", ['42["x"]', "41", '451-["x",{"_placeholder":true,"num":0}]'])
async def test_nothing_comes_between_a_packet_and_its_attachments(site: Site, late: str) -> None:
    raw = await site.raw()
    await joined(raw)
    raw.send('451-["x",{"_placeholder":true,"num":0}]', late)
    assert await raw.end() == 1002


async def test_attachments_are_bounded_together() -> None:
    server = Server(frame_bytes=10_000)
    server.on("x", lambda sid, *arguments: len(arguments))
    async with server_site(server) as site:
        raw = await site.raw()
        await joined(raw)
        frame = '453-["x",{"_placeholder":true,"num":0}]'
        raw.send(frame, b"a" * 4_000, b"b" * 4_000)
        raw.send(b"c" * 4_000)
        assert await raw.end() == 1002


async def test_the_codec_is_that_of_the_connect_for_good(server: Server, site: Site) -> None:
    server.on("x", lambda sid, n: n)
    raw = await site.raw()
    raw.send(msgpack.packb({"type": 0, "nsp": "/"}))
    assert msgpack.unpackb((await raw.frame()).payload)["type"] == 0
    raw.send(msgpack.packb({"type": 2, "nsp": "/", "id": 4, "data": ["x", b"\xff"]}))
    assert msgpack.unpackb((await raw.frame()).payload) == {"type": 3, "nsp": "/", "id": 4, "data": [b"\xff"]}
    raw.send('42["x",1]')
    assert await raw.end() == 1002
    other = await site.raw()
    await joined(other)
    other.send(msgpack.packb({"type": 2, "nsp": "/", "data": ["x", 1]}))
    assert await other.end() == 1002


# rooms


async def test_rooms_reach_who_is_in_them_and_nobody_twice(server: Server, site: Site) -> None:
    raws = [await site.raw() for _ in range(3)]
    sids = [await joined(raw) for raw in raws]
    await server.enter_room(sids[0], "a")
    await server.enter_room(sids[1], "a")
    await server.enter_room(sids[1], "b")
    assert sorted(server.rooms(sids[1])) == sorted([sids[1], "a", "b"])
    await server.emit("one", room="a", skip_sid=sids[0])
    await server.emit("two", room=["a", "b"])
    await server.emit("three", to=sids[2])
    await server.emit("four")
    expected = [["two", "four"], ["one", "two", "four"], ["three", "four"]]
    for raw, names in zip(raws, expected, strict=True):
        assert [json.loads((await raw.text())[2:])[0] for _ in names] == names
    await server.leave_room(sids[1], "a")
    await server.close_room("b")
    assert server.rooms(sids[1]) == [sids[1]]
    await server.emit("five", room="a")
    assert await raws[0].text() == '42["five"]'
    await server.emit("six", room="b")
    await server.emit("seven")
    assert await raws[1].text() == '42["seven"]'
    for raw in raws:
        raw.cut()


async def test_a_client_that_is_gone_is_in_no_room(server: Server, site: Site) -> None:
    raw = await site.raw()
    sid = await joined(raw)
    await server.enter_room(sid, "a")
    raw.cut()
    await nothing_left(server)
    await server.emit("x", room="a")


async def test_what_is_emitted_goes_out_in_order(server: Server, site: Site) -> None:
    raw = await site.raw()
    await joined(raw)
    for n in range(500):
        await server.emit("x", n)
    assert [await raw.text() for _ in range(500)] == [f'42["x",{n}]' for n in range(500)]
    raw.cut()


async def test_an_emit_takes_what_the_librarys_does(server: Server, site: Site) -> None:
    raw = await site.raw()
    await joined(raw)
    await server.emit("x")
    await server.emit("x", (1, {"a": 2}))
    await server.emit("x", [1, 2])
    await server.emit("x", b"\xff")
    await server.send("hello")
    texts = ['42["x"]', '42["x",1,{"a":2}]', '42["x",[1,2]]', '451-["x",{"_placeholder":true,"num":0}]']
    assert [await raw.text() for _ in texts] == texts
    assert (await raw.frame()).payload == b"\xff"
    assert await raw.text() == '42["message","hello"]'
    raw.cut()


# answers to what the server asks


async def test_a_call_is_answered_by_the_client(server: Server, site: Site) -> None:
    async with client(site) as one:
        one.on("sum", lambda a, b: a + b)
        one.on("several", lambda: (1, 2))
        one.on("nothing", lambda: None)
        sid = one.get_sid()
        assert await server.call("sum", (1, 2), to=sid) == 3
        assert await server.call("several", to=sid) == (1, 2)
        assert await server.call("nothing", to=sid) is None


async def test_a_call_that_nobody_answers_ends_with_its_time_out(server: Server, site: Site) -> None:
    raw = await site.raw()
    sid = await joined(raw)
    with pytest.raises(socketio.exceptions.TimeoutError):
        await server.call("x", to=sid, timeout=0.05)
    assert list(server.manager.callbacks[sid]) == [0]  # where the next id comes from, and nothing that waits
    assert await raw.text() == '421["x"]'
    raw.send("431[5]", "431[6]", "439[7]", "43[8]")
    again = asyncio.ensure_future(server.call("x", to=sid, timeout=PATIENCE_S))
    assert await raw.text() == '422["x"]'
    raw.send("432[9]")
    assert await again == 9
    raw.cut()


async def test_a_call_that_is_broken_off_leaves_nothing(server: Server, site: Site) -> None:
    raw = await site.raw()
    sid = await joined(raw)
    call = asyncio.ensure_future(server.call("x", to=sid))
    assert await raw.text() == '421["x"]'
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(TypeError):
        await server.call("x", object(), to=sid)
    with pytest.raises(ValueError, match="one client"):
        await server.call("x")
    assert list(server.manager.callbacks[sid]) == [0]
    raw.cut()


async def test_a_callback_is_called_once_with_what_the_client_said(server: Server, site: Site) -> None:
    said: list[Any] = []
    raw = await site.raw()
    sid = await joined(raw)

    async def slow(*arguments: Any) -> None:
        said.append(arguments)

    await server.emit("x", to=sid, callback=lambda *arguments: said.append(arguments))
    await server.emit("x", to=sid, callback=slow)
    assert [await raw.text() for _ in range(2)] == ['421["x"]', '422["x"]']
    raw.send('431["a",1]', "431[2]", "432[]", "432[]")
    await until(lambda: len(said) == 2 and not server.eio._tasks)
    assert said == [("a", 1), ()]
    raw.cut()


# disconnects


@pytest.fixture
def reasons(server: Server) -> list[str]:
    found: list[str] = []
    server.on("disconnect", lambda sid, reason: found.append(reason))
    return found


async def test_a_client_that_leaves_its_namespace_may_come_back(server: Server, site: Site, reasons: list[str]) -> None:
    raw = await site.raw()
    first = await joined(raw)
    raw.send("41")
    await until(lambda: reasons)
    assert reasons == ["client disconnect"]
    assert await joined(raw) != first
    raw.cut()


@pytest.mark.parametrize(
    ("deed", "reason"),
    [("cut", "transport close"), ("1", "transport close"), ("malformed", "transport error")],
)
async def test_a_reason_says_how_a_client_went(
    server: Server, site: Site, reasons: list[str], deed: str, reason: str
) -> None:
    raw = await site.raw()
    await joined(raw)
    if deed == "cut":
        raw.cut()
    else:
        raw.send(deed)
    await until(lambda: reasons)
    assert reasons == [reason]


async def test_a_client_that_answers_no_ping_went_by_a_time_out(reasons: list[str]) -> None:
    server = Server(ping_interval_ms=30, ping_timeout_ms=50)
    server.on("disconnect", lambda sid, reason: reasons.append(reason))
    async with server_site(server) as site:
        raw = await site.raw()
        await joined(raw)
        await until(lambda: reasons)
        assert reasons == ["ping timeout"]


@pytest.mark.parametrize("namespace", ["/", "/custom"])
async def test_a_client_that_the_server_disconnects_hears_it_and_may_come_back(
    server: Server, site: Site, reasons: list[str], namespace: str
) -> None:
    server.on("disconnect", lambda sid, reason: reasons.append(reason), namespace="/custom")
    heard: list[Any] = []
    server.on("x", lambda sid: heard.append(sid), namespace=namespace)
    where = "" if namespace == "/" else f"{namespace},"
    raw = await site.raw()
    sid = await joined(raw, namespace)
    await server.disconnect(sid, namespace=namespace)
    assert await raw.text() == f"41{where}"
    assert reasons == ["server disconnect"]
    again = await joined(raw, namespace)
    raw.send(f'42{where}0["x"]')
    assert await raw.text() == f"43{where}0[]"
    assert heard == [again]
    raw.cut()


async def test_who_the_server_has_disconnected_may_not_talk(server: Server, site: Site) -> None:
    heard: list[Any] = []
    server.on("x", lambda sid: heard.append(sid))
    raw = await site.raw()
    await server.disconnect(await joined(raw))
    raw.send('42["x"]')
    assert await raw.end() == 1002
    assert heard == []


async def test_who_the_server_has_disconnected_and_does_not_connect_anew_is_cut() -> None:
    server = Server(connect_timeout_ms=100)
    async with server_site(server) as site:
        raw = await site.raw()
        await server.disconnect(await joined(raw))
        assert await raw.end() is None


# what is kept with a client


async def test_a_session_is_kept_and_goes_with_its_client(server: Server, site: Site) -> None:
    raw = await site.raw()
    sid, other = await joined(raw), await joined(raw, "/custom")
    await server.save_session(sid, {"name": "amina"})
    async with server.session(sid) as kept:
        kept["age"] = 30
    assert await server.get_session(sid) == {"name": "amina", "age": 30}
    assert await server.get_session(other, namespace="/custom") == {}
    raw.cut()
    await until(lambda: not server.sessions)
    with pytest.raises(KeyError):
        await server.get_session(sid)


async def test_a_handler_knows_the_request(server: Server, site: Site) -> None:
    seen: list[Any] = []
    server.on("connect", lambda sid, environ, auth: seen.append((server.get_environ(sid), server.transport(sid))))
    raw = await site.raw("&a=b", headers={"User-Agent": "a phone", "X-Mine": "1"})
    await joined(raw)
    [(environ, transport)] = seen
    assert transport == "websocket"
    assert environ["HTTP_USER_AGENT"] == "a phone"
    assert environ["HTTP_X_MINE"] == "1"
    assert environ["QUERY_STRING"].endswith("a=b")
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    raw.cut()


# the admin UI


@pytest.mark.parametrize("mode", ["development", "production"])
async def test_the_admin_ui_sees_who_is_there(mode: str) -> None:
    server = Server(namespaces="*")
    instrumented = server.instrument(auth=False, mode=mode, server_stats_interval=0.05)
    server.on("echo", lambda sid, n: n)
    app = web.Application()
    server.attach(app)
    try:
        async with serving(app) as site:
            heard: list[Any] = []
            ui = socketio.AsyncClient(reconnection=False)
            ui.on("*", lambda name, *arguments: heard.append((name, arguments)), namespace="/admin")
            await ui.connect(site.url, transports=["websocket"], namespaces=["/admin"])
            async with client(site) as one:
                assert await one.call("echo", 5) == 5
                await server.enter_room(one.get_sid(), "room")
                await until(lambda: any(name == "server_stats" for name, _ in heard), "no figures have come")
                stats = [arguments[0] for name, arguments in heard if name == "server_stats"][-1]
                assert stats["clientsCount"] == 2
                if mode == "development":
                    for name in ("socket_connected", "room_joined", "event_received"):
                        await until(lambda name=name: any(each == name for each, _ in heard), f"no {name}: {heard}")
            await ui.disconnect()
            await until(lambda: not server.sessions)
            await instrumented.shutdown()
            await server.shutdown()
    finally:
        instrumented.uninstrument()
