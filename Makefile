# The study's commands; `make help` lists them. Every target sets up what it needs.
PYTHON ?= python3
VENV   ?= .venv
STUDY  ?= demo
# Extras to install: add submitit, ray, optuna, dashboard, browser, notebooks or docs if you need them.
EXTRAS ?= dev,onnx
# Address of a package index with CPU-only PyTorch wheels, for a small download without a GPU.
TORCH_INDEX ?=

# How many tests run at once; worksteal gives each process neighbouring tests, which share fixtures.
WORKERS ?= logical
PARALLEL = --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal

# The items of experiments/, one folder each.
ITEMS := $(patsubst experiments/%/,%,$(dir $(wildcard experiments/*/figure.py experiments/*/table.py)))
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
.DEFAULT_GOAL := help
.PHONY: help setup study report figures tables notebooks docs test test-all test-slow lint bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { sub("%", "<item>", $$1); printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  Items: $(sort $(ITEMS))"

setup: $(READY) ## create .venv and install the pinned dependencies

$(READY): pyproject.toml constraints.txt Makefile
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here: install Python 3.11 or newer, or run make PYTHON=<path> ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$$($(PYTHON) --version) is too old: robust_arch needs Python 3.11 or newer. Run make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot create virtual environments: install its venv module (Debian and Ubuntu: apt install python3-venv) and run the command again." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
ifeq ($(TORCH_INDEX),)
	@echo "Installing PyTorch's default build: on Linux several GB, with CUDA. Without a GPU, stop here and run the"
	@echo "command with TORCH_INDEX=<address of PyTorch's CPU wheels, from its 'Get started' page> for 200 MB."
else
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --index-url $(TORCH_INDEX) torch torchvision
endif
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

study: $(READY) ## run the demo study (digits, CPU, some minutes) and write its report
	$(BIN)/python -m robust_arch.train -m study=$(STUDY)
	@$(BIN)/robust-arch report $(STUDY)

report: $(READY) ## write the report of STUDY=<name>
	@$(BIN)/robust-arch report $(STUDY)

figures: $(READY) ## draw the figures of experiments/ from recorded results
	@$(BIN)/python -m experiments figures

tables: $(READY) ## write the tables of experiments/, as Markdown and LaTeX
	@$(BIN)/python -m experiments tables

fig-%: $(READY) ## draw one figure or table; STUDY=<name or path> draws your own study's, beside its results
	@$(BIN)/python -m experiments $* $(if $(findstring command,$(origin STUDY)),$(STUDY))

test: $(READY) ## run the tests, without the slow ones
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL)

test-all: $(READY) ## run all tests
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: $(READY) ## run only the slow tests
	$(BIN)/python -m pytest -m slow $(PARALLEL)

lint: $(READY) ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY) ## measure training speed and accuracy, evaluation, records, searches; CIFAR=<folder> adds CIFAR-10
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/accuracy.py $(if $(CIFAR),--cifar $(CIFAR))
	$(BIN)/python benchmarks/evaluation.py
	$(BIN)/python benchmarks/records.py
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/profile_step.py --record
	$(BIN)/python benchmarks/tables.py

notebooks: $(READY) ## execute the notebooks in place, with their outputs
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[notebooks]'
	$(BIN)/python notebooks/execute.py

docs: $(READY) ## build the documentation as a site, site/index.html
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build

clean: ## remove the environment and caches, but no results
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist site
