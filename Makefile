# `make help` lists the commands. Everything runs in .venv, built from requirements.lock.

PYTHON ?= python3
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := true

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the commands
	@grep -hE '^[a-z.-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

# uv comes first, by its own pin and hashes, because it installs the rest in a fraction of pip's time.
$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "rdmd: $(PYTHON) is not Python 3.11 to 3.13; name one that is: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	awk '/^uv==/{on=1} on{print} on && !/\\$$/{exit}' requirements.lock > $(VENV)/uv.lock
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(VENV)/bin/python --require-hashes -r requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: venv
venv: $(VENV)/installed ## build the environment

.PHONY: repro
repro: $(VENV)/installed ## run all of the pipeline that is out of date, and show what came out
	@rdmd check && python -m flows.server dvc repro && rdmd summary

.PHONY: test
test: $(VENV)/installed ## run the tests (slow and GPU tests are left out)
	@python -m pytest -m "not slow and not gpu"

.PHONY: lint
lint: $(VENV)/installed ## check the style of the code
	@ruff check .

.PHONY: serve
serve: $(VENV)/installed ## serve the champion on 127.0.0.1:5001
	@rdmd serve

.PHONY: demo
demo: $(VENV)/installed ## try every generator of the front on your own picture, on a page on 127.0.0.1
	@rdmd demo

.PHONY: ui
ui: $(VENV)/installed ## start Prefect's and MLflow's pages on 127.0.0.1, with a form that starts runs
	@python -m flows.ui

.PHONY: results
results: $(VENV)/installed ## measure what docs/results holds, and write its pages (takes hours, goes on where it stopped)
	@python -m studies all

.PHONY: bench
bench: $(VENV)/installed ## measure what is fast on this machine, into benchmarks/results (most of an hour on two cores)
	@python -m benchmarks all

# Not in .venv: it needs no more than a GPU machine has (torch, accelerate, pydantic, safetensors, webdataset).
.PHONY: bench-gpu
bench-gpu: ## the same for what runs on a bare GPU machine, with the Python at hand
	@$(PYTHON) -m benchmarks gpu

.PHONY: clean
clean: ## remove what the pipeline made (not your data, not the environment)
	rm -rf data/shards/* models runs .cache reports/data_docs mlflow/store .prefect

.PHONY: lock
lock: $(VENV)/installed ## pin the newest packages that pyproject.toml allows
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --no-strip-extras \
	  --python-version 3.11 --extra dev --extra onnx --extra ray --upgrade pyproject.toml --output-file requirements.lock
	@sed -i '1i # Pins and hashes of every package, made from pyproject.toml by `make lock`.' requirements.lock
