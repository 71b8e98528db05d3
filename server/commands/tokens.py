"""Access tokens: JWTs of one algorithm, with expiry, audience and issuer required.

And the random text of those that the database knows: refresh and reset tokens.
"""

import base64
import hashlib
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import jwt

from rules.users import Scope
from server.errors import Unauthenticated
from storage import Time

ALGORITHM = "HS256"
AUDIENCE = ISSUER = "parley"
MIN_SECRET_BYTES = 32
STORED_BYTES = 32
LAST_S = 253_402_300_799  # the end of the year 9999, behind which no time can be spelt


class Claims(NamedTuple):
    """What a valid access token says; `expires_at` in seconds since 1970."""

    user_id: UUID
    session_id: UUID
    scope: Scope
    expires_at: float


class Tokens:
    """Signs with the first secret and believes them all, so that secrets can be rotated."""

    def __init__(self, keys: Sequence[str], *, access_ttl_s: int, refresh_ttl_s: int) -> None:
        if not keys or any(len(key.encode()) < MIN_SECRET_BYTES for key in keys):
            raise ValueError(f"a secret of at least {MIN_SECRET_BYTES} bytes is needed")
        self._keys = tuple(map(_key, keys))
        self.access_ttl_s = access_ttl_s
        self.refresh_ttl_s = refresh_ttl_s

    def access(
        self, user_id: UUID, session_id: UUID, scope: Scope = Scope.FULL, *, ttl_s: int | None = None
    ) -> tuple[str, Time]:
        """A signed access token and when it expires."""
        now = int(time.time())
        expires = now + (self.access_ttl_s if ttl_s is None else ttl_s)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": str(session_id),
            "scope": scope,
            "iat": now,
            "exp": expires,
        }
        token = jwt.encode(claims, self._keys[0], algorithm=ALGORITHM)
        return token, spelt(expires)

    def read(self, token: Any) -> Claims:
        """Verify an access token. Raises `Unauthenticated`, saying what the client can do about it.

        When it was signed is not looked at: the clock of the instance that did may be a little ahead of ours.
        """
        if not isinstance(token, str) or not token:
            raise Unauthenticated("A token is needed: sign in, and send the access token.")
        for key in self._keys:
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[ALGORITHM],
                    audience=AUDIENCE,
                    issuer=ISSUER,
                    options={"require": ["exp", "aud", "iss", "sub", "sid"], "verify_iat": False},
                )
                return Claims(UUID(claims["sub"]), UUID(claims["sid"]), Scope(claims["scope"]), _end(claims["exp"]))
            except jwt.ExpiredSignatureError:
                raise Unauthenticated("This token has expired: renew it with account:refresh.") from None
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, ValueError, KeyError, TypeError, AttributeError):
                break
        raise Unauthenticated("This token is not valid: sign in again.")


def _end(claimed: Any) -> int:
    """The end that a token claims: PyJWT takes text for a number too. Raises ValueError."""
    if type(claimed) is not int or claimed > LAST_S:
        raise ValueError("not a time")
    return claimed


def _key(secret: str) -> jwt.PyJWK:
    """A secret as PyJWT wants it, who would else look at each token whether it is a PEM by mistake."""
    octets = base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode()
    return jwt.PyJWK({"kty": "oct", "k": octets, "alg": ALGORITHM})


def spelt(expires_at: float) -> Time:
    """The end of a token, in seconds since 1970, as the contract spells it."""
    return Time(datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="milliseconds")[:-6] + "Z")


def new_stored_token() -> tuple[str, bytes]:
    """The random text of a refresh or reset token, and the hash to store of it."""
    token = secrets.token_urlsafe(STORED_BYTES)
    return token, hash_stored_token(token)


def hash_stored_token(token: str) -> bytes:
    """The hash under which such a token is stored; it is random, so a fast hash will do."""
    return hashlib.sha256(token.encode()).digest()
