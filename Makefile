# make test | lint | demo | fuzz | bench | clean. Every target installs what it needs into .venv, once.

PYTHON ?= python3
PYTEST_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: test lint demo fuzz bench clean

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A small DLRM trained on the bundled MovieTweetings ratings, rewritten, proven identical, and its saving shown.
demo: $(VENV)/.installed-zoo
	mkdir -p build
	$(BIN)/python -m rankopt.zoo train dlrm -o build/dlrm.pt2 --force
	$(BIN)/rankopt optimize build/dlrm.pt2 --context 'features.user_id' --context 'features.hour' \
		--context 'features.weekday' --candidates 512 -o build/dlrm_fast.pt2 --force
	$(BIN)/rankopt verify build/dlrm.pt2 build/dlrm_fast.pt2

# Twenty thousand random programs instead of the two thousand that `make test` draws.
fuzz: $(VENV)/.installed-test
	RANKOPT_FUZZ_EXAMPLES=20000 $(BIN)/python -m pytest tests/properties $(PYTEST_ARGS)

bench: $(VENV)/.installed-zoo
	for script in bench/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf build dist $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One stamp per extra: a second run installs nothing, a changed pyproject.toml installs again.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[$*]'
	touch $@
