# Everything happens in .venv beside this file; `make demo` and `make test` make it when it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# faiss-cpu and faiss-gpu own the same module: the machine decides which one is installed.
ENGINE := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)

.PHONY: install demo test check bench clean

install: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[$(ENGINE),dev]'
	touch $(STAMP)

demo: install
	$(BIN)/crossmodal demo

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/draw_tree.py --check

test: check
	$(BIN)/python -m pytest

bench: install
	$(BIN)/python scripts/bench_embed.py
	$(BIN)/python scripts/bench_recall.py
	$(BIN)/python scripts/bench_search.py
	$(BIN)/python scripts/bench_collection.py
	$(BIN)/python scripts/bench_encoders.py
	$(BIN)/python scripts/bench_vectors.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
