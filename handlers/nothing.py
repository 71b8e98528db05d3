"""Commands that take nothing, and commands that have nothing to answer."""

import msgspec

from server.commands.registry import Payload


class Nothing(Payload, frozen=True):
    """No fields."""


class Done(msgspec.Struct, frozen=True):
    """It is done; there is nothing to say of it."""
