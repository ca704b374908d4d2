# One file to start from: `make help` lists what there is.
VENV    ?= .venv
PYTHON  ?= python3
BIN      = $(VENV)/bin
STAMP    = $(VENV)/.installed
TSTAMP   = $(VENV)/.installed-test
JOBS    ?= 2
PIP      = $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: help demo test check lint soak fix bench reference clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first and by exact version: any other way of asking may pull several gigabytes of CUDA.
$(STAMP): requirements.txt constraints.txt pyproject.toml | $(BIN)/python
	@echo "Setting up $(VENV): about two minutes the first time ..."
	$(PIP) "setuptools>=77"
	$(PIP) torch==2.13.0 -c constraints.txt
	$(PIP) --no-build-isolation -r requirements.txt -c constraints.txt
	@touch $@

$(TSTAMP): requirements-test.txt $(STAMP)
	$(PIP) --no-build-isolation -r requirements-test.txt -c constraints.txt
	@touch $@

demo: $(STAMP)  ## set up and run the main job: train, evaluate, deploy, ask, chat
	$(BIN)/python examples/sentiment.py

test: $(TSTAMP)  ## set up and run all tests (under 20 minutes on two cores)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

check: lint  ## format, lint, types, import contracts, sizes, unit tests (under 2 minutes)
	$(BIN)/python -m pytest -q -n $(JOBS) tests/unit

lint: $(TSTAMP)  ## the same without tests
	$(BIN)/ruff format --check src tests scripts examples benchmarks
	$(BIN)/ruff check src tests scripts examples benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_sizes.py
	$(BIN)/python scripts/reference.py --check

soak: $(TSTAMP)  ## long chaos, simulation and fuzz runs: 1,000 kernel kills, 20,000 seeds, an hour (log in soak.log)
	LLM_OS_KILLS=1000 LLM_OS_SEEDS=20000 $(BIN)/python -m pytest -x --timeout 36000 tests/faults tests/simulation 2>&1 | tee -a soak.log
	$(BIN)/python scripts/fuzz_gateway.py --minutes 60 --raw-minutes 30 2>&1 | tee -a soak.log

fix: $(TSTAMP)  ## format and mend what can be mended by machine
	$(BIN)/ruff check --fix src tests scripts examples benchmarks
	$(BIN)/ruff format src tests scripts examples benchmarks
	$(BIN)/python scripts/reference.py

bench: $(TSTAMP)  ## list the benchmarks and how each is run
	@cat benchmarks/README.md

reference: $(STAMP)  ## write docs/reference from the code
	$(BIN)/python scripts/reference.py

clean:  ## remove caches and build products, not the environment
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
