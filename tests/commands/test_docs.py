"""The documents: made from the declarations alone, all of them; once, and everywhere alike."""

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
from server.commands.docs import PATHS, Documents, asyncapi, openapi, page, reference, typescript
from server.commands.docs.failures import failures
from server.commands.docs.model import Model
from server.commands.docs.shapes import REF
from server.commands.registry import Transport, commands, pushes
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
        meta = "EphemeralMeta" if one.ephemeral else "DurableMeta"
        assert headers == ({"$ref": REF + meta} if one.rooms else None)


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
