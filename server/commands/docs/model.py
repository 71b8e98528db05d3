"""What all documents are made from: the declarations, read once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rules.users import Scope
from server.commands import registry
from server.commands.docs.examples import Examples, NoExample
from server.commands.docs.failures import Failure, codes_of, failures
from server.commands.docs.shapes import Schema, Shapes
from server.commands.registry import Command, Push, Transport

# fmt: off
RESERVED = frozenset({
    "Answer", "ClientToServerEvents", "Commands", "ConnectError", "DurableMeta", "EphemeralMeta", "Errors",
    "HttpCommand", "Id", "Payload", "Pushes", "ServerToClientEvents", "SocketCommand", "Time", "Array",
    "Boolean", "Date", "Error", "Function", "JSON", "Map", "Number", "Object", "Promise", "Record", "Set",
    "String", "Symbol",
})
# fmt: on
"""Names that the documents, or TypeScript, give to other things."""

_SCOPES = {
    Scope.READ: "any token",
    Scope.LIMITED: "a token of scope limited or full",
    Scope.FULL: "a token of scope full",
}


@dataclass(frozen=True)
class CommandDoc:
    """A command: what it takes and answers, and how it may be called."""

    command: Command
    takes: Schema
    answers: Schema
    failures: tuple[Failure, ...]
    example: Any
    answer_example: Any

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def id(self) -> str:
        """The name as an identifier."""
        return self.name.replace(":", "_")

    @property
    def noun(self) -> str:
        return self.name.partition(":")[0]

    @property
    def doc(self) -> str:
        return " ".join(self.command.doc.split())

    @property
    def on_socket(self) -> bool:
        return self.command.transport is not Transport.HTTP

    @property
    def over_http(self) -> bool:
        return self.command.transport is not Transport.SOCKET

    @property
    def permission(self) -> str:
        """Who may call it, in words."""
        check = self.command.allow.check
        told = " ".join(((check.__doc__ if check else None) or "").split())
        return told[:1].lower() + told[1:].rstrip(".") or self.command.allow.name.removesuffix("_at_the_lock").replace(
            "_", " "
        )

    @property
    def token(self) -> str:
        """What it needs of a token, in words."""
        return "no token" if self.command.allow.public else _SCOPES[self.command.scope]

    @property
    def codes(self) -> list[str]:
        """The codes of the errors it may answer."""
        return [failure.code for failure in self.failures]

    @property
    def repeatable(self) -> bool:
        """Whether a client_id makes it one command, however often it is sent."""
        return "client_id" in self.command.payload.__struct_fields__


def _place(one: Command) -> tuple[str, bool]:
    """Where a command stands: by its noun, of each the noun's own module before the others, as they are declared."""
    noun = one.name.partition(":")[0]
    return noun, one.handler.__module__.rpartition(".")[2] != f"{noun}s"


@dataclass(frozen=True)
class PushDoc:
    """A push: what it carries and where it goes. `has_meta`: a second argument says room and time (and seq)."""

    push: Push[Any]
    payload: Schema
    example: Any

    @property
    def name(self) -> str:
        return self.push.name

    @property
    def id(self) -> str:
        """The name as an identifier."""
        return self.name.replace(":", "_")

    @property
    def has_meta(self) -> bool:
        return bool(self.push.rooms)

    @property
    def metas(self) -> list[str]:
        """The names of what its second argument may be."""
        durable, ephemeral = ["DurableMeta"], ["EphemeralMeta"]
        return ephemeral if self.push.ephemeral else durable + (ephemeral if self.push.ephemeral_in else [])


class Model:
    """The declarations as they are now. `auth` is what a socket connects with."""

    def __init__(self, *, auth: type, protocol: int) -> None:
        self.protocol = protocol
        declared = sorted(registry.commands.values(), key=_place)
        told = [one.result for one in declared] + [one.payload for one in registry.pushes.values()]
        self.failures = failures()
        reserved = RESERVED | {failure.name for failure in self.failures.values()}
        self.shapes = Shapes([auth, *(one.payload for one in declared)], told, reserved=reserved)
        self.examples = Examples(self.shapes.named)
        self.auth = self.shapes.taken[auth]
        self.commands = [self._command(one) for one in declared]
        pushed = sorted(registry.pushes.values(), key=lambda one: (bool(one.rooms), one.name.partition(":")[0]))
        self.pushes = [self._push(one) for one in pushed]

    def _command(self, one: Command) -> CommandDoc:
        takes, answers = self.shapes.taken[one.payload], self.shapes.told[one.result]
        codes = tuple(self.failures[code] for code in codes_of(one))
        return CommandDoc(one, takes, answers, codes, self.example(takes, taken=True), self.example(answers))

    def _push(self, one: Push[Any]) -> PushDoc:
        payload = self.shapes.told[one.payload]
        return PushDoc(one, payload, self.example(payload))

    def example(self, schema: Schema, *, taken: bool = False) -> Any:
        """An example of a schema; None where nobody knows one."""
        try:
            return self.examples.taken(schema) if taken else self.examples.of(schema)
        except NoExample:
            return None

    @cached_property
    def nouns(self) -> dict[str, list[CommandDoc]]:
        """The commands by their noun."""
        found: dict[str, list[CommandDoc]] = {}
        for one in self.commands:
            found.setdefault(one.noun, []).append(one)
        return found

    @cached_property
    def common_codes(self) -> list[str]:
        """The codes that every command may answer."""
        return [code for code in self.failures if all(code in one.codes for one in self.commands)]

    def own_codes(self, one: CommandDoc) -> list[str]:
        """The codes of a command that do not follow from its limit and its token alone."""
        implied = {*self.common_codes, "rate_limited"} | (set() if one.command.allow.public else {"unauthenticated"})
        return [code for code in one.codes if code not in implied]

    @cached_property
    def room_kinds(self) -> list[str]:
        """The kinds of rooms that pushes go to."""
        return sorted({kind for one in self.pushes for kind in one.push.rooms})

    @cached_property
    def objects(self) -> dict[str, Schema]:
        """The named schemas beside the payloads of the commands, which stand with these."""
        payloads = {one.takes.get("$ref") for one in self.commands}
        return {
            name: schema for name, schema in self.shapes.named.items() if "#/components/schemas/" + name not in payloads
        }

    def commands_of(self, limit: str) -> Sequence[str]:
        """The names of the commands that share a bucket."""
        return [one.name for one in self.commands if limit in (one.command.limit, *one.command.further)]
