"""Tokens that somebody else has made: none is believed, wherever it is shown."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.people import SECRET, ConnectRefused, Instance, Person

Claims = dict[str, Any]
OTHERS = "the secret of somebody else, thirty-two bytes long as well"


def claims_of(person: Person, **changes: Any) -> Claims:
    """What that person's own token claims, with changes; a change to None leaves a claim out."""
    now = int(time.time())
    good = {
        "iss": "parley", "aud": "parley", "sub": person.user_id, "sid": person.session_id, "scope": "full",
        "iat": now, "exp": now + 600,
    }  # fmt: skip
    return {name: value for name, value in (good | changes).items() if value is not None}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(claims: Claims | bytes, key: str = SECRET, how: str = "sha256", **header: Any) -> str:
    """A token under any header, by HMAC whatever that says."""
    head = {name: value for name, value in {"alg": "HS256", "typ": "JWT", **header}.items() if value is not None}
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    told = f"{b64(json.dumps(head).encode())}.{b64(body)}"
    return f"{told}.{b64(hmac.digest(key.encode(), told.encode(), how))}"


def unsigned(claims: Claims, alg: Any) -> str:
    return signed(claims, alg=alg).rpartition(".")[0] + "."


def swapped(token: str, **changes: Any) -> str:
    """A token whose claims were changed behind its signature."""
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{head}.{b64(json.dumps(claims | changes).encode())}.{signature}"


OWN_KEY = {"kty": "oct", "k": b64(OTHERS.encode()), "alg": "HS256"}
Make = Callable[[Person], Any]


def each(name: str, values: Sequence[Any], make: Callable[[Person, Any], Any]) -> dict[str, Make]:
    """A token for each of the values."""

    def making(value: Any) -> Make:
        return lambda person: make(person, value)

    return {f"{name} {value!r}": making(value) for value in values}


def claiming(name: str, *values: Any) -> dict[str, Make]:
    """Tokens of the right hand in which one claim is each of the values; None leaves it out."""
    return each(name, values, lambda person, value: signed(claims_of(person, **{name: value})))


SYMMETRIC = ("none", "HS384", "hs256", "A128KW")
ASYMMETRIC = ("RS256", "ES256", "PS256", "EdDSA")
NONE_AT_ALL = ("none", "None", "nOnE", "NONE", "")
NO_NAMES = (["HS256"], {"HS256": 1}, 256, True, None)
BY_OTHERS: dict[str, Make] = {
    **each("unsigned, alg", NONE_AT_ALL, lambda p, alg: unsigned(claims_of(p), alg)),
    **each("alg", [*SYMMETRIC, *ASYMMETRIC, *NO_NAMES], lambda p, alg: signed(claims_of(p), alg=alg)),
    "HS512, so signed": lambda p: signed(claims_of(p), how="sha512", alg="HS512"),
    "by another's secret": lambda p: signed(claims_of(p), OTHERS),
    "by no secret": lambda p: signed(claims_of(p), ""),
    "by the issuer's name": lambda p: signed(claims_of(p), "parley"),
    "by a key of its own": lambda p: signed(claims_of(p), OTHERS, jwk=OWN_KEY),
    "by a key at an address": lambda p: signed(claims_of(p), OTHERS, jku="https://evil.example/keys.json", kid="1"),
    "by a certificate at an address": lambda p: signed(claims_of(p), OTHERS, x5u="https://evil.example/own.pem"),
    "by a certificate of its own": lambda p: signed(claims_of(p), OTHERS, x5c=["MIIB"], x5t="x"),
    "by a key that is a file": lambda p: signed(claims_of(p), "", kid="../../../../../../dev/null"),
    "by a key that is a query": lambda p: signed(claims_of(p), OTHERS, kid="x' union select '" + OTHERS),
    "with a key's name that is none": lambda p: signed(claims_of(p), kid=["a"]),
    "by what is critical": lambda p: signed(claims_of(p), crit=["exp"]),
    "by what is critical and unknown": lambda p: signed(claims_of(p), crit=["b64"], b64=False),
    "changed to be another's": lambda p: swapped(p.token, sub="018f0000-0000-7000-8000-000000000001"),
    "changed to last": lambda p: swapped(p.token, exp=int(time.time()) + 10**6),
    "changed to allow more": lambda p: swapped(p.token, scope="full", roles=["admin"]),
    "without its signature": lambda p: p.token.rpartition(".")[0],
    "with an empty signature": lambda p: p.token.rpartition(".")[0] + ".",
    "with half of its signature": lambda p: p.token[:-20],
    "twice": lambda p: f"{p.token}.{p.token}",
    "of five parts": lambda p: f"{p.token}.e30.e30",
    "with a space in it": lambda p: p.token.replace(".", " .", 1),
    "with a line's end in it": lambda p: p.token.replace(".", ".\n"),
    "with a NUL in it": lambda p: p.token + "\0",
    "with a BOM before it": lambda p: "\ufeff" + p.token,
    "with other dots": lambda p: p.token.replace(".", "\uff0e"),
    "in wide letters": lambda p: "".join(chr(ord(c) + 0xFEE0) if c.isalnum() else c for c in p.token),
    "half of a pair": lambda p: "\ud800",
    "with its scheme": lambda p: "Bearer " + p.token,
    "a refresh token": lambda p: p.refresh_token or "r" * 43,
    "a session's id": lambda p: p.session_id,
    "long": lambda p: signed(claims_of(p, more="x" * 5_000), OTHERS),
    "longer than any text": lambda p: "a" * 20_000,
    "a list": lambda p: [p.token],
    "an object": lambda p: {"token": p.token},
    "a number": lambda p: 1,
    "true": lambda p: True,
}  # fmt: skip
NOW = time.time
WRONG: dict[str, Make] = {
    "has ended": lambda p: signed(claims_of(p, exp=int(NOW()) - 1)),
    "has ended by a fraction": lambda p: signed(claims_of(p, exp=NOW() - 0.5)),
    "begins later": lambda p: signed(claims_of(p, nbf=int(NOW()) + 600)),
    **claiming("exp", None, "9999999999", [9_999_999_999], True, 10**12, 10**30, -1, 1e300),
    **each("exp", [float("inf"), float("nan")], lambda p, end: signed(json.dumps(claims_of(p, exp=end)).encode())),
    **claiming("aud", None, "Parley", "parley ", [], ["x"], 1, {}),
    **claiming("iss", None, "https://parley", ["parley"], 1),
    **claiming("sub", None, "", "' or 1=1", 1, [], {}, True),
    **claiming("sid", None, "", "*", 1, [], {}, True),
    **claiming("scope", None, "", "FULL", "full read", "admin", 1, [], {}),
    **claiming("sub", "018f0000-0000-7000-8000-000000000001"),  # another's
    **claiming("sid", "018f0000-0000-7000-8000-000000000001"),
    "of no object": lambda p: signed(b"[]"),
    "of no JSON": lambda p: signed(b"{"),
    "of nothing": lambda p: signed(b""),
    "of deep nesting": lambda p: signed(b'{"a":' + b"[" * 3_000 + b"]" * 3_000 + b"}"),
}  # fmt: skip
FIT_FOR_A_HEADER = frozenset(chr(code) for code in range(0x21, 0x7F)) | {" "}


@pytest.mark.parametrize("forged", [BY_OTHERS, WRONG], ids=["made by others", "made by a wrong hand with the secret"])
async def test_no_forged_token_lets_anybody_in(parley: Instance, forged: dict[str, Make]) -> None:
    amina = await parley.person("amina")
    live = await amina.connect()
    found = []
    for about, make in forged.items():
        token = make(amina)
        codes = {}
        if isinstance(token, str) and FIT_FOR_A_HEADER.issuperset(token):
            headers = {"Authorization": f"Bearer {token}"}
            async with parley.http.post(f"{parley.url}/api/account/me", headers=headers) as response:
                codes["HTTP"] = (await response.json())["error"]["code"] if response.status != 400 else "invalid"
        try:
            await amina.connect(token=token)
            codes["socket"] = "ok"
        except ConnectRefused as refused:
            codes["socket"] = refused.said["data"]["code"]
        renewed = await live.answer("account:renew", token=token)
        codes["renew"] = "ok" if renewed["ok"] else renewed["error"]["code"]
        if not set(codes.values()) <= {"unauthenticated", "invalid", "too_large"}:
            found.append((about, codes))
    assert not found
    assert (await live.call("account:me"))["user_id"] == amina.user_id


async def test_a_token_in_an_address_is_nobodys(parley: Instance) -> None:
    amina = await parley.person("amina")
    shown = f"token={amina.token}&access_token={amina.token}&auth={amina.token}"
    async with parley.http.post(f"{parley.url}/api/account/me?{shown}") as response:
        assert response.status == 401
    async with parley.http.ws_connect(f"{parley.url}/socket.io/?EIO=4&transport=websocket&{shown}") as ws:
        await ws.receive_str()
        await ws.send_str("40")
        assert '"unauthenticated"' in await ws.receive_str()
    for scheme in ("Basic", "Token", "bearer_", "JWT", ""):
        headers = {"Authorization": f"{scheme} {amina.token}"}
        async with parley.http.post(f"{parley.url}/api/account/me", headers=headers) as response:
            assert response.status == 401
