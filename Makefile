# Everything a person types. `make` alone says what there is; `make lint` never writes, `make fix` does.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BUILT := $(VENV)/.built

SECONDS ?= 60
SEED ?= 1
JOBS ?= 1
MUTANTS ?=
EVERY ?= 1
POINTS ?= 40
MINUTES ?= 1
PROGRAMS ?= 1000000000
KIND ?= thread
TESTS ?= tests/logstore tests/statemachine tests/accel tests/transport tests/contract
BENCH ?= cluster -c 4,16,64 -r 100000
PYTEST ?=
WORKERS ?= 3

# The engine's modules are plain Python that is compiled too.
SOURCES := setup.py $(wildcard hiqlite/_accel/*.pyx hiqlite/_accel/*.pxi hiqlite/_accel/*.pxd hiqlite/_accel/native/*.c \
	hiqlite/_accel/native/*.h hiqlite/engine/*.py hiqlite/engine/*.pxd)

.DEFAULT_GOAL := help
.PHONY: help build run test test-all sim foundings mutants fuzz-sql sweep sanitize chaos bench lint fix types docs wheel clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: $(BUILT) ## .venv with all dependencies, and the native modules

run: build ## three local nodes with a live table, until Ctrl-C
	@exec $(BIN)/hiqlite demo

# Some hundred processes import the package: it is compiled once for them, whatever the environment says of bytecode.
test test-all: export PYTHONDONTWRITEBYTECODE :=

test: build ## the tests, slices of the simulator and of chaos included (PYTEST="-k name" WORKERS=3)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal -m "not long" $(PYTEST)

test-all: build ## the tests that take minutes too
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(PYTEST)

sim: build ## the consensus simulator (SECONDS=60 SEED=1 JOBS=2)
	$(BIN)/python -m tests.sim.run --seconds $(SECONDS) --seed $(SEED) --jobs $(JOBS)

foundings: build ## the simulator, only how groups come to be (SECONDS=60 SEED=1)
	$(BIN)/python -m tests.sim.foundings --seconds $(SECONDS) --seed $(SEED)

mutants: build ## breaks the product on purpose; the suite must notice (MUTANTS="M1 M3", "--rotate 5")
	$(BIN)/python -m tests.mutants.run $(MUTANTS)

fuzz-sql: build ## random programs of SQL, on a cluster and on plain SQLite (MINUTES=1 SEED=1 PROGRAMS=1)
	$(BIN)/python -m tests.differential.run --minutes $(MINUTES) --seed $(SEED) --programs $(PROGRAMS)

sweep: build ## nodes killed at changes of their disks: one node at every one, three at some (EVERY=1 POINTS=40 SEED=1)
	PYTHONPATH=$(CURDIR) $(BIN)/python tests/crash/sweep.py --every $(EVERY) --seed $(SEED)
	PYTHONPATH=$(CURDIR) $(BIN)/python tests/crash/sweep.py --nodes 3 --points $(POINTS) --seed $(SEED)

sanitize: $(INSTALLED) ## tests with the native code under a sanitizer (KIND=thread TESTS=tests/logstore)
	sh .ci/sanitize $(BIN)/python $(KIND) $(TESTS)

chaos: build ## histories of real clusters under faults, checked (MINUTES=1 SEED=1)
	$(BIN)/python -m tests.chaos.run --minutes $(MINUTES) --seed $(SEED)

bench: build ## the benchmarks (BENCH="single -c 4,64 -r 100000")
	$(BIN)/hiqlite bench $(BENCH)

lint: build ## check the style; never writes
	$(BIN)/ruff check .

fix: build ## repair what the linter can
	$(BIN)/ruff check --fix .

types: build ## check the types
	$(BIN)/mypy

docs: build ## check the documents: snippets run, links lead somewhere
	$(BIN)/python -m pytest tests/house/test_documents.py

wheel: build ## a wheel of this machine's kind in dist/
	rm -rf build/lib.* build/bdist.* # else modules of an earlier build would travel along
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean: ## remove what was built; .venv stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage $(BUILT)
	find hiqlite tests -name __pycache__ -prune -exec rm -rf {} +
	find hiqlite -name '*.so' -delete

# The extensions are left out of the installation and built in place below: so a changed source costs one compile.
$(INSTALLED): pyproject.toml
	@sh .ci/preconditions $(PYTHON)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77"
	HIQLITE_BUILD=none $(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

$(BUILT): $(INSTALLED) $(SOURCES)
	@sh .ci/preconditions $(BIN)/python
	$(BIN)/python setup.py --quiet build_ext --inplace --parallel 2
	@touch $@
