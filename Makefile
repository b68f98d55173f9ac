# The front door. Needs Python 3.11 or newer and make; everything else goes into .venv.
#
#   make test PYTHON=python3.12                                         another Python
#   make book TORCH_INDEX=https://download.pytorch.org/whl/cpu          CPU-only torch, no CUDA download
#   make lint PY=python                                                 your own environment, nothing installed

PYTHON ?= python3
PROFILE ?= quick
WORKERS ?= 2
TORCH_INDEX ?=
PIP_ARGS ?=
ARGS ?=
LAB_ARGS ?=

ifdef PY
SETUP :=
BENCH_SETUP :=
BENCH_PY := $(PY)
else
override PY := .venv/bin/python
SETUP := setup
BENCH_SETUP := setup-bench
BENCH_PY := .venv-bench/bin/python
endif

# Tests and chapters share two cores; a library that starts a thread per core slows all of them.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help setup book test lint run lab bench-stage1 clean

help: ## this list
	@echo "make TARGET, where TARGET is one of"
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1@\2/p' $(MAKEFILE_LIST) | while IFS='@' read -r name text; do \
		printf '  %-12s %s\n' "$$name" "$$text"; done
	@echo "Variables: PYTHON, TORCH_INDEX, PIP_ARGS, PY (use that Python, install nothing), WORKERS, ARGS"

setup: ## create .venv and install into it, if it is not up to date
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" PIP_ARGS="$(PIP_ARGS)" sh .ci/setup.sh

book: $(SETUP) ## execute every chapter at the quick profile and render the pages
	@$(PY) book/side_by_side.py --workers $(WORKERS) --profile quick
	@$(PY) book/build.py

test: lint ## lint, types, tests, and every notebook at the smoke profile
	@echo "== tests"
	@$(ONE_THREAD) $(PY) -m pytest tests -n $(WORKERS) --dist loadfile $(ARGS)
	@echo "== notebooks at the smoke profile"
	@$(ONE_THREAD) $(PY) tests/notebooks.py --workers $(WORKERS)

lint: $(SETUP) ## ruff (notebooks too) and mypy
	@echo "== lint and types"
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

run: $(SETUP) ## chapters: make run CHAPTER="04_prior_hole 05_diffusion_prior" PROFILE=laptop ARGS="--resume -p seed 1"
	@if [ -z "$(CHAPTER)" ]; then echo "make run: name a chapter, one of:" >&2; \
		ls book/*.ipynb | sed 's,book/\(.*\)\.ipynb,  CHAPTER=\1,' >&2; exit 2; fi
	@$(PY) -m shala_lite run $(CHAPTER) --profile "$(PROFILE)" $(ARGS)

lab: $(SETUP) ## JupyterLab on the chapters, with live sliders
	@SHALA_LIVE=1 $(PY) -m jupyterlab book $(LAB_ARGS)

# The peer is no dependency: it has an environment of its own, and its packages come without theirs,
# because torchvision would bring another torch.
.PHONY: setup-bench
setup-bench:
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" PIP_ARGS="$(PIP_ARGS)" VENV=.venv-bench \
		EXTRAS=bench ALONE="multivae pythae torchvision" sh .ci/setup.sh

bench-stage1: $(BENCH_SETUP) ## stage 1 beside MultiVae's, in one run: make bench-stage1 ARGS="--seconds 240"
	@$(BENCH_PY) -m benchmarks.stage1 $(ARGS)

clean: ## remove built pages, scratch and caches (environments and runs/ stay)
	@rm -rf book/_build .scratch .mypy_cache .ruff_cache .pytest_cache build *.egg-info
	@find shala_lite tests book data_scripts benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	@find book -name .ipynb_checkpoints -prune -exec rm -rf {} + 2>/dev/null || true
