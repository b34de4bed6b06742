# `make help` lists the targets.
SHELL := /bin/bash
# A Python that all packages have wheels for; name another with make PYTHON=/path/to/python3.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
  $$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
# No usage reports, no look-ups outside: the project runs without a network once it is installed.
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
# Stages say `python`: the one of the virtual environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# What a command imports is compiled once and kept: anew, that takes each command up to eight seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install install-dev run table pruebas test test-all test-emulated unit check mutants coverage soak bench \
  scale picture mlflow lock sbom clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/installed .dvc/plots/page.html ## Make the virtual environment with what the pipeline needs

install-dev: install $(VENV)/installed-dev ## Add the packages of tests, checks, the demo page, ONNX, Dask and the Hub

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Every file of a lock is checked by its hash. uv takes a third of the time, but does not read the settings of pip:
# where it finds no packages, pip may.
LOCKED := --quiet --no-deps --require-hashes --requirement
packages = $(BIN)/uv pip install --python $(BIN)/python $(LOCKED) $(1) || $(BIN)/python -m pip install $(LOCKED) $(1)

$(VENV)/installed: requirements.lock requirements-torch.txt requirements-uv.lock pyproject.toml
	@case "$$PWD" in *[:{}]*) echo "error: no environment and no data in a folder with : { or } in its path:" \
	  "move the project" >&2; exit 1;; esac
	@'$(or $(PYTHON),false)' -c '$(SUPPORTED)' \
	  || { echo "error: Python 3.11, 3.12 or 3.13 is needed; name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "error: no virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PIP) --require-hashes --requirement requirements-uv.lock
	$(call packages,requirements.lock)
	$(PIP) --no-compile --requirement requirements-torch.txt
	$(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	$(call packages,requirements-dev.lock)
	@touch $@

# The page of `dvc plots` has its libraries inside.
PAGE := src/titles/experiments/plots_page.py $(addprefix src/titles/experiments/report/templates/,plots.html style.css)
.dvc/plots/page.html: $(VENV)/installed $(PAGE)
	@PYTHONPATH=src python -m titles.experiments.plots_page

run: install ## Run the experiment on the embedded sample and show it beside the committed one
	dvc pull --quiet --remote store data/raw/sample.csv.gz
	@if dvc status --quiet; then echo "Nothing has changed since the last run."; else dvc exp run; fi
	@# Later, the committed run itself is needed, to go back to and to compare with.
	@dvc fetch --quiet --remote store --all-branches 2>/dev/null \
	  || echo "Note: some files of the committed run are not in the remote: dvc fetch --all-branches says which."
	@$(MAKE) --no-print-directory table
	@echo
	@echo "Next, after \`source $(BIN)/activate\`:"
	@echo "  titles predict \"Funda Para Celular Samsung J7\"    ask the networks"
	@echo "  dvc exp run --name five -S cnn.epochs=5            an experiment; make table shows it beside this run"
	@echo "  titles demo                                        a page to try titles on"

table: install ## Compare experiments: scores on validation and test, and the parameters that differ
	@titles table

pruebas: install ## Run the course's experiments in DVC's queue, beside the course's figures
	dvc pull --quiet --remote store data/raw/sample.csv.gz
	titles pruebas

# The tests of a file share what is made for them; conftest.py says which files start first.
PYTEST := pytest -q --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: check ## Lint, types and all that can be tested in minutes
	$(PYTEST) -m 'not endures'

test-all: check ## Lint, types and every test but those of test-emulated: half an hour
	$(PYTEST) -m 'not emulated'

test-emulated: install-dev ## Do other processors, emulated by qemu, give the same bytes? An hour
	$(PYTEST) -m emulated

unit: install-dev ## Tests without pipelines and servers: a minute
	$(PYTEST) -m 'not pipeline and not endures'

check: install-dev ## Lint and types
	ruff format --check .
	ruff check .
	mypy
	hadolint Dockerfile .devcontainer/Dockerfile
	zizmor --quiet --offline --no-progress --persona=pedantic .github/workflows

mutants: install-dev ## Make deliberate faults in a copy, and see that tests notice: docs/mutants.md
	python tests/mutants.py --write docs/mutants.md

# The core: every branch of it is run, or a reason stands beside the line.
COMMA := ,
CORE := $(subst $() ,$(COMMA),$(patsubst %,*/titles/%.py,data/* prepare/split prepare/text \
  evaluation/metrics models/parts/calibration models/parts/inference \
  training/trainer training/objective training/optimisers training/checkpoints \
  listings/*))
coverage: install-dev ## Branches that the tests of `make test` run; fails if the core lacks one
	rm -rf .coverage && mkdir .coverage
	coverage run -m $(PYTEST) -m 'not endures'
	coverage combine --quiet
	coverage report
	coverage report --fail-under=100 --include='$(CORE)'

SOAK_HOURS := 0.5
soak: install-dev ## Run one experiment again and again beside a server: do bytes, memory and files stay the same?
	python benchmarks/soak.py --hours $(SOAK_HOURS)

BENCH_ROWS := 10000000
# A folder of CSV files with title,category: sets of your own to measure on.
BENCH_REAL := data/real

bench: install-dev ## Accuracy and speed beside all usual classifiers and the course's loop; a day
	python benchmarks/packages.py
	python benchmarks/speed.py
	python benchmarks/accuracy.py --real $(BENCH_REAL)
	python benchmarks/preparation.py --rows $(BENCH_ROWS)
	python benchmarks/scale.py --rows 2000000
	dvc pull --quiet --remote store
	python benchmarks/portable.py
	python benchmarks/exchange.py
	python benchmarks/latency.py
	python benchmarks/prediction.py

ROWS := 20000000
scale: install ## The whole pipeline on ROWS rows as wide as the challenge; hours, kept and resumed
	python benchmarks/packages.py fasttext
	python benchmarks/scale.py --rows $(ROWS) --into docs/scale_table.md

picture: install ## Draw the pictures of docs/ anew: curves of the last run, scores of docs/benchmark.md
	python benchmarks/chart.py

# The local store, whatever server is set.
mlflow: export MLFLOW_TRACKING_URI :=
mlflow: install ## Bring MLflow's local store up to date and look at its runs in a browser
	titles mlflow sync
	mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --workers 1

# UPGRADE=--upgrade takes the newest versions; without it, versions stay where pyproject.toml allows them.
LOCK = UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --universal --generate-hashes \
  --no-annotate --no-emit-package torch --constraint requirements-torch.txt $(UPGRADE)
lock: install-dev ## Resolve the locks from pyproject.toml: for Python 3.11 to 3.13 on Linux and macOS
	$(LOCK) --all-extras --output-file requirements-dev.lock pyproject.toml
	cp requirements-dev.lock requirements.lock
	$(LOCK) --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml
	echo uv | $(LOCK) --constraint requirements-dev.lock --output-file requirements-uv.lock -

sbom: install-dev ## List all installed packages in the format CycloneDX, in sbom.json
	cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.json $(BIN)/python

clean: ## Remove the virtual environment and caches; data and results stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .coverage build src/*.egg-info
