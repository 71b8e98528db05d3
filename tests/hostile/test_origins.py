"""Pages of other sites: none opens a socket in a browser's name, by whichever transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import pytest

from tests.people import Instance

LISTED = "https://app.example"
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
}
# {host} and {port} are the server's own.
OTHERS = [
    "https://evil.example",
    "null",
    "",
    " ",
    "file://",
    "app.example",
    "//app.example",
    "http://app.example",
    "https://www.app.example",
    "https://app.example.evil.example",
    "https://evil.example/https://app.example",
    "https://evil.example?https://app.example",
    "https://evil.example#https://app.example",
    "https://evil.example@app.example",
    "https://app.example@evil.example",
    "https://xapp.example",
    "https://app.example.",
    "https://app.example/",
    "https://app.example:8443",
    "https://app.example:443",
    "HTTPS://APP.EXAMPLE",
    "https://App.example",
    "https://app.example https://evil.example",
    "https://app.example, https://evil.example",
    "https://*.example",
    "*",
    "https://{host}",
    "http://{name}",
    "http://{name}.:{port}",
    "http://{name}:{other}",
    "http://localhost:{port}",
    "http://evil.example:{port}",
    "http://{host}.evil.example",
    "http://{host}@evil.example",
    "chrome-extension://{host}",
]


def origin_of(parley: Instance, form: str) -> str:
    parts = urlsplit(parley.url)
    assert parts.port is not None
    return form.format(host=parts.netloc, name=parts.hostname, port=parts.port, other=parts.port - 1)


async def opened(parley: Instance, query: str, headers: dict[str, str], body: bytes | None = None) -> int:
    url = f"{parley.url}/socket.io/?EIO=4&transport={query}"
    async with parley.http.request("GET" if body is None else "POST", url, headers=headers, data=body) as response:
        if response.status == 403:
            assert "Access-Control-Allow-Origin" not in response.headers
        return response.status


@pytest.mark.parametrize("listed", ["", LISTED])
async def test_no_page_of_another_site_opens_a_socket(
    new_instance: Callable[..., Awaitable[Instance]], listed: str
) -> None:
    parley = await new_instance(PARLEY_ORIGINS=listed)
    statuses = {}
    for form in OTHERS:
        headers = {"Origin": origin_of(parley, form)}
        statuses[form] = [
            await opened(parley, "polling", headers),
            await opened(parley, "websocket", {**headers, **WEBSOCKET}),
        ]
    assert statuses == {form: [403, 403] for form in OTHERS}
    assert parley.parley.wire.sessions == 0
    for own in ("http://{host}", *filter(None, [listed])):
        headers = {"Origin": origin_of(parley, own)}
        assert await opened(parley, "polling", headers) == 200
        assert await opened(parley, "websocket", {**headers, **WEBSOCKET}) == 101


async def test_no_page_of_another_site_goes_on_with_a_socket_that_is_open(parley: Instance) -> None:
    url = f"{parley.url}/socket.io/?EIO=4&transport=polling"
    async with parley.http.get(url) as response:
        sid = (await response.text()).partition('"sid":"')[2].partition('"')[0]
    for form in OTHERS:
        headers = {"Origin": origin_of(parley, form)}
        assert await opened(parley, f"websocket&sid={sid}", {**headers, **WEBSOCKET}) == 403
        assert await opened(parley, f"polling&sid={sid}", headers) == 403
        assert await opened(parley, f"polling&sid={sid}", headers, b"40") == 403
    assert parley.parley.wire.sessions == 1
    assert await opened(parley, f"polling&sid={sid}", {}, b"3") == 200  # none the worse


async def test_a_socket_is_nobodys_by_a_cookie(parley: Instance) -> None:
    """What a browser sends along by itself proves nothing: the token stands in the connect alone."""
    amina = await parley.person("amina")
    cookies = dict.fromkeys(("token", "access_token", "authorization", "io", "session"), amina.token)
    url = f"{parley.url}/socket.io/?EIO=4&transport=websocket"
    async with parley.http.ws_connect(url, headers={"Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items())}) as ws:
        await ws.receive_str()
        for auth in ("", "{}"):
            await ws.send_str("40" + auth)
            assert '"unauthenticated"' in await ws.receive_str()
    async with parley.http.post(f"{parley.url}/api/account/me", cookies=cookies) as response:
        assert response.status == 401


async def test_a_page_may_not_say_by_headers_that_it_is_one_of_ours(parley: Instance) -> None:
    """The headers of a proxy are believed; a browser asks first whether a page may set them, and hears no."""
    asked = {
        "Origin": "https://evil.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-forwarded-host, x-forwarded-proto",
    }
    for query in ("transport=polling", "transport=websocket"):
        async with parley.http.options(f"{parley.url}/socket.io/?EIO=4&{query}", headers=asked) as response:
            assert response.status == 403
            assert not [name for name in response.headers if name.startswith("Access-Control-")]
