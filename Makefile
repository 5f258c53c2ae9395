# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Each makes the virtual environment when it is missing. PYTHON names the interpreter that makes it.

PYTHON ?= python3
# processes of the suite, one thread each
WORKERS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-slow coverage lint bench bench-peers docs cpp clean

demo: $(STAMP)
	$(BIN)/measurand demo

test: $(STAMP) lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-slow: $(STAMP)
	$(BIN)/python -m pytest --slow

# what the suite runs through, in per cent of the statements
coverage: $(STAMP)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --cov=measurand --cov-report=term:skip-covered

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/run.py

# other libraries, in an environment of their own: see benchmarks/peers.md
bench-peers:
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet torch==2.13.0
	.venv-peers/bin/python -m pip install --quiet -e . scikit-image numba PyWavelets requests natsort matplotlib
	.venv-peers/bin/python -m pip install --quiet --no-deps deepinv==0.5.0 sigpy==0.1.27 torchmetrics lightning-utilities
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE .venv-peers/bin/python benchmarks/peers.py

# against the LibTorch inside the installed torch; CXX names the compiler
cpp: $(STAMP)
	cmake -S cpp -B cpp/build -DCMAKE_PREFIX_PATH="$$($(BIN)/python -c 'import torch; print(torch.utils.cmake_prefix_path)')"
	cmake --build cpp/build

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -e ".[docs]"
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# torch by this exact pin first: a looser requirement may bring another, much larger build
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -e ".[demo,test,dev]"
	touch $(STAMP)

clean:
	rm -rf .venv .venv-peers cpp/build demo-output docs/_build .pytest_cache .mypy_cache .ruff_cache
