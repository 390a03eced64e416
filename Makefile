# kplab: every target prepares what it needs. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
# auto: torch of the default index (CUDA builds on Linux, which run without a GPU too). cpu, cu128, …: that build.
TORCH ?= auto
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(TORCH)

export UV_PYTHON_DOWNLOADS := never
# use the certificates of the system: many networks have their own certificate authority
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt),)
export UV_SYSTEM_CERTS ?= 1
endif
export NO_ALBUMENTATIONS_UPDATE := 1
# Python keeps what it compiles: without it, each of the many processes of the tests compiles all packages again
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(abspath $(BIN)):$(PATH)

# ---------------------------------------------------------------- set-up

.PHONY: help setup lock
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## install the locked environment into .venv (TORCH=cpu or cu128 for another build of torch)

.tools/bin/uv:
	$(PYTHON) -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(READY): requirements.lock pyproject.toml | $(filter .tools/bin/uv,$(UV))
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else f"kplab needs Python 3.11 to 3.13, but $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12 ...")'
	$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(VENV)
ifeq ($(TORCH),auto)
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
else
	# another build of torch has other hashes than the locked one; everything else stays pinned by hash
	$(BIN)/python .ci/without_torch.py requirements.lock > $(VENV)/requirements.txt
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r $(VENV)/requirements.txt
	$(UV) pip install --quiet --python $(BIN)/python --torch-backend=$(TORCH) $$($(BIN)/python .ci/without_torch.py --dropped requirements.lock)
endif
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	rm -f $(VENV)/.ready-*
	touch $@

lock: | $(filter .tools/bin/uv,$(UV)) ## resolve pyproject.toml into requirements.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --python-version 3.11 --all-extras pyproject.toml -o requirements.lock

# ---------------------------------------------------------------- tests and checks

NOTEBOOKS = $(wildcard notebooks/*.ipynb)
# processes that share the tests; each takes one core and about 2 GB
WORKERS ?= 2

.PHONY: style check test test-quick probe fmt
style: $(READY) ## style, notebooks without outputs, and layers
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(if $(NOTEBOOKS),$(BIN)/nbstripout --verify $(NOTEBOOKS))
	$(BIN)/lint-imports --no-logo

check: style ## style, and types
	$(BIN)/mypy

test: style ## check, every test, doctest and notebook; types beside them (KPLAB_DATA=folder adds real images; WORKERS=4)
	$(BIN)/pytest -p no:cacheprovider -n $(WORKERS) --no-loadscope-reorder --max-worker-restart=0 --nbmake tests src $(wildcard notebooks)

test-quick: $(READY) ## the tests without the slow ones and the notebooks, up to the first failure
	$(BIN)/pytest -x -m "not slow" tests src

# files of each target of the probe
N ?= 20000
probe: $(READY) ## try to break kplab, for about an hour: N mutated files a reader (N=20000), kills, full disks; docs/robustness.md
	$(BIN)/python -m tests.robustness.fuzz --count $(N)
	$(BIN)/python -m tests.robustness.probe_kills
	$(BIN)/python -m tests.robustness.probe_places
	$(BIN)/python -m tests.robustness.probe_reproduce

fmt: $(READY) ## format the code, strip the notebooks
	$(BIN)/ruff check --quiet --fix .
	$(BIN)/ruff format --quiet .
	$(if $(NOTEBOOKS),$(BIN)/nbstripout $(NOTEBOOKS))

# ---------------------------------------------------------------- work

# further arguments of a target's command
ARGS ?=

.PHONY: demo data dashboard annotate serve report bench benchmark peers runs reproduce notebooks clean
demo: $(READY) ## generate data, train two models, evaluate and compare them, in a few minutes
	$(BIN)/kplab demo

data: $(READY) ## fetch a dataset of the catalogue: DATASET=coco (no DATASET: list them); resumes
	$(BIN)/kplab data get $(if $(filter command line environment,$(origin DATASET)),dataset=$(DATASET)) $(ARGS)

runs: $(READY) ## list the runs
	$(BIN)/kplab runs

# options of the verb: make dashboard ARGS="port=8800 open=true"
dashboard: $(READY) ## show runs, comparisons and images in a browser; prints the address
	$(BIN)/kplab dashboard $(ARGS)

# new labels: make annotate ARGS="images=photos/ skeleton=hand21 out=labels.json" DATASET=
annotate: $(READY) ## label keypoints of DATASET=mouse in a browser; prints the address (ARGS="run=latest": with suggestions)
	$(BIN)/kplab annotate $(if $(DATASET),dataset=$(DATASET)) $(ARGS)

# options of the verb: make serve RUN=NAME ARGS="port=8800"
serve: $(READY) ## serve a run on this machine, POST images to /predict: RUN=NAME (default: the newest finished run)
	$(BIN)/kplab serve run=$(RUN) $(ARGS)

report: $(READY) ## write report.html, one file with a comparison of runs: RUNS=A,B (default: the newest two with equal scores)
	$(BIN)/kplab report $(if $(RUNS),runs=[$(RUNS)]) $(ARGS)

bench: $(READY) ## measure speed: all of bench/bench_*.py
	for file in $(wildcard bench/bench_*.py); do $(BIN)/python $$file; done

DATASET ?= synthetic_person
benchmark: $(READY) ## compare families on one dataset: DATASET=flies FAMILIES=openpose,yolo (default: all); resumes
	$(BIN)/kplab benchmark data=$(DATASET) $(if $(FAMILIES),families=[$(FAMILIES)])

DATASETS ?= lp_mirror_mouse
BUDGET ?= 5m
PEERS ?= kplab by_hand ultralytics sleap_nn dlc
peers: $(READY) | $(filter .tools/bin/uv,$(UV)) ## train kplab and other systems for the same time: DATASETS="mouse" BUDGET=5m PEERS="kplab dlc"
	$(BIN)/python bench/peers/run.py $(DATASETS) --budget $(BUDGET) --peers $(PEERS) --uv $(abspath $(UV)) --torch $(TORCH) $(ARGS)

RUN ?= latest
reproduce: $(READY) ## train a run again from its folder and compare both: RUN=NAME (default: the newest finished run)
	$(BIN)/kplab reproduce run=$(RUN)

# of JupyterLab, which refuses to start as root without being asked to
notebooks: $(READY) ## open the notebooks in JupyterLab: make notebooks ARGS="--no-browser --port 8899"
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS) notebooks

clean: ## remove caches and builds; the environment, runs and data stay
	rm -rf build dist outputs .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
