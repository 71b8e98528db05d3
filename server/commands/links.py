"""Links to the bytes of attachments: a path that carries one person's permission, for one purpose, until a moment."""

import hmac
import time
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from server.commands.tokens import spelt
from storage import Time

_KEY = b"parley: links to attachments"  # what the signing key is derived for, so that no other use of a secret meets it


class Purpose(StrEnum):
    """What a link is for; a link for one can't be used for the other."""

    UPLOAD = "upload"
    DOWNLOAD = "download"


class Link(msgspec.Struct, frozen=True):
    """Where an attachment can be downloaded, and until when; `url` is relative to the server's address."""

    url: str
    expires_at: Time


class Links:
    """Signs with the first secret and believes them all, so that secrets can be rotated."""

    def __init__(self, secrets: Sequence[str], *, upload_ttl_s: int, download_ttl_s: int) -> None:
        self._keys = [hmac.digest(secret.encode(), _KEY, "sha256") for secret in secrets]
        self._ttl_s = {Purpose.UPLOAD: upload_ttl_s, Purpose.DOWNLOAD: download_ttl_s}

    def sign(self, purpose: Purpose, attachment_id: object, user_id: object) -> Link:
        """A person's link for the purpose, from now on for as long as the settings say."""
        expires = int(time.time()) + self._ttl_s[purpose]
        signature = _signature(self._keys[0], purpose, str(attachment_id), str(user_id), str(expires))
        query = f"user={user_id}&expires={expires}&signature={signature}"
        return Link(f"/attachments/{attachment_id}?{query}", spelt(expires))

    def seconds_left(self, purpose: Purpose, attachment_id: str, user_id: str, expires: str, signature: str) -> float:
        """For how long a link is valid yet; 0 where it has expired, is for something else, or was not signed here."""
        given = signature.encode(errors="replace")
        expected = (_signature(key, purpose, attachment_id, user_id, expires).encode() for key in self._keys)
        is_ours = any(hmac.compare_digest(one, given) for one in expected)
        return max(0.0, int(expires) - time.time()) if is_ours else 0.0


def _signature(key: bytes, *signed: str) -> str:
    return hmac.digest(key, "\n".join(signed).encode(errors="replace"), "sha256").hex()
