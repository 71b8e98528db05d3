"""msgpack as values, such as JSON has words for too: what a packet holds does not hang on its codec. Pure.

The format is that of socket.io-msgpack-parser 3. How deep values nest and how long they are is bounded above, as in
JSON; here they nest no deeper than both libraries read, which is 1,024 levels.
"""

from math import inf
from typing import Any

import msgpack

SMALL_BYTES = 512  # of a packet this small the lists may say what they like: together they take 0.7 MB, and 0.1 ms

_PLAIN = frozenset({str, int, bool, type(None), bytes})


def unpacked(data: bytes) -> dict[str, Any]:
    """A map, as packets are. Raises ValueError where it is none, or holds what JSON has no word for, bytes excepted.

    Room for a list is made as its header comes, for as many elements as that says, before any of them is there: of
    headers within headers 3 KB took 65 MB. So what is not small is first walked through, which builds nothing and costs
    a microsecond: then it is all there, and the lists together have no more elements than it has bytes.
    """
    try:
        if len(data) > SMALL_BYTES:
            walk = msgpack.Unpacker(max_buffer_size=len(data))
            walk.feed(data)
            walk.skip()
        fields = msgpack.unpackb(data, ext_hook=_refuse_extension, strict_map_key=True)
    except (msgpack.UnpackException, ValueError, OverflowError) as error:
        raise ValueError("not msgpack") from error
    if type(fields) is not dict:
        raise ValueError("not a map")
    _inspect(fields)
    return fields


def _refuse_extension(code: int, data: bytes) -> Any:
    # What clients write for JavaScript's undefined: like JSON, we take it for a field that is not there.
    if code == 0 and data == b"\0":
        return None
    raise ValueError("an extension type")


def _inspect(fields: dict[Any, Any]) -> None:
    """Let no value pass that JSON has no word for. Raises ValueError."""
    todo: list[Any] = [fields]
    while todo:
        holder = todo.pop()
        if type(holder) is dict:
            for key in holder:
                if type(key) is not str:
                    raise ValueError("a key that is no string")
            holder = holder.values()
        for inner in holder:
            kind = type(inner)
            if kind in _PLAIN:
                continue
            if kind is dict or kind is list:
                todo.append(inner)
            elif kind is not float or not -inf < inner < inf:
                raise ValueError("a value that JSON has no word for")
