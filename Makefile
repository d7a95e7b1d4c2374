# The two commands are `make run` and `make test`; `make` alone lists the rest.
# Everything is installed into $(VENV), nothing outside the checkout is touched.

PYTHON ?= python3
VENV ?= .venv
# Settings of the project for `make run`, e.g. VARS='--vars.config small --vars.seed 1'.
VARS ?=
# Arguments of pytest for `make test`, e.g. PYTEST='-k decoding --slow'.
PYTEST ?=
# Extras that the workflow `all` of the project uses.
RUN_EXTRAS ?= dbr
# Extras that the tests use. The tests of Ray: make test EXTRAS=all,ray PYTEST=--ray
# Those of pages, in a headless Chromium: make test PYTEST=--browser
EXTRAS ?= all
# Processes that run tests at the same time, one thread each.
WORKERS ?= 2
# An additional package index, e.g. one with builds of torch for the CPU alone. Empty: what pip is set to.
PIP_EXTRA_INDEX ?=
# Threads that wait do not spin: three times as fast on two cores that something else uses too.
export OMP_WAIT_POLICY ?= PASSIVE

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check \
	$(if $(PIP_EXTRA_INDEX),--extra-index-url $(PIP_EXTRA_INDEX))

.DEFAULT_GOAL := help
.PHONY: help run test lint wheel-test transformers5 clean

help:
	@echo "make run             set up, then convert, train and evaluate on the sample corpora (minutes)"
	@echo "make test            set up, then run the tests"
	@echo "make venv            set up only: $(VENV) with the package and what the project needs"
	@echo "make lint            ruff and mypy"
	@echo "make wheel-test      build the wheel and use it in a clean environment outside the checkout"
	@echo "make transformers5   the tests of the model with the second generation of transformers"
	@echo "make clean           remove environments, caches and results"
	@echo
	@echo "Variables: PYTHON=$(PYTHON) VENV=$(VENV) VARS= PYTEST= WORKERS=$(WORKERS) PIP_EXTRA_INDEX="
	@echo "On your own corpora: README.md, and project/README.md for the settings."

# A stamp per step: nothing is installed twice, and a change of what it lists installs again.
$(VENV)/torch.stamp: constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 13) else \
		f"Python 3.10 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -c constraints.txt torch
	@touch $@

$(VENV)/package.stamp: $(VENV)/torch.stamp setup.cfg pyproject.toml
	$(PIP) -c constraints.txt -e '.[$(RUN_EXTRAS)]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/package.stamp requirements-dev.txt
	$(PIP) -c constraints.txt -e '.[$(EXTRAS)]' -r requirements-dev.txt
	@touch $@

.PHONY: venv
venv: $(VENV)/package.stamp

run: venv
	$(BIN)/python -m spacy project run all project $(VARS)

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel-test: $(VENV)/dev.stamp
	PIP_EXTRA_INDEX=$(PIP_EXTRA_INDEX) .ci/wheel_test $(BIN)/python

$(VENV)-transformers5/stamp: constraints-transformers5.txt setup.cfg pyproject.toml
	test -x $(VENV)-transformers5/bin/python || $(PYTHON) -m venv $(VENV)-transformers5
	$(subst $(BIN),$(VENV)-transformers5/bin,$(PIP)) -c constraints-transformers5.txt torch
	$(subst $(BIN),$(VENV)-transformers5/bin,$(PIP)) -c constraints-transformers5.txt -e '.[quantization]' \
		pytest pytest-timeout pytest-xdist hypothesis
	@touch $@

transformers5: $(VENV)-transformers5/stamp
	$(VENV)-transformers5/bin/python -m pytest -n $(WORKERS) -m transformers5 $(PYTEST)

clean:
	rm -rf $(VENV) $(VENV)-run $(VENV)-transformers5 build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf project/project.lock project/converted project/knowledge project/tokenizers project/training project/metrics project/benchmarks project/pretraining project/ablation project/probe project/annotated project/shipped
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
