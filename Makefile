# Every command prepares the machine first (.ci/prepare): nothing but git and make has to be there.

# Silent recipes: what runs says so itself.
.SILENT:
.PHONY: help demo test bench bench-peers fuzz sim-full soak-full arm64-full sanitize lint fmt unit cext lab
.PHONY: prepare prepare-test prepare-bench prepare-peers prepare-fuzz prepare-arm64 clean
.NOTPARALLEL:

PYTHON := .ci/as-owner .venv/bin/python
PYTHON_IN_COPY := .ci/as-owner ../../.venv/bin/python
LAB := .venv/bin/python tests/lab/enter.py
FUZZ_SECONDS ?= 30
MINUTES ?= 30
ROUNDS ?= 5
OVERLAYS ?=

help:
	echo 'make demo    real daemons in network namespaces: links come, carry, move, heal and go'
	echo 'make test    what a push is judged by: those of lint, unit, cext, lab, relay that the change needs; says which, and why'
	echo 'make bench   hot paths and whole-program figures, in build/bench.json and as a table'
	echo 'make bench-peers   Conflux beside other overlays, ROUNDS=5 times; in build/bench-peers.json and .svg'
	echo 'make fuzz    every parser of peer bytes, FUZZ_SECONDS=30 each, guided by coverage'
	echo 'make sim-full   a hundred random lives of six nodes, where make test has six'
	echo 'make soak-full   MINUTES=30 at full rate, links coming and going; nothing may grow; in build/soak.json and .svg'
	echo 'make arm64-full   the extensions built for arm64, and the tests of what is compiled, emulated'
	echo 'make sanitize   the compiled datapath and its tests, with address and undefined-behaviour sanitizers'
	echo 'make lint    ruff, mypy, stubtest'
	echo 'make lab     the tests that run real daemons in network namespaces'
	echo 'make fmt     let ruff format and mend'
	echo 'make clean   remove what was built here, .venv too'

demo: prepare
	$(LAB) tests/lab/demo.py

test: prepare-test
	.ci/test

bench: prepare-bench
	.ci/as-owner mkdir -p build
	echo 'hot paths'
	$(PYTHON) -m pytest -q bench --benchmark-only --benchmark-quiet --benchmark-json=build/bench.json
	$(LAB) bench/whole_program.py
	$(PYTHON) bench/report.py

# OVERLAYS: a directory with a newer wireguard-go than the distribution's.
bench-peers: prepare-peers
	$(LAB) bench/peers --rounds $(ROUNDS) $(if $(OVERLAYS),--overlays $(abspath $(OVERLAYS)))

fuzz: prepare-fuzz
	$(PYTHON) tests/fuzz/run.py --seconds $(FUZZ_SECONDS)

sim-full: prepare-test
	CONFLUX_SIM_SEEDS=100 $(PYTHON) -m pytest -q tests/sim

soak-full: prepare-test
	$(LAB) tests/lab/soak.py --minutes $(MINUTES)

arm64-full: prepare-arm64
	.ci/as-owner .ci/arm64

# In a copy: the extensions in place stay as they are.  Python's own leaks are not looked for.
sanitize: prepare-test
	rm -rf build/sanitize
	.ci/as-owner mkdir -p build/sanitize
	.ci/as-owner cp -r cext conflux tests docs setup.py pyproject.toml README.md LICENSE build/sanitize
	find build/sanitize -name '*.so' -delete
	cd build/sanitize && CONFLUX_SANITIZE=address,undefined ../../$(PYTHON_IN_COPY) setup.py -q build_ext --inplace
	cd build/sanitize && LD_PRELOAD=$$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 \
	    ../../$(PYTHON_IN_COPY) -m pytest -q -s -p no:cacheprovider tests/cext tests/*/test_native_*.py

lint: prepare-test lint-lane
unit: prepare-test unit-lane
cext: prepare-test cext-lane
lab: prepare-test lab-lane relay-lane

.PHONY: lint-lane unit-lane cext-lane lab-lane relay-lane
lint-lane:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m mypy.stubtest conflux.anchor._codec conflux.datapath._engine

unit-lane:
	$(PYTHON) -m pytest -q tests/unit tests/property tests/vectors tests/sim

cext-lane:
	$(PYTHON) -m pytest -q tests/cext

lab-lane:
	$(LAB) -m pytest -q -p no:cacheprovider tests/lab --ignore-glob='*/test_lab_relay*'

relay-lane:
	$(LAB) -m pytest -q -p no:cacheprovider tests/lab/test_lab_relay*

fmt: prepare-test
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

prepare:
	.ci/prepare

prepare-test:
	.ci/prepare test

prepare-bench:
	.ci/prepare bench

prepare-peers:
	.ci/prepare peers

prepare-fuzz:
	.ci/prepare fuzz

prepare-arm64:
	.ci/prepare test arm64

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f cext/*.html $(patsubst %.pyx,%.c,$(wildcard cext/*.pyx))
	find conflux tests bench -name '*.so' -delete -o -name __pycache__ -prune -exec rm -rf {} +
