# One environment, one command each. PYTHON picks the interpreter that makes the environment.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python

.PHONY: setup check test bench replay

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --editable ".[dev]"
	touch $@

check: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy --strict src
	$(RUN) -m pytest -q -m "not slow"

test: setup
	$(RUN) -m pytest -q

# make bench ARGS="--threads 1 resnet18"
bench: setup
	$(RUN) bench/run.py $(ARGS)

# make replay ARGS="main~3 main"
replay: setup
	$(RUN) bench/replay.py $(ARGS)
