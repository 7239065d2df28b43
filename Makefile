# Each target makes .venv as it needs it: `demo` without torch, everything else with the development tools.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml setup.py constraints.txt $(shell find firmware_bridge -name '*.[ch]' -not -name '_kz_*' -o -name 'build_*.py')
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint bench docs prove clean

demo: .venv/.demo
	$(BIN)/kizzasi-edge demo arm --seconds 30

test: .venv/.dev
	$(BIN)/pytest

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/.dev
	-$(BIN)/pip install -q kizzasi==0.2.3   # the peer; the comparison goes on without it
	$(BIN)/python benchmarks/bench_step_graph.py
	$(BIN)/python benchmarks/bench_training.py
	-$(BIN)/pip install -q osqp proxsuite   # peers of the projection
	$(BIN)/python benchmarks/bench_guardrails.py
	$(BIN)/kizzasi-edge bench kizzasi_edge/demo/assets/arm.onnx

# 10^9 adversarial joint-steps of the guard, 10^8 with coupled rules, 10^6 projections and formulas; many minutes.
prove: .venv/.dev
	$(BIN)/pytest -m prove -s tests/prove

# The documents' commands and tables, checked against the code.
docs: .venv/.dev
	$(BIN)/pytest tests/docs

clean:
	rm -rf .venv build runs *.egg-info firmware_bridge/kizzasi_bridge/bin
	find firmware_bridge -name '*.so' -delete

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, found " + sys.version)'
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python $(SOURCES)
	$(BIN)/pip install -q -c constraints.txt -e '.[sim]'
	touch $@

.venv/.dev: .venv/bin/python $(SOURCES)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@ .venv/.demo
