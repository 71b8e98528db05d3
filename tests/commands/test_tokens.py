"""Access tokens: what is believed, and everything that is not."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import jwt
import pytest

from rules.users import Scope
from server.commands.tokens import ALGORITHM, Tokens, hash_stored_token, new_stored_token
from server.errors import Unauthenticated
from tests.people import SECRET, ConnectRefused, Instance

OLD = "an older secret that is thirty-two bytes long as well"
USER, SESSION = uuid4(), uuid4()


@pytest.fixture
def tokens() -> Tokens:
    return Tokens([SECRET], access_ttl_s=60, refresh_ttl_s=600)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token with changes; a change to None leaves the claim out."""
    good = {
        "iss": "parley", "aud": "parley", "sub": str(USER), "sid": str(SESSION), "scope": "full",
        "iat": int(time.time()), "exp": int(time.time()) + 60,
    }  # fmt: skip
    return {name: value for name, value in (good | changes).items() if value is not None}


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def unsigned(algorithm: str = "none", **changes: Any) -> str:
    return f"{encoded({'alg': algorithm, 'typ': 'JWT'})}.{encoded(claims(**changes))}."


def changed(token: str, **changes: Any) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{encoded(claims(**changes))}.{signature}"


def signed(key: str = SECRET, algorithm: str = ALGORITHM, **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm=algorithm)


def test_what_was_signed_is_read(tokens: Tokens) -> None:
    for scope in Scope:
        token, expires_at = tokens.access(USER, SESSION, scope)
        read = tokens.read(token)
        assert (read.user_id, read.session_id, read.scope) == (USER, SESSION, scope)
        assert 58 < read.expires_at - time.time() <= 60
        assert expires_at == time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(read.expires_at))
    assert tokens.read(signed()).user_id == USER
    assert tokens.read(tokens.access(USER, SESSION, ttl_s=5)[0]).expires_at < time.time() + 6


def test_when_it_was_signed_is_nobodys_business(tokens: Tokens) -> None:
    """The clock of the instance that signed it may be ahead; when a token ends says `exp` alone."""
    for iat in (int(time.time()) + 2, int(time.time()) + 3_600, None):
        assert tokens.read(signed(iat=iat)).user_id == USER


BAD: dict[str, Callable[[], Any]] = {
    "without a signature": unsigned,
    "without a signature, shouted": lambda: unsigned("NONE"),
    "with its signature cut off": lambda: signed().rpartition(".")[0] + ".",
    "of another algorithm": lambda: signed(algorithm="HS512"),
    "of a third": lambda: signed(algorithm="HS384"),
    "of another's secret": lambda: signed(key=OLD),
    "for another audience": lambda: signed(aud="admin"),
    "for no audience": lambda: signed(aud=None),
    "by another issuer": lambda: signed(iss="somebody"),
    "by no issuer": lambda: signed(iss=None),
    "without an end": lambda: signed(exp=None),
    "with an end that is none": lambda: signed(exp="tomorrow"),
    "that has ended": lambda: signed(exp=int(time.time()) - 1),
    "that has not begun": lambda: signed(nbf=int(time.time()) + 600),
    "of nobody": lambda: signed(sub=None),
    "of nobody in particular": lambda: signed(sub="amina"),
    "of no session": lambda: signed(sid=None),
    "of a session that is none": lambda: signed(sid="1"),
    "of a session that is a number": lambda: jwt.encode(claims() | {"sid": 1}, SECRET, ALGORITHM),
    "of an unknown scope": lambda: signed(scope="everything"),
    "of no scope": lambda: signed(scope=None),
    "of a scope that is a list": lambda: signed(scope=["full"]),
    "that was changed": lambda: changed(signed(), sub=str(uuid4())),
    "that claims a list": lambda: jwt.api_jws.encode(b"[]", SECRET, ALGORITHM),
    "that is no text": lambda: 5,
    "that is empty": lambda: "",
    "that is missing": lambda: None,
    "that is bytes": lambda: signed().encode(),
    "that is dots": lambda: "...",
    "that is not ASCII": lambda: "токен",
    "that nobody can encode": lambda: "\ud800.\ud800.\ud800",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
@pytest.mark.parametrize("keys", [[SECRET], [SECRET + "!", SECRET]], ids=["one secret", "two secrets"])
def test_a_token_is_refused(make: Callable[[], Any], keys: list[str]) -> None:
    with pytest.raises(Unauthenticated) as raised:
        Tokens(keys, access_ttl_s=60, refresh_ttl_s=600).read(make())
    assert raised.value.message


def test_an_expired_token_says_that_it_has_expired(tokens: Tokens) -> None:
    with pytest.raises(Unauthenticated, match="expired"):
        tokens.read(signed(exp=int(time.time()) - 1))
    with pytest.raises(Unauthenticated) as raised:  # but not to somebody who could not have signed it
        tokens.read(signed(key=OLD, exp=int(time.time()) - 1))
    assert "expired" not in raised.value.message


def test_secrets_rotate() -> None:
    before = Tokens([OLD], access_ttl_s=60, refresh_ttl_s=600)
    during = Tokens([SECRET, OLD], access_ttl_s=60, refresh_ttl_s=600)
    after = Tokens([SECRET], access_ttl_s=60, refresh_ttl_s=600)
    old, new = before.access(USER, SESSION)[0], during.access(USER, SESSION)[0]
    assert during.read(old) == before.read(old)
    assert during.read(new) == after.read(new)
    for tokens, token in ((after, old), (before, new)):
        with pytest.raises(Unauthenticated):
            tokens.read(token)
    with pytest.raises(Unauthenticated, match="expired"):
        during.read(before.access(USER, SESSION, ttl_s=-1)[0])


@pytest.mark.parametrize("keys", [[], ["short"], [SECRET, "short"], ["x" * 31], [""]])
def test_a_short_secret_is_refused(keys: list[str]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens(keys, access_ttl_s=60, refresh_ttl_s=600)
    Tokens(["ع" * 16], access_ttl_s=60, refresh_ttl_s=600)  # bytes, not characters


def test_refresh_tokens_are_random_and_stored_as_a_hash() -> None:
    made = [new_stored_token() for _ in range(100)]
    assert len({token for token, _ in made}) == 100
    for token, stored in made:
        assert len(base64.urlsafe_b64decode(token + "=")) == 32
        assert stored == hash_stored_token(token) == hashlib.sha256(token.encode()).digest()


async def test_a_token_of_another_persons_session_is_refused(parley: Instance) -> None:
    amina, bilal = await parley.person("amina"), await parley.person("bilal")
    crossed = jwt.encode(claims(sub=amina.user_id, sid=bilal.session_id), SECRET, ALGORITHM)
    status, answer = await parley.post("account:me", {}, token=crossed)
    assert (status, answer["error"]["code"]) == (401, "unauthenticated")
    for token in (crossed, unsigned(sub=amina.user_id, sid=amina.session_id)):
        with pytest.raises(ConnectRefused) as refused:
            await amina.connect(token=token)
        assert refused.value.said["data"]["code"] == "unauthenticated"
