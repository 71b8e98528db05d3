"""The libraries are new enough for the advisories that concern them, and what the linters pass over says why."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
ADVISORY = re.compile(r"CVE-\d{4}-\d{4,}|GHSA(?:-[0-9a-z]{4}){3}")

# The first version with the correction, by the advisory itself; pyproject.toml names it beside its own bound.
LEAST = {
    "aiohttp": ("3.14.3", {"CVE-2026-69243", "CVE-2026-69244"}),
    "aiosmtplib": ("5.1.2", {"CVE-2026-55558"}),
    "h11": ("0.16.0", {"CVE-2025-43859"}),
    "idna": ("3.15", {"CVE-2026-45409"}),
    "msgpack": ("1.2.1", {"CVE-2026-57585"}),
    "orjson": ("3.11.6", {"CVE-2025-67221"}),
    "pyjwt": ("2.14.0", {"CVE-2026-32597", "GHSA-w6j9-cwv2-h6wq"}),
    "python-engineio": ("4.13.2", {"CVE-2026-48802", "CVE-2026-48809"}),
    "python-socketio": ("5.16.2", {"CVE-2025-61765", "CVE-2026-48804"}),
    "requests": ("2.33.0", {"CVE-2026-25645"}),
    "urllib3": ("2.7.0", {"CVE-2026-44431", "CVE-2026-44432"}),
}


def declared() -> dict[str, tuple[Requirement, set[str]]]:
    """What pyproject.toml asks of each library, and the advisories that its line names."""
    tables = tomllib.loads(PYPROJECT)
    asked = tables["project"]["dependencies"] + tables["tool"]["uv"]["constraint-dependencies"]
    found = {}
    for text in asked:
        (line,) = [line for line in PYPROJECT.splitlines() if line.strip().startswith(f'"{text}"')]
        found[Requirement(text).name] = Requirement(text), set(ADVISORY.findall(line.partition("#")[2]))
    return found


def test_each_advisory_is_answered_by_a_bound_that_says_so() -> None:
    assert {name: advisories for name, (_, advisories) in declared().items() if advisories} == {
        name: advisories for name, (_, advisories) in LEAST.items()
    }


@pytest.mark.parametrize("name", LEAST)
def test_no_version_with_a_known_weakness_is_let_in_locked_or_installed(name: str) -> None:
    least = Version(LEAST[name][0])
    (bound,) = [part for part in declared()[name][0].specifier if part.operator in ("==", ">=")]
    assert Version(bound.version) >= least
    assert Version(metadata.version(name)) >= least
    for lock in ("requirements.lock", "requirements-dev.lock"):
        (pinned,) = re.findall(rf"^{name}==([^\s;]+)", (ROOT / lock).read_text(), re.MULTILINE)
        assert Version(pinned) >= least, lock


def test_bandit_reads_every_folder_that_is_deployed() -> None:
    (command,) = re.findall(r"^\t\$\(BIN\)/bandit (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    packages = tomllib.loads(PYPROJECT)["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(command.split("--recursive ")[1].split()) == set(packages)


def test_what_is_passed_over_says_why() -> None:
    skips = re.search(r"^\[tool\.bandit\]\nskips = \[\n(.+?)^\]", PYPROJECT, re.MULTILINE | re.DOTALL)
    assert skips
    assert [line for line in skips[1].splitlines() if not re.match(r'    "B\d{3}", # \S.{15,}', line)] == []
    for folder in ("server", "handlers", "storage", "rules"):
        for path in (ROOT / folder).rglob("*.py"):
            for line in path.read_text().splitlines():
                assert "nosec" not in line or re.search(r"# nosec B\d{3} # \S.{10,}", line), f"{path}: {line}"
