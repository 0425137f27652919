# Everything runs in .venv, made from requirements.lock. `make` lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
PY     := $(VENV)/bin/python
LOCKED := $(VENV)/requirements.lock
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test lint format lock bench demo

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

# Done when the lock file is the one that was installed: compared by content, as a checkout changes dates.
setup: ## Make the environment in .venv from the hashed lock file
	@cmp -s requirements.lock $(LOCKED) || $(MAKE) --no-print-directory install

.PHONY: install
install:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed and was not found" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=/path/to/it")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "This Python lacks venv: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing the environment into $(VENV) (once; a minute or two)"
	@$(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@cp requirements.lock $(LOCKED)

run: setup ## Set up, migrate the database and serve on HOST:PORT
	@$(PY) -m flask --app app db upgrade
	@exec $(PY) -m gunicorn --config gunicorn.conf.py 'app:create_app()'

demo: setup ## Try it with sample data and a stand-in for Stripe
	@exec $(PY) -m demo $(ARGS)

# What is compiled is kept, also where the environment says not to: each process would compile all tests anew.
test: setup ## Run the tests on SQLite and PostgreSQL; make test ARGS="-k holds"
	@PYTHONDONTWRITEBYTECODE= $(PY) -m pytest $(ARGS)

lint: setup ## Check style, types, import rules and migration drift
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports
	@$(PY) -m tests.drift

format: setup ## Let ruff lay out the code
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: setup ## Measure against a bare endpoint and raw SQL
	@$(PY) -m benchmarks.forecasts
	@$(PY) -m benchmarks $(ARGS)

lock: setup ## Renew requirements.lock from pyproject.toml
	@CUSTOM_COMPILE_COMMAND="make lock" $(PY) -m piptools compile --quiet --extra dev --generate-hashes --allow-unsafe \
		--strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--output-file requirements.lock $(ARGS) pyproject.toml
	@$(MAKE) --no-print-directory setup
