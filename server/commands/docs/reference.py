"""`docs/reference.md`: everything, for reading, as Markdown."""

from collections.abc import Iterable, Iterator

from server.commands.docs import prose
from server.commands.docs.failures import CONFLICTS
from server.commands.docs.model import CommandDoc, Model, PushDoc
from server.commands.docs.words import fields, short
from server.config import RATES, Setting, settings

_HEAD = """\
# Reference

Written by `make docs` from the declarations in `handlers/` and `server/config.py`: change those, not this. A running
server has the same at `/docs`, and for machines at `/openapi.json` and `/asyncapi.json`; `parley.d.ts` has the types
for TypeScript.
"""
BOUNDS = ("bytes", "code points", "levels", "people", "attachments")  # the units of settings that bound what is sent


BESIDE = {"connects": "every connect of a socket", "writes": "the PUT of an attachment"}
"""What takes from a bucket and is no command."""


def reference(model: Model) -> str:
    """The whole page."""
    lines = [_HEAD, "## Connecting", "", prose.CONNECT, "## Calling", "", prose.CALLING]
    lines += [*_codes(model), "", *_limits(model), ""]
    lines += ["## Commands", "", "`?` marks what may be left out, `=` what it then is.", every(model), ""]
    for one in model.commands:
        lines += _command(model, one)
    lines += ["## Files", "", prose.FILES]
    lines += ["## Pushes", "", prose.PUSHING, *_pushes(model.pushes), "", "## Objects", ""]
    for name, schema in model.objects.items():
        about = schema.get("description", "")
        shown = "{" + fields(schema) + "}" if schema.get("type") == "object" else short(schema)
        lines += [f"**{name}**{' — ' if about else ''}{about}", "", f"`{shown}`", ""]
    lines += ["## Settings", "", *_table(("setting", "default", "unit", "meaning"), map(_setting, settings()))]
    return "\n".join(lines) + "\n"


def every(model: Model) -> str:
    """The codes that stand with no command, since they are every command's."""
    codes = ", ".join(f"`{code}`" for code in model.common_codes)
    return f"All may answer {codes}; those with a limit `rate_limited`; those that need a token `unauthenticated`."


def bounds() -> list[Setting]:
    """The settings that bound what a client sends."""
    return [setting for setting in settings() if setting.unit in BOUNDS]


def _codes(model: Model) -> Iterator[str]:
    yield "### Codes"
    yield ""
    rows = (
        (f"`{one.code}`", str(one.status), one.doc, ", ".join(f"`{member}`" for member in one.more))
        for one in model.failures.values()
    )
    yield from _table(("code", "HTTP", "meaning", "beside it"), rows)
    yield ""
    yield "Reasons of a conflict: " + ", ".join(f"`{one}` ({doc})" for one, doc in CONFLICTS.items()) + "."


def _limits(model: Model) -> Iterator[str]:
    yield "### Limits"
    yield ""
    rows = (
        (f"`{one.name}`", one.shown_default, one.about, ", ".join([*model.commands_of(bucket(one)), *beside(one)]) or "none")
        for one in RATES
    )
    yield from _table(("setting", "per second/burst", "what is counted", "taken by"), rows)
    yield ""
    yield from _table(("bound", "default", "unit", "of"), map(_setting, bounds()))


def bucket(rate: Setting) -> str:
    """The name of the bucket that a setting measures."""
    return rate.name.removeprefix("PARLEY_RATE_").lower()


def beside(rate: Setting) -> list[str]:
    """What else takes from the bucket that a setting measures."""
    return [BESIDE[bucket(rate)]] if bucket(rate) in BESIDE else []


def _command(model: Model, one: CommandDoc) -> Iterator[str]:
    yield f"### `{one.name}`"
    yield ""
    yield one.doc
    yield ""
    yield f"- takes `{{{fields(model.shapes.resolved(one.takes))}}}`"
    codes = ", ".join(f"`{code}`" for code in model.own_codes(one))
    yield f"- answers `{short(one.answers)}`" + (f", or {codes}" if codes else "")
    yield f"- {called(one)}"
    yield ""


def called(one: CommandDoc) -> str:
    """Where it may be called, by whom, and what it counts as."""
    where = "on the socket and over HTTP" if one.on_socket and one.over_http else "on the socket alone"
    where = where if one.on_socket else "over HTTP alone"
    limits = [limit.upper() for limit in (one.command.limit, *one.command.further) if limit is not None]
    counted = f"counts as {' and '.join(limits)}" if limits else "is not limited"
    return f"for: {one.permission}; {one.token}; {where}; {counted}"


def _pushes(pushes: Iterable[PushDoc]) -> Iterator[str]:
    rows = (
        (
            f"`{one.name}`" + (f" ({one.push.sending})" if one.has_meta and one.push.sending != "durable" else ""),
            ", ".join(one.push.rooms) or "that socket",
            f"`{short(one.payload)}`",
            one.push.doc,
        )
        for one in pushes
    )
    return _table(("push", "room", "payload", "meaning"), rows)


def _setting(setting: Setting) -> tuple[str, ...]:
    return f"`{setting.name}`", setting.shown_default, setting.unit, setting.about


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    heads = list(heads)
    yield f"| {' | '.join(heads)} |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
