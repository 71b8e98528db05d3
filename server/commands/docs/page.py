"""`/docs`: everything, for reading in a browser, in one file that fetches nothing."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from server.commands.docs import prose
from server.commands.docs.failures import CONFLICTS
from server.commands.docs.model import CommandDoc, Model, PushDoc
from server.commands.docs.reference import beside, bounds, bucket, called, every
from server.commands.docs.shapes import Schema
from server.commands.docs.words import short
from server.config import RATES, Setting

_HERE = Path(__file__).parent
_REF = re.compile("\x02(.*?)\x03")


def page(model: Model) -> tuple[str, str]:
    """The page, and the Content-Security-Policy that lets it do what it does and nothing else."""
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    body = "\n".join(_body(model))
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Parley: the reference</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""
    return text, policy


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _body(model: Model) -> Iterator[str]:
    yield from _navigation(model)
    yield "<main>"
    yield '<p id="none" hidden>Nothing here has all of these words.</p>'
    yield _section("connecting", "Connecting", _markdown(prose.CONNECT))
    yield _section("calling", "Calling", _markdown(prose.CALLING))
    yield _section("codes", "Codes", "\n".join(_codes(model)))
    yield _section("limits", "Limits and bounds", "\n".join(_limits(model)))
    yield _section("every", "Every command", _markdown(every(model)))
    for noun, commands in model.nouns.items():
        yield _section(f"noun-{noun}", noun, "\n".join(_command(model, one) for one in commands))
    yield _section("files", "Files", _markdown(prose.FILES))
    yield _section("pushing", "Pushes", _markdown(prose.PUSHING))
    yield _section("pushes", "What is pushed", "\n".join(_push(one) for one in model.pushes))
    yield _section("objects", "Objects", "\n".join(_object(*one) for one in model.objects.items()))
    yield "</main>"


def _navigation(model: Model) -> Iterator[str]:
    yield '<nav><h1>Parley</h1><input type="search" placeholder="Search ( / )" aria-label="Search">'
    yield "<details open><summary>Contents</summary>"
    first = ("connecting", "calling", "codes", "limits", "every", "files", "pushing")
    names = ("Connecting", "Calling", "Codes", "Limits and bounds", "Every command", "Files", "How pushes work")
    yield _links("First", zip(first, names, strict=True))
    for noun, commands in model.nouns.items():
        yield _links(noun, ((one.name, one.name) for one in commands))
    yield _links("Pushes", ((f"push-{one.name}", one.name) for one in model.pushes))
    yield _links("Objects", ((f"object-{name}", name) for name in model.objects))
    yield '<h2>For machines</h2><ul><li><a href="/openapi.json">OpenAPI</a></li>'
    yield '<li><a href="/asyncapi.json">AsyncAPI</a></li></ul></details></nav>'


def _links(title: str, targets: Iterable[tuple[str, str]]) -> str:
    items = "".join(f'<li><a href="#{escape(target)}">{escape(name)}</a></li>' for target, name in targets)
    return f"<div><h2>{escape(title)}</h2><ul>{items}</ul></div>"


def _section(anchor: str, title: str, content: str) -> str:
    return f'<section id="{escape(anchor)}"><h2>{escape(title)}</h2>\n{content}\n</section>'


def _article(anchor: str, title: str, *content: str) -> str:
    head = f'<h3><a href="#{escape(anchor)}">{escape(title)}</a></h3>'
    return f'<article id="{escape(anchor)}">{head}\n' + "\n".join(filter(None, content)) + "</article>"


def _codes(model: Model) -> Iterator[str]:
    yield _table(
        ("code", "HTTP", "meaning", "beside it"),
        (
            (
                f"<code>{one.code}</code>",
                str(one.status),
                _inline(one.doc),
                _listed(one.more),
            )
            for one in model.failures.values()
        ),
    )
    yield "<h3>Reasons of a conflict</h3>"
    yield _table(("reason", "meaning"), ((f"<code>{one}</code>", _inline(doc)) for one, doc in CONFLICTS.items()))


def _limits(model: Model) -> Iterator[str]:
    yield _markdown("The defaults; a server may have others. `off` is no limit.")
    yield _table(
        ("setting", "per second/burst", "what is counted", "taken by"),
        (
            (
                _name(one),
                escape(one.shown_default),
                escape(one.about),
                " ".join([*(f'<a href="#{name}">{name}</a>' for name in model.commands_of(bucket(one))), *beside(one)]) or "none",
            )
            for one in RATES
        ),
    )
    yield _table(("bound", "default", "unit", "of"), map(_setting, bounds()))


def _setting(one: Setting) -> tuple[str, ...]:
    return _name(one), escape(one.shown_default), escape(one.unit), escape(one.about)


def _name(one: Setting) -> str:
    """A setting's name, which may be broken between its words."""
    return f'<code>{one.name.replace("_", "_<wbr>")}</code>'


def _command(model: Model, one: CommandDoc) -> str:
    path = f"<code>POST {one.command.path}</code> · " if one.over_http else ""
    errors = _listed(model.own_codes(one))
    return _article(
        one.name,
        one.name,
        f"<p>{_inline(one.doc)}</p>",
        f'<p class="facts">{path}{escape(called(one))}</p>',
        _fields(model.shapes.resolved(one.takes)),
        f'<p class="facts"><b>answers</b> {_shown(one.answers)}' + (f" <b>or</b> {errors}" if errors else "") + "</p>",
        _example("an example", one.example),
        _example("its answer", one.answer_example),
    )


def _push(one: PushDoc) -> str:
    to = f"{one.push.sending} · to {', '.join(one.push.rooms)}" if one.has_meta else "to that socket, without a second argument"
    return _article(
        f"push-{one.name}",
        one.name,
        f"<p>{_inline(one.push.doc)}</p>",
        f'<p class="facts">{to} · <b>carries</b> {_shown(one.payload)}</p>',
        _example("an example", one.example),
    )


def _object(name: str, schema: Schema) -> str:
    about = f"<p>{_inline(schema['description'])}</p>" if "description" in schema else ""
    shown = _fields(schema) if schema.get("type") == "object" else f"<p>{_shown(schema)}</p>"
    return _article(f"object-{name}", name, about, shown)


def _fields(schema: Schema) -> str:
    required = schema.get("required", [])
    rows = [
        (
            f"<code>{escape(name)}{'' if name in required else '?'}</code>",
            _shown(field),
            f"<code>{escape(json.dumps(field['default'], ensure_ascii=False))}</code>" if "default" in field else "",
        )
        for name, field in schema.get("properties", {}).items()
    ]
    return _table(("field", "type", "default"), rows) if rows else '<p class="facts">No fields: <code>{}</code></p>'


def _shown(schema: Schema) -> str:
    """A type in few words, with links to the objects."""
    marked = escape(short(schema, lambda name: f"\x02{name}\x03"))
    return '<code class="type">' + _REF.sub(r'<a href="#object-\1">\1</a>', marked) + "</code>"


def _example(title: str, value: object) -> str:
    if value is None or value == {}:
        return ""
    shown = escape(json.dumps(value, indent=2, ensure_ascii=False))
    return f"<details><summary>{title}</summary><pre><code>{shown}</code></pre></details>"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _listed(names: Iterable[str]) -> str:
    return " ".join(f'<code class="name">{escape(name)}</code>' for name in names)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _markdown(text: str) -> str:
    """The Markdown of prose.py: paragraphs, lists, code without empty lines."""
    made = []
    for block in text.strip().split("\n\n"):
        if block.startswith("```"):
            made.append(f"<pre><code>{escape(block.partition(chr(10))[2].removesuffix('```').rstrip())}</code></pre>")
        elif block.startswith("- "):
            items = (f"<li>{_inline(' '.join(item.split()))}</li>" for item in block.removeprefix("- ").split("\n- "))
            made.append(f"<ul>{''.join(items)}</ul>")
        else:
            made.append(f"<p>{_inline(' '.join(block.split()))}</p>")
    return "\n".join(made)
