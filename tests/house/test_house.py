"""The house in order: what is deployed, locked, documented and layered is what the pages say."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from server.config import settings

ROOT = Path(__file__).parents[2]
DOMAIN = ("handlers", "storage", "rules")
MAJORS = {"postgres": "18", "redis": "8", "nginx": "1.28-alpine", "python": "3.11-slim-bookworm"}
KNOWN = {setting.name for setting in settings()}


def tracked() -> list[Path]:
    """The files that are, or are about to be, in the repository."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for name in names if (path := ROOT / name).is_file()]


def text_of(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """Its instructions with their arguments, lines joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def last_stage(dockerfile: list[tuple[str, str]]) -> list[tuple[str, str]]:
    begins = max(index for index, (word, _) in enumerate(dockerfile) if word == "FROM")
    return dockerfile[begins:]


def test_the_image_is_slim_and_runs_as_nobody_special(dockerfile: list[tuple[str, str]]) -> None:
    bases = [rest.split()[0] for word, rest in dockerfile if word == "FROM"]
    assert bases == [f"python:{MAJORS['python']}"] * 2
    (user,) = [rest for word, rest in last_stage(dockerfile) if word == "USER"]
    assert user.isdigit()
    assert int(user) >= 1000


def test_the_image_says_whether_it_is_ready(dockerfile: list[tuple[str, str]]) -> None:
    (check,) = [rest for word, rest in last_stage(dockerfile) if word == "HEALTHCHECK"]
    command = yaml.safe_load(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    assert "/readyz" in command[2]
    ast.parse(command[2])


def test_the_image_installs_only_what_is_locked(dockerfile: list[tuple[str, str]]) -> None:
    installs = [rest for word, rest in dockerfile if word == "RUN" and "pip install" in rest]
    assert len(installs) == 2
    assert all("--require-hashes -r requirements.lock" in run or "--no-deps" in run for run in installs)


def _needed(names: Iterable[str]) -> set[str]:
    """These packages and all that they bring along, by their normal names."""
    found: set[str] = set()
    todo = [canonicalize_name(name) for name in names]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        wanted = (Requirement(line) for line in metadata.requires(name) or ())
        todo += [
            canonicalize_name(one.name) for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})
        ]
    return found


def test_the_image_has_nothing_to_build_or_install_with(dockerfile: list[tuple[str, str]]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    build = _needed(Requirement(line).name for line in project["optional-dependencies"]["build"])
    in_venv, in_base = [rest for word, rest in dockerfile if word == "RUN" and "pip uninstall --yes" in rest]
    assert set(in_venv.split()[3:]) == build - _needed({"parley"}) | {"pip", "setuptools"}
    assert in_base.startswith("pip uninstall --yes setuptools wheel pip && ")
    assert not [rest for word, rest in last_stage(dockerfile) if word == "RUN" and re.search("apt|pip install", rest)]


def test_the_image_has_every_package_of_the_project(dockerfile: list[tuple[str, str]]) -> None:
    copies = [rest.split()[:-1] for word, rest in dockerfile if word == "COPY" and not rest.startswith("--from")]
    copied = {name for names in copies for name in names}
    assert copied >= {"server", *DOMAIN, "sql"}
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(let_in)


def test_every_setting_that_is_deployed_is_one(compose: dict[str, Any], dockerfile: list[tuple[str, str]]) -> None:
    in_image = {name for word, rest in dockerfile if word == "ENV" for name in re.findall(r"(PARLEY_\w+)=", rest)}
    in_compose = set(re.findall(r"PARLEY_\w+", (ROOT / "docker-compose.yml").read_text()))
    assert in_image
    assert in_image | in_compose <= KNOWN
    assert set(compose["services"]["parley-1"]["environment"]) <= KNOWN


def test_two_instances_share_what_makes_them_one(compose: dict[str, Any]) -> None:
    one, two = (compose["services"][name]["environment"] for name in ("parley-1", "parley-2"))
    for name in ("DATABASE_URL", "REDIS_URL", "PARLEY_SECRET"):
        assert one[name] == two[name]
    assert one["PARLEY_INSTANCE"] != two["PARLEY_INSTANCE"]


def test_secrets_come_from_the_environment_or_nothing_starts(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            if any(word in name for word in ("SECRET", "PASSWORD", "DATABASE_URL")):
                assert re.search(r"\$\{\w+:\?.+\}", value), name


def test_images_are_pinned_to_a_major_and_say_whether_they_are_well(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if "build" in service:
            continue  # its image brings its own
        image, _, version = service["image"].partition(":")
        assert version == MAJORS[image], name
        assert service["healthcheck"]["test"][0] == "CMD"


def test_nothing_starts_before_what_it_needs_is_well(compose: dict[str, Any]) -> None:
    needs = {name: set(service.get("depends_on", {})) for name, service in compose["services"].items()}
    assert needs["nginx"] == {"parley-1", "parley-2"}
    assert needs["parley-1"] == needs["parley-2"] == {"postgres", "redis"}
    for service in compose["services"].values():
        assert all(how == {"condition": "service_healthy"} for how in service.get("depends_on", {}).values())


def test_nginx_alone_is_reached_from_outside(compose: dict[str, Any]) -> None:
    assert [name for name, service in compose["services"].items() if "ports" in service] == ["nginx"]


def test_no_container_has_a_privilege_or_files_it_could_change(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"cap_add", "privileged", "devices", "pid", "ipc", "network_mode"} & set(service), name
        assert "build" in service or service["user"] not in ("root", "0"), name  # the image of ours brings its user


def test_what_a_container_may_write_and_take_is_named(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.fullmatch(r"\d+[mg]", service["mem_limit"]), name
        assert 0 < service["pids_limit"] <= 256, name
        assert all(path.startswith("/") for path in service["tmpfs"]), name
        kept, mounted = [], service.get("volumes", [])
        for volume in mounted:
            source, _, rest = volume.partition(":")
            if not rest.endswith(":ro"):
                kept.append(source)
        assert set(kept) <= set(compose["volumes"]), name  # and no folder of the machine's
    files = int(re.findall(r"worker_rlimit_nofile (\d+);", (ROOT / "deploy" / "nginx.conf").read_text())[0])
    assert compose["services"]["nginx"]["ulimits"]["nofile"] >= files
    assert compose["services"]["parley-1"]["ulimits"]["nofile"] >= files


def test_what_is_reached_from_outside_does_not_reach_the_data(compose: dict[str, Any]) -> None:
    networks = {name: set(service["networks"]) for name, service in compose["services"].items()}
    assert networks["nginx"] == {"edge"}
    assert networks["postgres"] == networks["redis"] == {"data"}
    assert networks["parley-1"] == networks["parley-2"] == {"edge", "data"}
    assert compose["networks"]["data"] == {"internal": True}


def test_the_proxy_lets_websockets_through_and_polling_stick() -> None:
    conf = (ROOT / "deploy" / "nginx.conf").read_text()
    for line in (
        "hash $remote_addr consistent;",
        "proxy_http_version 1.1;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection $connection_upgrade;",
        "proxy_set_header X-Forwarded-For $remote_addr;",
        "proxy_set_header X-Forwarded-Proto $client_scheme;",
        "real_ip_recursive on;",
        "proxy_buffering off;",
    ):
        assert line in conf
    assert not re.search(r"^\s*set_real_ip_from", conf, re.MULTILINE)  # whom to believe, the operator says
    assert re.search(r"location \^~ /metrics \{\s*return 404;", conf)
    assert set(re.findall(r"server (parley-\d):8080", conf)) == {"parley-1", "parley-2"}


def test_the_proxy_waits_longer_than_a_heartbeat() -> None:
    defaults = {setting.name: setting.default for setting in settings()}
    heartbeat_ms = int(defaults["PARLEY_PING_INTERVAL_MS"]) + int(defaults["PARLEY_PING_TIMEOUT_MS"])
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", (ROOT / "deploy" / "nginx.conf").read_text())
    assert int(seconds) * 1000 > heartbeat_ms


def test_no_file_has_a_download_address() -> None:
    address = re.compile(r"https?://[^\s\"']+\.(?:whl|tar\.gz|tgz|deb)\b")
    assert named([path for path in tracked() if address.search(text_of(path))]) == []


# A folder of one machine or one person; spelled so that it is not found here itself.
PLACE = re.compile(r"(?<![\w.~-])/(?:(?:work|root)/|(?:home|Users)/[\w.-]+)")


def test_no_file_has_a_path_of_one_machine() -> None:
    assert named([path for path in tracked() if PLACE.search(text_of(path))]) == []


@pytest.mark.parametrize("place", ["work/main", "root/.cache", "home/amina", "home/a.b-c/x", "Users/amina/parley"])
@pytest.mark.parametrize("before", ["", "see ", "file://", "C:", "'", "PATH=/bin:"])
def test_a_path_of_one_machine_is_recognised(before: str, place: str) -> None:
    assert PLACE.search(f"{before}/{place}")
    assert not PLACE.search(f"https://example.org/{place}")
    assert not PLACE.search(f"~/{place}")


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_has_hashes_and_no_addresses(name: str) -> None:
    lock = (ROOT / name).read_text()
    assert "://" not in lock
    assert not re.search(r"^\s*--(?!hash)", lock, re.MULTILINE)
    entries = re.split(r"\n(?=[a-z0-9])", re.sub(r"^\s*#.*\n", "", lock, flags=re.MULTILINE).strip())
    assert len(entries) > 30
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[^\s;]+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_both_locks_agree() -> None:
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9-]+==\S+", (ROOT / name).read_text(), re.MULTILINE))

    assert pins("requirements.lock") <= pins("requirements-dev.lock")


def test_every_lock_of_npms_has_hashes_and_no_addresses() -> None:
    locks = [path for path in tracked() if path.name == "package-lock.json"]
    assert {"tests/clients/package-lock.json", "bench/node/package-lock.json"} <= set(named(locks))
    for path in locks:
        _, *packages = json.loads(path.read_text())["packages"].items()  # the first is the project itself
        assert packages, path
        assert [name for name, package in packages if not package.get("integrity", "").startswith("sha512-")] == []
        assert [name for name, package in packages if "resolved" in package] == []


def test_every_folder_that_npm_fills_has_a_lock() -> None:
    folders = {path.parent for path in tracked() if path.name == "package.json"}
    assert folders == {path.parent for path in tracked() if path.name == "package-lock.json"}


def test_the_readme_names_every_verb_and_how_to_have_it_all() -> None:
    readme = (ROOT / "README.md").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [verb for verb in phony.split() if f"make {verb}" not in readme] == []
    assert ".ci/install-system-packages" in readme


def test_ci_runs_what_developers_run() -> None:
    for name in (".ci/run", ".ci/install-system-packages"):
        assert os.access(ROOT / name, os.X_OK), name
    run = (ROOT / ".ci" / "run").read_text()
    assert re.search(r"REQUIRE_ALL_TESTS=1\nmake check\nmake test\n$", run)
    assert "PARLEY_" not in run


def test_every_sql_file_begins_by_saying_what_it_is_for() -> None:
    files = sorted((ROOT / "sql").rglob("*.sql"))
    assert files
    headers = {path: path.read_text().splitlines()[0] for path in files}
    assert named([path for path, line in headers.items() if not re.match(r"-- (?!name:)\S.{20,}", line)]) == []


def test_sql_keywords_are_lower_case() -> None:
    keywords = (
        "select|insert|update|delete|from|where|join|values|returning|order by|create|alter|begin|and|or|not|null"
    )
    shouted = re.compile(rf"\b(?:{keywords.upper()})\b")
    quoted = re.compile(r"--[^\n]*|'(?:[^']|'')*'")
    files = sorted((ROOT / "sql").rglob("*.sql"))
    assert named([path for path in files if shouted.search(quoted.sub("", path.read_text()))]) == []


def test_a_domain_file_of_300_lines_is_two_nouns() -> None:
    files = [path for folder in (*DOMAIN, "sql") for path in (ROOT / folder).glob("*.*") if path.is_file()]
    assert len(files) > 10
    assert named([path for path in files if len(path.read_text().splitlines()) > 300]) == []


def test_rules_import_the_standard_library_alone() -> None:
    for path in sorted((ROOT / "rules").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                continue
            foreign = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"rules"}
            assert not foreign, path


def test_every_layer_of_a_noun_has_its_name() -> None:
    queries = {path.stem for path in (ROOT / "sql").glob("*.sql")}
    stored = {path.stem for path in (ROOT / "storage").glob("[a-z]*.py")}
    assert queries <= stored
