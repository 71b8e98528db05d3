"""Packets as text, encoded once however many connections they go to.

What comes from above is JSON already: a pushed payload is stored, sent between instances and written to sockets as the
same bytes. Decoding is orjson's, with one detour: it refuses lone surrogates outright, while the contract answers
them with `invalid` and lets the socket live, so such a frame is decoded by the standard library and judged with its
payload.
"""

import json
from typing import Any, NoReturn

import orjson

CODECS = ("json",)
"""What packets may travel in, as Socket.IO names it."""


class Packet:
    """A Socket.IO packet on the namespace `/`, encoded. `size` is its length in bytes.

    `framed` is the engine's to fill.
    """

    __slots__ = ("framed", "size", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.size = len(text.encode())
        self.framed: Any = None


def event_packet(name: str, *arguments: str) -> Packet:
    """An event; `arguments` are JSON texts."""
    return Packet(f'2["{name}",{",".join(arguments)}]')


def ack_packet(ack_id: int, argument: str) -> Packet:
    """The answer to an event; `argument` is a JSON text."""
    return Packet(f"3{ack_id}[{argument}]")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def loads(text: str | bytes, **_: Any) -> Any:
    """Decode JSON. Raises ValueError where it is malformed, NaN and Infinity included, or nested beyond all measure."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except RecursionError:
            raise ValueError("nested too deep") from None


def dumps(value: Any, **_: Any) -> str:
    """Encode as JSON, compact. For what the engine itself says; payloads come encoded."""
    return orjson.dumps(value).decode()
