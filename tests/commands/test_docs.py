"""The documents: made from the declarations alone, all of them; once, and everywhere alike."""

import dataclasses
import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from openapi_spec_validator import validate

from handlers.connections import PROTOCOL, Auth
from server.commands.docs import PATHS, Documents, asyncapi, openapi, page, prose, reference, typescript
from server.commands.docs.failures import failures
from server.commands.docs.model import Model
from server.commands.docs.shapes import REF
from server.commands.payload import Bounds
from server.commands.registry import Transport, commands, pushes
from server.config import Config
from server.wire import CODECS
from tests.commands.dreams import CONTRACT, dream

ROOT = Path(__file__).parents[2]


@pytest.fixture
def imagined(monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model with a command and two pushes more."""
    return dream(monkeypatch)


def told(document: str) -> Callable[[Model], str]:
    """How each document is made."""
    return {
        "openapi": lambda m: json.dumps(openapi.document(m)),
        "asyncapi": lambda m: json.dumps(asyncapi.document(m)),
        "page": lambda m: page.page(m)[0],
        "reference": reference.reference,
        "types": typescript.types,
    }[document]


# all of them


@pytest.mark.parametrize("document", ["openapi", "asyncapi", "page", "reference", "types"])
def test_a_document_has_every_command_that_belongs_to_it(document: str) -> None:
    text = told(document)(CONTRACT)
    for one in commands.values():
        if document == "openapi":
            assert (f'"{one.path}"' in text) == (one.transport is not Transport.SOCKET)
        elif document == "asyncapi":
            assert (f'"name": "{one.name}"' in text) == (one.transport is not Transport.HTTP)
        else:
            assert re.search(rf"\b{one.name}\b", text), one.name


@pytest.mark.parametrize("document", ["asyncapi", "page", "reference", "types"])
def test_a_document_has_every_push(document: str) -> None:
    text = told(document)(CONTRACT)
    for name in pushes:
        assert re.search(rf"\b{name}\b", text), name


def test_the_reference_has_every_room_of_a_push_and_every_code() -> None:
    text = reference.reference(CONTRACT)
    for one in pushes.values():
        (row,) = re.findall(rf"^\| `{one.name}`.*$", text, re.MULTILINE)
        assert row.split(" | ")[1] == (", ".join(one.rooms) or "that socket")
    for code in failures():
        assert f"| `{code}` |" in text


def test_asyncapi_sends_a_push_to_each_of_its_rooms() -> None:
    document = asyncapi.document(CONTRACT)
    for one in pushes.values():
        for kind in one.rooms or ("socket",):
            operation = document["operations"][f"{one.name.replace(':', '_')}_to_{kind}"]
            assert operation["action"] == "send"
            assert operation["channel"] == {"$ref": f"#/channels/{kind}"}
        headers = document["components"]["messages"][one.name.replace(":", "_")].get("headers")
        meta = {"$ref": REF + ("EphemeralMeta" if one.ephemeral else "DurableMeta")}
        if one.ephemeral_in:
            meta = {"type": "object", "anyOf": [meta, {"$ref": REF + "EphemeralMeta"}]}
        assert headers == (meta if one.rooms else None)


def test_the_commands_of_a_noun_stand_as_they_are_declared_its_own_module_first() -> None:
    account = [one.name.partition(":")[2] for one in CONTRACT.nouns["account"]]
    assert account[:3] == ["register", "login", "refresh"]
    assert sorted(account) == sorted(name.partition(":")[2] for name in commands if name.startswith("account:"))
    assert CONTRACT.nouns["message"][0].name == "message:send"


def test_every_bound_of_a_payload_is_among_the_bounds() -> None:
    attributes = {field.metadata["setting"].name: field.name for field in dataclasses.fields(Config) if field.metadata}
    assert {attributes[one.name] for one in reference.bounds()} >= set(Bounds._fields)


@pytest.mark.parametrize("document", ["page", "reference"])
def test_every_bucket_says_what_takes_from_it(document: str) -> None:
    text = re.sub("<.*?>", "", told(document)(CONTRACT))
    taken = {
        "LOGIN_ACCOUNT": ["account:login", "account:forgot", "account:delete"],
        "CONNECTS": ["every connect of a socket"],
        "WRITES": ["account:update", "the PUT of an attachment"],
        "OFFER_MOVES": ["offer:make", "autorule:set"],
    }
    for name, takers in taken.items():
        (row,) = re.findall(
            rf"^.*PARLEY_RATE_{name}\b.*per second.*$|^.*PARLEY_RATE_{name}(?![_A-Z]).*/.*$", text, re.MULTILINE
        )[:1]
        assert [taker for taker in takers if taker not in row] == []


@pytest.mark.parametrize("document", ["openapi", "asyncapi", "page", "reference"])
def test_a_further_limit_is_told(document: str) -> None:
    text = told(document)(CONTRACT)
    assert ("counts as WRITES and LOGIN_ACCOUNT" in text) != (document in ("openapi", "asyncapi"))
    assert ('"x-parley-further-limits": ["LOGIN_ACCOUNT"]' in text) == (document in ("openapi", "asyncapi"))


@pytest.mark.parametrize("document", ["page", "reference"])
@pytest.mark.parametrize("pattern", ["^[0-9A-Fa-f]{64}$", r"^\+[1-9][0-9]{6,14}$", r"[\w.-]+$", "^[a-z_]+$"])
def test_patterns_are_shown(document: str, pattern: str) -> None:
    assert pattern in html.unescape(told(document)(CONTRACT))


@pytest.mark.parametrize("document", ["openapi", "asyncapi", "page", "reference"])
def test_the_codecs_are_those_of_the_engine(document: str) -> None:
    text = told(document)(CONTRACT)
    assert f"or polling with upgrade; {prose.codecs(CODECS)}." in text or document == "openapi"
    assert ("msgpack" in text) == ("msgpack" in CODECS and document != "openapi")
    assert ("msgpack" in (ROOT / "docs" / "clients.md").read_text()) == ("msgpack" in CODECS)
    assert prose.codecs(("json", "msgpack")) == "in JSON or msgpack, as the client chooses"


def test_no_table_of_the_page_makes_it_wider_than_the_screen() -> None:
    text = page.page(CONTRACT)[0]
    assert text.count('<div class="table"><table>') == text.count("<table>") > 20
    assert "<details open><summary>Contents</summary>" in text.partition("</nav>")[0]
    assert not re.search(r"PARLEY_[A-Z]+_[A-Z]", text)  # each may be broken behind each _


# commands that nobody has thought of yet


@pytest.mark.parametrize("document", ["openapi", "asyncapi", "page", "reference", "types"])
def test_what_is_declared_tomorrow_is_documented_tomorrow(imagined: Model, document: str) -> None:
    text = told(document)(imagined)
    names = ["dream/imagine", "Think of something that is not there."] if document == "openapi" else ["dream:imagine"]
    names += ["dream:imagined", "dream:fading"] if document != "openapi" else []
    assert [name for name in names if name not in text] == []
    assert "dream" not in told(document)(CONTRACT)


def test_both_documents_for_machines_stay_valid_tomorrow(imagined: Model) -> None:
    validate(openapi.document(imagined))
    operation = openapi.document(imagined)["paths"]["/api/dream/imagine"]["post"]
    assert operation["x-parley-scope"] == "full"
    assert {"400", "401", "403", "409", "413", "429", "500", "503"} <= operation["responses"].keys()
    text = json.dumps(asyncapi.document(imagined))
    assert "prefixItems" not in text  # JSON Schema draft 7 has it not


# made once, and everywhere alike


def test_a_document_is_made_when_it_is_first_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Documents(auth=Auth, protocol=PROTOCOL)
    assert documents.__dict__.get("model") is None
    first = {path: documents.served(path) for path in PATHS}
    monkeypatch.setattr(openapi, "document", None)
    monkeypatch.setattr(asyncapi, "document", None)
    monkeypatch.setattr(page, "page", None)
    assert all(documents.served(path) is first[path] for path in PATHS)


_MADE_ELSEWHERE = """
import json, sys
import server.app
early = sorted(name for name in sys.modules if name.startswith("server.commands.docs."))
from handlers.connections import PROTOCOL, Auth
from server.commands.docs import Documents
print(json.dumps([early, Documents(auth=Auth, protocol=PROTOCOL).files()]))
"""


def test_the_documents_are_the_same_on_every_machine_and_no_burden_on_the_start(tmp_path: Path) -> None:
    made = []
    for seed, language in (("1", "C"), ("2", "C.UTF-8")):
        environ = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": seed, "LC_ALL": language, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(
            [sys.executable, "-c", _MADE_ELSEWHERE], cwd=tmp_path, env=environ, capture_output=True, check=True
        )
        early, files = json.loads(run.stdout)
        assert early == []
        made.append(files)
    assert made[0] == made[1]
    assert made[0].keys() == {"reference.md", "openapi.json", "asyncapi.json", "parley.d.ts"}
    assert str(ROOT) not in json.dumps(made[0])
