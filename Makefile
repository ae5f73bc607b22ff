# Every target makes the virtual environment it needs, and makes it again when pyproject.toml changes.
PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs
# Experiments that `make reproduce` runs, separated by commas; empty: all.
ONLY ?= in_context_regression
BIN := $(VENV)/bin
STAMP := $(VENV)/.made-from-pyproject
JOBS ?= 2
# Extras of the package to install; with tpu, kernels are compiled for TPUs too: EXTRAS=dev,tpu.
EXTRAS ?= dev
# Tests run small programs; more compiler threads than cores only slow them down.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help reproduce test test-all test-kernels lint bench bench-gpu docs clean

help:
	@echo "make reproduce   reproduce in-context regression, gallery in $(RUNS)/index.html (ONLY= for all papers)"
	@echo "make test        the test suite"
	@echo "make test-all    the test suite with its slow tests"
	@echo "make test-kernels every test of the Pallas kernels, interpreted and compiled for TPUs"
	@echo "make lint        ruff and pyright"
	@echo "make bench       measure the engines against dense baselines on this machine"
	@echo "make bench-gpu   measure both engines on a GPU, with EXTRAS=dev,gpu, against cuDNN and XLA"
	@echo "make docs        write docs/mechanisms.md, its pictures, and the README's table"
	@echo "make clean       remove the virtual environment and caches"

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "jattn needs Python >= 3.11; say which with: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

reproduce: $(STAMP)
	$(BIN)/python -m experiments.reproduce --workdir=$(RUNS) $(if $(ONLY),--only=$(ONLY))

test: $(STAMP)
	$(PYTEST) -m "not slow" --durations=20

test-all: $(STAMP)
	$(PYTEST)

test-kernels: $(STAMP)
	$(PYTEST) -m kernels

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(STAMP)
	$(BIN)/python -m experiments.bench

bench-gpu: $(STAMP)
	$(BIN)/python -m experiments.bench_gpu

docs: $(STAMP)
	$(BIN)/python -m experiments.docs

clean:
	rm -rf $(VENV) .jax_cache .pytest_cache .ruff_cache *.egg-info
