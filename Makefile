# Each target makes .venv as it needs it: `demo` without torch, everything else with the development tools.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml setup.py constraints.txt $(shell find firmware_bridge -name '*.[ch]' -not -name '_kz_*' -o -name 'build_*.py')
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-firmware lint bench docs prove mutate clean

demo: .venv/.demo
	$(BIN)/kizzasi-edge demo arm --seconds 30

test: .venv/.dev
	$(BIN)/pytest

# The cross-compiled firmware in Unicorn and in QEMU; Debian's tools are installed where that is allowed.
FIRMWARE_TOOLS := gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm gcc-riscv64-unknown-elf \
  picolibc-riscv64-unknown-elf \
  gcc-avr avr-libc arduino-builder arduino-core-avr libsimavr-dev
test-firmware: .venv/.dev
	{ command -v arm-none-eabi-gcc && command -v qemu-system-arm && command -v riscv64-unknown-elf-gcc && \
	  command -v arduino-builder; } >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -y -q --no-install-recommends $(FIRMWARE_TOOLS); } || \
	  echo "apt install $(FIRMWARE_TOOLS): without them these tests skip"
	$(BIN)/pytest -m "" -s -rs tests/firmware

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
	$(BIN)/python benchmarks/bench_wire.py
	$(BIN)/python benchmarks/bench_cdr.py
	$(BIN)/python benchmarks/bench_dds.py
	$(BIN)/python benchmarks/bench_zenoh.py
	$(BIN)/kizzasi-edge bench kizzasi_edge/demo/assets/arm.onnx

# 10^9 adversarial joint-steps of the guard, 10^8 with coupled rules, 10^6 projections and formulas, the node's sessions
# searched, fuzzed (clang, 10^8 executions each) and lived through on an emulated core (10^6): hours. One file at a time: pytest -m prove -s tests/prove/test_prove_guard.py
prove: .venv/.dev
	$(BIN)/pytest -m prove -s tests/prove ros2_pkg/test tests/ros2

# Do the tests notice when the guard is changed? Hours; tests/mutation/README.md.
mutate: .venv/.dev
	$(BIN)/pip install -q 'mutmut>=3.8'
	for c in kz_guard.c kz_rules.c; do $(BIN)/python tests/mutation/c_mutants.py $$c; done
	$(BIN)/python tests/mutation/python_mutants.py all

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
