# Every command prepares what it needs first (.ci/prepare): nothing but git and make has to be there.

# Silent recipes: what runs says so itself.
.SILENT:
.NOTPARALLEL:

PYTHON := .ci/as-owner .venv/bin/python
PYTHON_IN_COPY := .ci/as-owner ../../.venv/bin/python
LAB := .venv/bin/python tests/lab/rig/enter.py
PYTEST := $(PYTHON) -m pytest -q
AGAIN := $(PYTHON) .ci/again
LAB_PYTEST := $(LAB) -m pytest -q -p no:cacheprovider
LABS := .venv/bin/python .ci/labs
UNIT_TESTS := tests/unit tests/loopback --ignore=tests/loopback/control tests/property tests/vectors tests/sim
RELAY_LABS := $(wildcard tests/lab/test_lab_relay*.py)

# T: one file or folder of tests, or one test (FILE::NAME), for unit, cext and lab.
T ?=
FUZZ_SECONDS ?= 30
MINUTES ?= 30
ROUNDS ?= 5
OVERLAYS ?=
BASE ?=
VECTORS ?=
WHAT ?= tcp
export SUITE ?=
export ARCH ?=
BOARD ?=
export PREFIX ?= /usr/local
export DESTDIR ?=

define HELP
At every save
  make quick          ruff and the tests that need no socket, thread or process: 30 s
  make fmt            let ruff format and mend
  make unit T=PATH    one file or folder of tests, or one test; without T the whole lane
  make cext T=PATH    the same, of the C parts alone
  make lab T=PATH     the same, of real daemons in network namespaces
  make lint           ruff, mypy, stubtest
  make test-first-hour    the package built, and used as a person does on two fresh Debians: as root, under 10 min
  make test-image     a card's image built, and booted by boards in QEMU: as root (T=PATH: one file)
  make test-control   the control channel's contract, and its labs with a real broker (T=PATH: one lab)

Before a push
  make test           those of lint, unit, cext and the lanes of labs that the change needs; says which, why, how long

At night
  make nightly        every lane, and the seven below; one line each, and what they said in build/nightly
  make sim-full       two hundred random lives of six nodes, where make test has nine
  make fuzz           every parser of peer bytes, FUZZ_SECONDS=30 each, guided by coverage
  make soak-full      MINUTES=30 at full rate, links coming and going; nothing may grow; in build/soak.json and .svg
  make control-full   a thousand nodes on a broker of three servers, and servers in trouble for minutes
  make test-image-full    with a card's power cut 20 times, wrong cards and disks, relays, images of other boards: hours
  make sanitize       the compiled datapath and its tests, with address and undefined-behaviour sanitizers
  make arm64-full     the extensions built for arm64, and the tests of what is compiled, emulated
  make vectors        Wycheproof's and CCTV's test vectors, all of VECTORS=DIR (tests/vectors/published has a part)
  make mutants        each line that a claim rests on broken in turn: a test has to fail; N=NAME for one

To look at
  make demo           real daemons in network namespaces: links come, carry, move, heal and go
  make bench          hot paths and whole-program figures, in build/bench.json and as a table
  make bench-parts    the parts in C, each alone
  make compare        this tree beside BASE=COMMIT, ROUNDS=5 times in turn: WHAT=tcp (one flow) or parts (hot paths)
  make rivals         the newest of the other overlays, built in build/rivals for bench-peers
  make cost           what links and boards at rest cost in bytes, message by message, in build/cost.json: 12 min
  make bench-peers    Conflux beside other overlays, ROUNDS=5 times; in build/bench-peers.json and .svg
  make coverage       which lines the unit and cext lanes run, of Python and of C, least first: 10 min

To install
  make deb            a Debian package in build/package: SUITE=bookworm|trixie ARCH=amd64|arm64, else this machine's
  make deb-full       packages of both suites under lintian, piuparts, and tests in fresh Debians, with sudo: 10 min
  make repo           a signed apt repository in build/repo, of the packages in build/package: KEY=NAME URL=ADDRESS
  make wheels         wheels of Python 3.11 and 3.13, for x86-64 and arm64, in build/wheels
  make oci            a container image for amd64 and arm64, in build/oci; two containers of it are tried
  make image          BOARD=qemu-virt|rpi3|zero2w|rpi4|rpi5|generic-uefi: a card's image and its update bundle, in
                      build/image, with sudo: 20 min the first time, then under 4 (KEYS=DIR: whose bundles it takes)
  make install        this clone's program, unit and manual in PREFIX=/usr/local (DESTDIR=), with sudo
  make uninstall      take that away again; configuration and keys stay

To look after
  make map            the rooms of the package and their imports, in docs/pictures/map.svg
  make pictures       the page as docs/how-to/watch-your-network.md shows it, by a headless Chromium
  make bump           the newest packages that pyproject.toml allows, in constraints.txt
  make clean          remove what was built here, .venv too
endef

.PHONY: help
help:
	$(info $(HELP)):

# --- at every save ---

.PHONY: quick fmt unit cext lab lint
# Half of the tests run beside the others: one process takes twice as long.  Bytecode is kept, whatever the environment
# says: pytest rewrites every test that it reads.
QUICK := PYTHONDONTWRITEBYTECODE= $(PYTEST) -m 'not slow' --hypothesis-profile=quick
quick: prepare-lint
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	beside=$$(mktemp); $(QUICK) tests/unit/[d-z]* >$$beside 2>&1 & \
	$(QUICK) tests/unit/[a-c]* tests/vectors; status=$$?; wait $$! || status=1; \
	cat $$beside; rm $$beside; exit $$status

fmt: prepare-lint
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

lint: prepare-lint lint-lane
unit: prepare-unit unit-lane
cext: prepare-cext cext-lane
lab: prepare-lab lab-lane $(if $(T),,relay-lane)

# --- before a push ---

# .ci/test prepares what the lanes need that it chooses.
.PHONY: test test-control test-first-hour
test:
	.ci/test

test-control: prepare-control control-lane
test-first-hour: prepare-first-hour first-hour-lane

.PHONY: lint-lane unit-lane cext-lane lab-lane relay-lane demo-lane control-lane first-hour-lane
lint-lane:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	$(PYTHON) -m mypy.stubtest conflux.anchor._codec conflux.datapath.native._engine

unit-lane:
	$(if $(T),$(PYTEST) $(T),$(AGAIN) unit $(UNIT_TESTS))

cext-lane:
	$(if $(T),$(PYTEST) $(T),$(AGAIN) cext tests/cext)

lab-lane:
	$(if $(T),$(LAB_PYTEST) $(T),$(LABS) $(filter-out $(RELAY_LABS),$(wildcard tests/lab/test_*.py)))

relay-lane:
	$(LABS) $(RELAY_LABS)

# Every act, measured once and shortly: a demo that no lane plays breaks unseen.
demo-lane:
	$(LAB) tests/lab/demo.py --short

control-lane:
	$(AGAIN) control tests/loopback/control
	$(if $(T),$(LAB_PYTEST) $(T),$(LABS) tests/lab/control)

# Two packages of the same code, of which the second is the later one; and a fresh Debian, kept in build/boards.
first-hour-lane:
	WHEEL=$$(.ci/as-owner packaging/wheel) && export WHEEL && \
	    .ci/as-owner packaging/deb && REVISION=2 .ci/as-owner packaging/deb
	PYTHONPATH=tests:tests/lab $(PYTHON) -m rig.board
	$(LABS) tests/lab/packages

# What is flashed, in QEMU: one run, as its boards are shared by the files.
.PHONY: test-image image-lane
test-image: prepare-image image-lane
image-lane:
	images/build qemu-virt
	$(LAB_PYTEST) $(or $(T),tests/image)

# --- at night ---

# The tests of the lane, and those that take an hour.
.PHONY: test-image-full
test-image-full: prepare-image
	for board in qemu-virt generic-uefi rpi3; do images/build $$board || exit; done
	$(LAB_PYTEST) tests/image $(wildcard tests/image/long_*.py)

.PHONY: nightly sim-full fuzz soak-full control-full sanitize arm64-full vectors mutants
nightly:
	.ci/nightly

sim-full: prepare-unit
	from=$$(date +%s) && echo "lives of the seeds from $$from on; CONFLUX_SIM_SEED=N repeats one" && \
	    CONFLUX_SIM_FROM=$$from CONFLUX_SIM_SEEDS=100 $(PYTEST) tests/sim

fuzz: prepare-fuzz
	$(PYTHON) tests/fuzz/run.py --seconds $(FUZZ_SECONDS)

soak-full: prepare-lab
	$(LAB) tests/lab/soak.py --minutes $(MINUTES)

control-full: prepare-control
	$(LAB_PYTEST) tests/lab/control/long_broker.py
	$(LAB) tests/lab/scale.py

# In a copy: the extensions in place stay as they are.  Python's own leaks are not looked for.
sanitize: prepare-cext
	rm -rf build/sanitize
	.ci/as-owner mkdir -p build/sanitize
	.ci/as-owner cp -r cext conflux tests docs setup.py pyproject.toml README.md LICENSE build/sanitize
	find build/sanitize -name '*.so' -delete
	cd build/sanitize && CONFLUX_SANITIZE=address,undefined ../../$(PYTHON_IN_COPY) setup.py -q build_ext --inplace
	cd build/sanitize && LD_PRELOAD=$$(gcc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 \
	    ../../$(PYTHON_IN_COPY) -m pytest -q -s -p no:cacheprovider tests/cext tests/loopback/native

arm64-full: prepare-arm64
	.ci/as-owner .ci/arm64

vectors: prepare-unit
	VECTORS=$(abspath $(or $(VECTORS),tests/vectors/published)) $(PYTEST) tests/vectors/test_published_vectors.py

mutants: prepare-unit
	$(PYTHON) tests/mutants/run.py $(N)

# --- to look at ---

.PHONY: demo bench bench-parts compare cost rivals bench-peers coverage
demo: prepare-demo
	$(LAB) tests/lab/demo.py

bench: prepare-bench
	.ci/as-owner mkdir -p build
	echo 'hot paths'
	$(PYTEST) bench/parts --benchmark-only --benchmark-quiet --benchmark-json=build/bench.json
	$(LAB) bench/whole_program.py
	$(PYTHON) bench/report.py

bench-parts: prepare-bench
	$(PYTHON) bench/parts/datapath_tables.py
	$(PYTHON) bench/parts/dtls_records.py
	$(PYTHON) bench/parts/sctp_pair.py

compare: prepare-bench
	$(PYTHON) bench/compare.py $(or $(BASE),HEAD) --what $(WHAT) --rounds $(ROUNDS)

# BOARDS="2 10": how many are at rest, in turn.
BOARDS ?= 2 10
cost: prepare-control
	$(LAB) tests/lab/cost.py --boards $(BOARDS)
	$(PYTHON) docs/pictures/cost.py

# The newest rivals that ordinary clients can build, in build/rivals; what cannot be had is named.
rivals:
	PYTHONPATH=bench .ci/as-owner python3 -m overlays.rivals

# OVERLAYS: a directory with other rivals than the distribution's and those of `make rivals`.
bench-peers: prepare-peers
	$(LAB) -m overlays --rounds $(ROUNDS) $(if $(OVERLAYS),--overlays $(abspath $(OVERLAYS)))

coverage: prepare-unit prepare-cext
	$(PYTHON) .ci/coverage

# --- to install ---

# Another architecture than this machine's takes a cross compiler.
.PHONY: deb deb-full
deb: prepare-deb $(if $(filter-out $(shell dpkg --print-architecture 2>/dev/null),$(ARCH)),prepare-cross)
	.ci/as-owner packaging/deb

deb-full: prepare-deb prepare-packages
	packaging/full

.PHONY: image
image: prepare-image
	images/build $(BOARD)

.PHONY: install uninstall
install: prepare-install
	packaging/install

uninstall:
	packaging/install --remove

.PHONY: repo wheels oci
export KEY ?=
export URL ?=
repo: prepare-repo
	.ci/as-owner packaging/repo

wheels: prepare-wheels
	.ci/as-owner packaging/manylinux
	$(PYTEST) tests/packages/test_wheels.py

oci: prepare-oci
	.ci/as-owner packaging/image
	$(LABS) tests/lab/container

# --- to look after ---

.PHONY: map pictures bump clean
map: prepare-lint
	$(PYTHON) docs/pictures/map.py

pictures: prepare-lab
	PYTHONPATH=tests:tests/lab $(PYTHON) docs/pictures/page.py
	PYTHONPATH=tests $(PYTHON) docs/pictures/card.py

bump: prepare-lint
	$(PYTHON) .ci/bump

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f cext/*/*.html $(patsubst %.pyx,%.c,$(wildcard cext/*/*.pyx))
	find conflux tests bench -name '*.so' -delete -o -name __pycache__ -prune -exec rm -rf {} +

# prepare-lab: what .ci/prepare lab does.
prepare-%:
	.ci/prepare $*
