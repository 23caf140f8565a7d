# Every target sets up what it needs; there is no other step. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help run test test-all check bench lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.base  ## fetch the default model and add columns to a table of customer messages
	@$(BIN)/intramuros models pull
	@$(BIN)/intramuros sql --file examples/messages.sql

test: $(VENV)/.dev  ## tests on the scripted engine and SmolLM2 (98 MB)
	@$(BIN)/intramuros models pull smollm2-135m
	$(BIN)/pytest -m "not slow"

test-all: $(VENV)/.dev  ## all tests, also those that need Qwen 0.5B (491 MB) or long minutes
	@$(BIN)/intramuros models pull smollm2-135m qwen2.5-coder-0.5b
	$(BIN)/pytest

check: $(VENV)/.dev  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench  ## side by side with llama.cpp's server and the Hugging Face pipeline
	@$(BIN)/intramuros models pull qwen2.5-coder-0.5b
	$(BIN)/python bench/speed.py $(BENCH)

lock:  ## resolve the locked requirements again (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  pyproject.toml requirements/build.in -o requirements/base.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --extra dev pyproject.toml requirements/build.in -c requirements/base.txt -o requirements/dev.txt

clean:  ## remove the virtual environment
	rm -rf $(VENV)

$(VENV)/.base: requirements/base.txt pyproject.toml
	@echo "setting up $(VENV) (about a minute)" >&2
	@$(PYTHON) scripts/virtualenv.py $(VENV)
	@$(PIP) --require-hashes -r requirements/base.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.base
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

# torch has no hash here: the file that suits a machine (CPU, CUDA) differs from one to another
$(VENV)/.bench: requirements/bench.txt $(VENV)/.dev
	@$(PIP) -r requirements/bench.txt
	@touch $@
