# What each verb does is one line of the README. Nothing here calls pip when the lock files have not changed.
PYTHON ?= python3
BIN := .venv/bin
SERVE ?=
TESTS ?=
FAULTS ?=

run: .venv/.runtime ## serve on http://127.0.0.1:8080, with a PostgreSQL of its own
	@exec $(BIN)/parley serve $(SERVE)

test: .venv/.dev ## run all tests
	@$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(TESTS)

check: .venv/.dev ## lint, types, formatting, the import graph, SQL, known weaknesses
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/sqlfluff lint --disable-progress-bar sql
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive server handlers storage rules

docs: .venv/.runtime ## make the documents that derive from the code anew
	$(BIN)/parley docs

bench: .venv/.dev ## measure, beside a Node.js server that does the same work
	$(BIN)/python -m bench

faults: .venv/.dev ## every fault under load for half an hour (FAULTS="--minutes M"), then every guarantee taken out: docs/reliability.md
	$(BIN)/python -m tests.faults --broken too --write $(FAULTS)

lock: .venv/.dev ## pin the newest versions that pyproject.toml allows, with hashes
	$(LOCK) --extra build --output-file requirements.lock pyproject.toml
	$(LOCK) --extra build --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean: ## remove all that these verbs made, but no data folder
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .bench dist tests/clients/node_modules \
		tests/docs-tools/node_modules bench/node/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv: .venv/.dev ## the environment for editors: everything that the other verbs need

# The stamps: touched last, so an installation that was interrupted is made again.
.venv/.runtime: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Parley needs Python 3.11 or later, and $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12 run")'
	@# Debian's python3 has no ensurepip without python3-venv; its pip serves then.
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip .venv
	@echo "Installing what requirements.lock pins into .venv (once)."
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.runtime
	@echo "Installing what requirements-dev.lock pins into .venv (once)."
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

INSTALL = if $(BIN)/python -m pip --version >/dev/null 2>&1; then pip="$(BIN)/python -m pip"; \
	else pip="$(PYTHON) -m pip --python $(BIN)/python"; fi; $$pip install --quiet --disable-pip-version-check
LOCK = $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	--no-emit-index-url --custom-compile-command "make lock"

.PHONY: run test check docs bench faults lock clean .venv
