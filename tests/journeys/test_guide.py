"""docs/clients.md is a program: its TypeScript is compiled against docs/parley.d.ts, and run with connections cut."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest

from tests.faults.processes import free_port
from tests.people import Instance
from tests.servers import Node

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "clients.md"
OPTIONS = {
    "strict": True,
    "exactOptionalPropertyTypes": True,
    "noUnusedLocals": True,
    "target": "es2022",
    "lib": ["es2022", "dom", "dom.iterable"],
    "module": "esnext",
    "moduleResolution": "bundler",
    "types": [],
}


def blocks(language: str) -> list[str]:
    """The page's blocks in that language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def program(node: Node, tmp_path: Path) -> Path:
    """The page's program, compiled; the types it imports are those that the docs have."""
    (tmp_path / "node_modules").symlink_to(node.clients / "node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "parley.d.ts").symlink_to(DOCS / "parley.d.ts")
    (tmp_path / "guide.ts").write_text("\n".join(blocks("ts")))
    (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "files": ["guide.ts"]}))
    compiler = node.clients / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [node.binary, compiler, "--project", tmp_path], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return tmp_path / "guide.js"


def test_whatever_is_typescript_on_the_page_is_run() -> None:
    assert len(blocks("ts")) > 10
    assert blocks("typescript") == blocks("js") == blocks("javascript") == []


async def test_the_guide_loses_nothing_while_its_connection_is_cut(
    migrated_database: str, node: Node, program: Path, tmp_path: Path
) -> None:
    settings = {
        "PARLEY_PORT": str(free_port()),
        "PARLEY_ACCESS_TTL_S": "6",  # its end is announced at half of it: within the story
        "PARLEY_ATTACHMENTS_FOLDER": str(tmp_path / "attachments"),
    }
    instance = await Instance(migrated_database, **settings).start()
    story = str(node.clients / "guide.mjs")
    process = await asyncio.create_subprocess_exec(
        str(node.binary), story, instance.url, str(program), stdout=PIPE, stderr=STDOUT
    )
    assert process.stdout is not None
    told: list[str] = []
    while line := (await process.stdout.readline()).decode():
        told.append(line)
        if line == "drain\n":
            await instance.stop()
            instance = await Instance(migrated_database, **settings).start()
    await instance.stop()
    assert await process.wait() == 0, "".join(told)
    assert told[-1] == "the guide holds\n"
