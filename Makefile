# CRUN. `make` alone explains itself. Needs Python 3.11 or newer; everything else goes into .venv.

.DEFAULT_GOAL := help
.PHONY: help run test soak check lint types format bench screenshots docs lock launcher
.SUFFIXES:
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
UV ?= uv
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --no-compile --require-hashes
COMPILE_ALL = $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib
COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 --extra embedded

# The command `crun` without a build step: a launcher, and a .pth file that puts this checkout on the import path.
define LAUNCHER
#!/bin/sh
exec "$(CURDIR)/$(BIN)/python" -P -m crun.cli "$$@"
endef
export LAUNCHER

help: ## show this list
	@echo "CRUN sells language models through one API. Start with: make run"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done
	@echo
	@echo "Settings come from the environment or .env, for example: PORT=8001 CRUN_HOME=/srv/crun make run"

run: $(VENV)/run.lock launcher ## install what is missing, start everything, print how to use it; Ctrl-C stops it
	@exec $(BIN)/crun up

test: $(VENV)/dev.lock launcher ## run all tests on real PostgreSQL, Valkey and sockets
	@deploy/install-test-packages
	@$(BIN)/python -m pytest -n 3

soak: $(VENV)/dev.lock launcher ## try to lose money at length; PART=crashes for a part of it (docs/testing.md)
	@$(BIN)/python -m tests.money.soak $(PART)

check: $(VENV)/dev.lock launcher ## formatting, lint, types and layers, then all tests (missing migrations are one)
	@$(MAKE) --no-print-directory -j 2 lint types
	@$(MAKE) --no-print-directory test

lint: $(VENV)/dev.lock
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	@deploy/install-test-packages

types: $(VENV)/dev.lock
	$(BIN)/mypy

format: $(VENV)/dev.lock ## format the code and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev.lock launcher ## measure the gateway against nginx and a direct connection
	@$(BIN)/python -m bench

screenshots: $(VENV)/dev.lock launcher ## take the pictures of portal and console that the README shows
	@deploy/install-test-packages
	@$(BIN)/python -m docs.take_screenshots

docs: $(VENV)/dev.lock launcher ## check that links, file maps, settings and error tables of the docs are true
	@$(BIN)/python -m pytest -q tests/architecture -k "doc or decision or configuration"

lock: ## pin all dependencies with hashes again (needs uv)
	$(COMPILE) --output-file requirements/run.txt pyproject.toml
	$(COMPILE) --group dev --output-file requirements/dev.txt pyproject.toml

# --- .venv: made once; installed into again only when the content of a lock has changed ---------------------------

$(BIN)/python:
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14; do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		echo "Making $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv $(VENV) && exit 0; \
		rm -rf $(VENV); exit 1; \
	done; \
	echo "CRUN needs Python 3.11 or newer; found: $$(python3 --version 2>&1). Install one, or name it:" >&2; \
	echo "    make $(or $(firstword $(MAKECMDGOALS)),run) PYTHON=/path/to/python3.11" >&2; \
	exit 1

$(VENV)/%.lock: requirements/%.txt | $(BIN)/python
	@cmp -s $< $@ || { echo "Installing the packages of $< (the first time takes a minute)"; \
		$(PIP_INSTALL) -r $< && { $(COMPILE_ALL) || true; }; }
	@cp $< $@

launcher: | $(BIN)/python
	@printf '%s\n' "$$LAUNCHER" > $(BIN)/crun && chmod +x $(BIN)/crun
	@for packages in $(VENV)/lib/python3*/site-packages; do printf '%s\n' "$(CURDIR)" > "$$packages/crun.pth"; done
