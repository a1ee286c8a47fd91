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

# It does nothing where the environment is that of requirements.lock and pyproject.toml, by their content.
.PHONY: venv
venv: ## build the environment
	@$(PYTHON) scripts/venv.py $(VENV)

.PHONY: repro
repro: venv ## run all of the pipeline that is out of date, and show what came out
	@rdmd check && python -m flows.server dvc repro && rdmd summary

# In the order of the folders, long files come first, so that no worker waits for one at the end.
.PHONY: test
test: venv ## run the tests (slow and GPU tests are left out)
	@python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

.PHONY: lint
lint: venv ## check style, format and types of the code
	@ruff check . && ruff format --check . && mypy

.PHONY: serve
serve: venv ## serve the champion on 127.0.0.1:5001
	@rdmd serve

.PHONY: demo
demo: venv ## try every generator of the front on your own image, on a page on 127.0.0.1
	@rdmd demo

.PHONY: ui
ui: venv ## start Prefect's and MLflow's pages on 127.0.0.1, with a form that starts runs
	@python -m flows.ui

.PHONY: results
results: venv ## measure what docs/results holds, and write its pages (takes hours, goes on where it stopped)
	@python -m studies all

.PHONY: bench
bench: venv ## measure what is fast on this machine, into benchmarks/results (most of an hour on two cores)
	@python -m benchmarks all

# Not in .venv: it needs no more than a GPU machine has (torch, accelerate, pydantic, safetensors, webdataset).
.PHONY: bench-gpu
bench-gpu: ## the same for what runs on a bare GPU machine, with the Python at hand
	@$(PYTHON) -m benchmarks gpu

# A broken link and a missing docstring are errors.
.PHONY: docs
docs: venv ## build the documentation into site/
	@ruff check --quiet rdmd flows && NO_MKDOCS_2_WARNING=1 mkdocs build --strict && echo "open site/index.html"

.PHONY: clean
clean: ## remove what the pipeline made (not your data, not the environment); asks first, FORCE=1 does not
	@if [ -d mlflow/store ] && [ -z "$(FORCE)" ]; then \
	  if [ ! -t 0 ]; then \
	    echo "rdmd: mlflow/store holds registered models and promotions; use make clean FORCE=1 to remove them." >&2; exit 2; \
	  fi; \
	  printf 'mlflow/store holds registered models and promotions, which only you can repeat. Remove it too? [y/N] '; \
	  read -r answer; \
	  case "$$answer" in [yY]*) ;; *) echo "rdmd: nothing was removed." >&2; exit 2;; esac; \
	fi
	rm -rf data/shards/* models runs .cache reports/data_docs mlflow/store .prefect site

.PHONY: lock
lock: venv ## pin the newest packages that pyproject.toml allows
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header --no-strip-extras \
	  --python-version 3.11 --all-extras --upgrade pyproject.toml --output-file requirements.lock
	@sed -i '1i # Pins and hashes of every package, made from pyproject.toml by `make lock`.' requirements.lock
