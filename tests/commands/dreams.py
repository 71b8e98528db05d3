"""Commands and pushes that nobody has thought of yet, with all that a declaration may have."""

from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest

import handlers  # noqa: F401  (declares the commands)
from handlers.connections import PROTOCOL, Auth
from rules.users import Scope
from server.commands import registry
from server.commands.context import Context
from server.commands.docs.model import Model
from server.commands.registry import ClientId, Limit, Payload, command, push, signed_in
from storage import Time

CONTRACT = Model(auth=Auth, protocol=PROTOCOL)
"""The declarations as they are, before any test has added to them."""


class Mood(StrEnum):
    GOOD = "good"
    BAD = "bad"


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where."""

    lat: float
    note: str = ""


class Imagine(Payload, frozen=True):
    client_id: ClientId
    where: Place
    mood: Mood = Mood.GOOD
    kind: Literal["a", "b"] = "a"
    until: Time | msgspec.UnsetType | None = msgspec.UNSET
    title: Annotated[str, msgspec.Meta(max_length=5)] | msgspec.UnsetType | None = msgspec.UNSET
    pair: tuple[int, str] | None = None


class Imagined(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    imagined_id: UUID
    where: Place
    at: Time
    ended_at: Time | None
    tags: list[str] = []
    parts: list[Place] | msgspec.Raw
    times: dict[str, Time]
    absent: int | msgspec.UnsetType = msgspec.UNSET


class Brief(msgspec.Struct, frozen=True, omit_defaults=True):
    """Little."""

    imagined_id: UUID
    count: int = 0


async def imagine(ctx: Context, p: Imagine) -> Imagined:
    """Think of something that is not there."""
    raise NotImplementedError


async def again(ctx: Context, id_: UUID) -> Any:
    raise NotImplementedError


def dream(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model with a command and two pushes more, for the length of a test."""
    monkeypatch.setattr(registry, "commands", dict(registry.commands))
    monkeypatch.setattr(registry, "pushes", dict(registry.pushes))
    command("dream:imagine", allow=signed_in, limit=Limit.WRITES, again=again, scope=Scope.FULL)(imagine)
    push("dream:imagined", Imagined, "Somebody has imagined something.", rooms=("live", "user"))
    push("dream:fading", Brief, "It fades.", rooms=("live",), ephemeral=True)
    return Model(auth=Auth, protocol=PROTOCOL)
