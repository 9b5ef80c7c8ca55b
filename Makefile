# Every target makes its own environment first: `make demo` and `make test` need nothing but a stock Python >= 3.11.
#   make demo PYTHON=python3.12      another interpreter (the environment is rebuilt when its version differs)
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
CONSTRAINTS ?= constraints/$(if $(filter 3.11,$(VERSION)),py311,py312).txt
INSTALLED := $(VENV)/.installed-$(VERSION)
DEMO := runs/digits_admm

.PHONY: help install demo test slow smoke lint format docs wheel test-newest bench aot-tpu aot-cuda clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    train, prune, quantize and encode a LeNet-5 on real handwritten digits; prints where the report is"
	@echo "make test    all tests and doctests, except the slow ones"
	@echo "make slow    the slow tests"
	@echo "make lint    ruff (rules and format) and mypy"
	@echo "make format  rewrite the sources in the project's format"
	@echo "make docs    the documentation site, in build/site"
	@echo "make wheel   build the wheel, and test it in an environment of its own outside of the sources"
	@echo "make test-newest  all tests on both supported pairs: OLDEST=python3.11 and NEWEST=python3.12"
	@echo "make bench   speed ratios on this machine"
	@echo "make aot-tpu compile every TPU kernel and training step for real TPUs, on any x86 Linux (downloads libtpu, about 150 MB)"
	@echo "make aot-cuda compile every Hopper kernel for sm_90a, on any x86 Linux (downloads CUDA, about 4 GB)"
	@echo "make clean   remove the environment and all caches (runs/ and results/ stay)"

install: $(INSTALLED)

# The stamp is made last, so an interrupted installation starts again.
$(INSTALLED): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is absent or older than 3.11: name another one, as in make demo PYTHON=python3.12"; exit 1; }
	@[ "$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$(VERSION)" ] || \
	  $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV) for Python $(VERSION), once: about a minute ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --constraint $(CONSTRAINTS) pip
	@$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --build-constraint $(CONSTRAINTS) \
	  --editable ".[experiments,test,lint,ray,optuna]"
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python -m experiments.compress --config=configs/digits_admm.py --workdir=$(DEMO)

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --durations=10

# pytest exits with 5 when no test carries the mark, which is fine here.
slow: $(INSTALLED)
	$(BIN)/python -m pytest -q -m slow || [ $$? -eq 5 ]

# For a second interpreter: the examples of every public symbol, and the project's own rules.
smoke: $(INSTALLED)
	$(BIN)/python -m pytest -q -n $(WORKERS) compressjax pallas_kernels tests/test_project.py

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# What builds the site is installed when it is first asked for.
DOCS := $(VENV)/.docs-$(VERSION)

$(DOCS): $(INSTALLED)
	@$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[docs]"
	@touch $@

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "Documentation: build/site/index.html"

# The wheel, as a stranger gets it: installed without the sources at hand, and tested in a folder of its own.
wheel: $(INSTALLED)
	@rm -rf build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --constraint $(CONSTRAINTS) --build-constraint $(CONSTRAINTS) --wheel-dir build/wheel .
	@outside=$$(mktemp -d) && trap 'rm -rf "$$outside"' EXIT && \
	  $(PYTHON) -m venv "$$outside/venv" && \
	  "$$outside/venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) build/wheel/*.whl && \
	  cp tests/wheel_check.py docs/getting_started.md "$$outside" && \
	  cd "$$outside" && PYTHONPATH= JAX_PLATFORMS=cpu venv/bin/python wheel_check.py

OLDEST ?= python3.11
NEWEST ?= python3.12

test-newest:
	$(MAKE) test PYTHON=$(OLDEST) VENV=build/oldest-venv
	$(MAKE) test PYTHON=$(NEWEST) VENV=build/newest-venv

bench: $(INSTALLED)
	$(BIN)/python -m experiments.bench

# The TPU compiler needs no TPU; its environment is its own, because JAX would look for one in every other run.
TPU_VENV ?= build/tpu-venv

$(TPU_VENV)/.installed-$(VERSION): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -m venv --clear $(TPU_VENV)
	@$(TPU_VENV)/bin/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[tpu,experiments]"
	@touch $@

aot-tpu: $(TPU_VENV)/.installed-$(VERSION)
	JAX_PLATFORMS=cpu $(TPU_VENV)/bin/python -m experiments.aot_tpu
	JAX_PLATFORMS=cpu $(TPU_VENV)/bin/python -m experiments.aot_steps

# Likewise the CUDA compilers.
CUDA_VENV ?= build/cuda-venv

$(CUDA_VENV)/.installed-$(VERSION): pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -m venv --clear $(CUDA_VENV)
	@$(CUDA_VENV)/bin/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable ".[cuda]"
	@touch $@

aot-cuda: $(CUDA_VENV)/.installed-$(VERSION)
	JAX_PLATFORMS=cpu $(CUDA_VENV)/bin/python -m experiments.aot_cuda

clean:
	rm -rf $(VENV) build dist .jax_cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
