# make test | lint | demo | fuzz | sweep | bench | bench-gpu | figures | laws | corpus | zoo | clean
# Every target installs what it needs into .venv, once.

PYTHON ?= python3
PYTEST_ARGS ?=
FUZZ_ARGS ?=
BENCH_ARGS ?=
CORPUS_ARGS ?=
ZOO_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: test lint demo fuzz sweep bench bench-gpu figures laws corpus zoo clean

test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# A small DIN trained on the bundled MovieTweetings ratings, rewritten, proven identical, and its saving shown.
demo: $(VENV)/.installed-zoo
	mkdir -p build
	$(BIN)/python -m rankopt.zoo train din -o build/din.pt2 --force
	$(BIN)/rankopt optimize build/din.pt2 --context 'features.user_id' --context 'features.hour' \
		--context 'features.weekday' --context 'features.history_*' --candidates 512 -o build/din_fast.pt2 --force
	$(BIN)/rankopt verify build/din.pt2 build/din_fast.pt2

# Fifty thousand random programs and whole rankers beyond those that `make test` draws, which takes hours of a processor.
# FUZZ_ARGS='--seed 1' draws others, FUZZ_ARGS='--minutes 10 --jobs 2' does what fits. Writes bench/results/fuzz.json as it
# goes; started again at the same commit, it goes on where it stopped.
fuzz: $(VENV)/.installed-test
	$(BIN)/python bench/fuzz.py --programs 48000 --rankers 2000 $(FUZZ_ARGS)

# Of which `make test` does a few: every model of the zoo through ONNX and back, a reason for every op that stays per
# candidate, a slice of every benchmark, files for many requests.
sweep: $(VENV)/.installed-test
	RANKOPT_SWEEP=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/zoo/test_onnx_models.py tests/report/test_reasons.py \
		tests/test_bench.py tests/export/test_many.py tests/spellings

# Every benchmark within a budget of time, BENCH_ARGS='--minutes 20' or an hour; a second run goes on where the first
# stopped. Writes bench/results/, and the tables and plots of docs/benchmarks.md. Then the cost of optimising.
bench: $(VENV)/.installed-zoo
	$(BIN)/python bench/run.py $(BENCH_ARGS)
	$(BIN)/python bench/compile_time.py
	$(BIN)/python bench/compile_time.py --nodes

# Linear compression on a GPU; says so and does nothing where there is none.
bench-gpu: $(VENV)/.installed-zoo
	$(BIN)/python bench/gpu/ikbo.py

# The tables and plots of docs/benchmarks.md anew, from bench/results/.
figures: $(VENV)/.installed-zoo
	$(BIN)/python bench/page.py

# The table of laws, docs/laws.md, from the rules themselves.
laws: $(VENV)/.installed-test
	$(BIN)/python docs/laws.py

# Models that other people wrote, checked and timed; goes on where it was interrupted. Writes docs/corpus.md.
corpus: $(VENV)/.installed-torchrec
	$(BIN)/python bench/corpus.py $(CORPUS_ARGS)

# Every model of the zoo trained, rewritten and measured, then the tables and plots of docs/zoo.md. Goes on where an
# earlier run stopped. The coupon survey is included where $$RANKOPT_DATA has it. ZOO_ARGS='--model dlrm' is one model.
zoo: $(VENV)/.installed-zoo
	$(BIN)/rankopt zoo bench $(ZOO_ARGS)
	$(BIN)/rankopt zoo count
	$(BIN)/rankopt zoo table

clean:
	rm -rf build dist $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# One stamp per extra: a second run installs nothing, a changed pyproject.toml installs again.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --editable '.[$*]'
	touch $@

# torchrec asks for the CUDA build of fbgemm; with the CPU build, which the extra installs, its models run anywhere.
$(VENV)/.installed-torchrec: $(VENV)/.installed-corpus
	$(BIN)/python -m pip install --no-deps torchrec==1.8.0
	touch $@
