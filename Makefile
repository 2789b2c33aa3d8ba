# Everything sets up its own environment in .venv; running a target twice does the work once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_DIR ?= build/demo

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

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

test: lint ## lint, types and every test
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-test ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-test ## rewrite files as `make lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-test ## the training step beside the peers that are installed
	$(BIN)/python benchmarks/train_step.py

clean: ## remove the environment, builds and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(wildcard tfdlrm savedmodels pipelines tests benchmarks) -name __pycache__ -type d -prune -exec rm -rf {} +
