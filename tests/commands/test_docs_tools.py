"""The documents by the tools of those who read them: validators, the TypeScript compiler."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from server.commands.docs import asyncapi, openapi, typescript
from server.commands.docs.model import Model
from tests.commands.dreams import CONTRACT, dream
from tests.servers import Node, installed_node

TOOLS = Path(__file__).parents[1] / "docs-tools"


@pytest.fixture(params=["as it is", "with what may come"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The declarations, and with some more."""
    return CONTRACT if request.param == "as it is" else dream(monkeypatch)


def test_openapi_is_valid(model: Model) -> None:
    assert list(OpenAPIV31SpecValidator(openapi.document(model)).iter_errors()) == []


def test_asyncapi_is_valid_and_every_pattern_is_javascripts_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    node, more = installed_node(TOOLS), dream(monkeypatch)
    files = (tmp_path / "asyncapi.json", tmp_path / "openapi.json")
    for path, document in zip(files, (asyncapi.document(more), openapi.document(more)), strict=True):
        path.write_text(json.dumps(document))
    done = subprocess.run(
        [node.binary, TOOLS / "check.mjs", *files], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    operations = len(asyncapi.document(more)["operations"])
    assert f"{operations} operations" in done.stdout


def test_a_client_in_typescript_compiles(model: Model, node: Node, tmp_path: Path) -> None:
    (tmp_path / "parley.d.ts").write_text(typescript.types(model))
    (tmp_path / "every.ts").write_text("\n".join(_every(model)))
    options = {
        "noEmit": True,
        "strict": True,
        "exactOptionalPropertyTypes": True,
        "noUnusedLocals": False,
        "target": "es2022",
        "module": "nodenext",
        "types": [],
        "paths": {"parley": [str(tmp_path / "parley.d.ts")]},
    }
    files = [str(node.clients / "types.ts"), str(tmp_path / "every.ts")]
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": files}))
    compiler = node.clients / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [node.binary, compiler, "--project", tmp_path], capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _every(model: Model) -> Iterator[str]:
    """A program with the example of everything, each as the type it is said to have."""
    yield 'import type { ClientToServerEvents, Commands, Pushes, ServerToClientEvents } from "parley";'
    for one in model.commands:
        name = json.dumps(one.name)
        yield f'export const {one.id}: Commands[{name}]["payload"] = {json.dumps(one.example)};'
        yield f'export const {one.id}_answer: Commands[{name}]["data"] = {json.dumps(one.answer_example)};'
        there = "true" if one.on_socket else "false"
        yield f"export const {one.id}_emits: {name} extends keyof ClientToServerEvents ? true : false = {there};"
    for push in model.pushes:
        name = json.dumps(push.name)
        yield f"export const {push.id}_push: Pushes[{name}][0] = {json.dumps(push.example)};"
        yield f"export const {push.id}_hears: {name} extends keyof ServerToClientEvents ? true : false = true;"
