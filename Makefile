# Everything sets up its own environment in .venv; running a target twice does the work once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_DIR ?= build/demo
# A file's tests run in one process, whose models and exports they share. A worker that crashes is not replaced: with
# `loadfile` the run would wait for ever.
SIDE_BY_SIDE ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
BENCH_FLAGS ?= --wait-idle 300 --retries 2

.DEFAULT_GOAL := help
.PHONY: help demo demo-tfx test test-tfx tfx-env check lint audit format bench clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The stamps are renewed when what is to be installed changes. The test environment holds all that the demo needs.
$(VENV)/.installed-demo: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	@touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	@touch $@ $(VENV)/.installed-demo

demo: $(VENV)/.installed-demo ## train on synthetic rows whose best possible AUC is known (under 5 minutes)
	$(BIN)/tfdlrm demo --model-dir $(DEMO_DIR)

demo-tfx: ## the TFX pipeline on generated rows, from CSV to a served model, and what stops a bad run (under 10 minutes)
	$(PYTHON) tools/tfx_env.py run python -m pipelines.demo pipelines/config.yaml

test: lint ## lint, types and every test but those of pipelines/ (make test-tfx)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

tfx-env: ## an environment with TFX, in the user's cache; as root where glibc is older than 2.39 (about 3 minutes, once)
	$(PYTHON) tools/tfx_env.py make

test-tfx: ## the tests of pipelines/, in the environment with TFX
	$(PYTHON) tools/tfx_env.py run python -m pytest -W default tests/pipelines

# The folders that mirror what differs from the last commit on main; tests that start processes are left to `make test`.
check: lint ## lint, types and the quick tests of the folders that changed, for daily use (under 2 minutes)
	$(BIN)/python tools/changed_tests.py $(SIDE_BY_SIDE)

lint: $(VENV)/.installed-test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: $(VENV)/.installed-test ## faults that are known of what is installed (pip-audit; asks a database on the internet)
	$(BIN)/python -m pip install --quiet pip-audit
	$(BIN)/pip-audit --skip-editable

format: $(VENV)/.installed-test ## rewrite files as `make lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A peer that cannot be installed is named in the reports.
bench: $(VENV)/.installed-test ## every benchmark beside its peers, on a quiet machine; appends to benchmarks/RESULTS.md (about 2 hours)
	-$(BIN)/python benchmarks/setup_peers.py
	$(BIN)/python benchmarks/embedding_bags.py $(BENCH_FLAGS) --record
	$(BIN)/python benchmarks/embedding_bags.py --hotness mlperf-dcnv2 $(BENCH_FLAGS) --record
	$(BIN)/python benchmarks/train_step.py --batch-sizes 128 2048 16384 $(BENCH_FLAGS) --record
	$(BIN)/python benchmarks/train_step.py --batch-sizes 2048 --embedding-dim 64 --max-rows 1000000 $(BENCH_FLAGS) --record
	$(BIN)/python benchmarks/train_step.py --batch-sizes 2048 --embedding-dim 128 --max-rows 500000 $(BENCH_FLAGS) --record
	$(BIN)/python benchmarks/train_step.py --model dcnv2 $(BENCH_FLAGS) --record
	$(BIN)/python benchmarks/floor.py $(BENCH_FLAGS) --record
	$(BIN)/python benchmarks/floor.py --model dcnv2 $(BENCH_FLAGS) --record
	$(BIN)/python benchmarks/fit_from_files.py $(BENCH_FLAGS) --record
	$(BIN)/python benchmarks/table_rows.py --wait-idle 300 --record
	$(BIN)/python benchmarks/table_rows.py --model-rows 100000 100000000 --wait-idle 300 --record
	$(BIN)/python benchmarks/table_rows.py --memory --record
	$(BIN)/python benchmarks/parameter_servers.py --wait-idle 300 --record
	$(BIN)/python benchmarks/prepare_data.py
	$(BIN)/python benchmarks/read_prepared.py
	$(BIN)/python benchmarks/input_wait.py

clean: ## remove the environment, builds and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(wildcard tfdlrm savedmodels pipelines tests benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +
