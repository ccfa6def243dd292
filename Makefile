# Two commands from a fresh clone: `make demo` and `make test`. Each makes .venv by itself.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# A module of tests stays in one process, with the servers and nets that its tests share; federations
# come before units, which fill the gaps at the end.
PARALLEL := -n logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder

.PHONY: demo test test-fast check format stubs clean

demo: $(VENV)/.demo
	$(BIN)/rootstock demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(or $(ARGS),$(PARALLEL))

# Without processes of whole federations and without what trains nets for long.
test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow" tests/unit $(ARGS)

# Format, lint, types, import directions, stubs: what CI runs before the tests.
check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m rootstock.protos.generate --check

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

stubs: $(VENV)/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m rootstock.protos.generate

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# An extra each; the stamp is younger than what it was made from. The dev extra holds the demo's.
$(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) .rootstock build *.egg-info
