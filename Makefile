# What one does with Kilonova, by hand and in the check: the same commands.
# `make` alone lists them. Everything may be repeated: what is done already is not done again.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
VENV := .venv
CLIENTS := .venv-clients
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# To be set on the command line:
STATE ?= var
LISTEN ?= 127.0.0.1:8774
ONCE ?=
T ?=
PACKAGES ?= install

# Guests, bridges and rules need root; sudo asks for the password where it has to.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help
help: ## list these commands
	@echo 'make run                 a running cloud with a first server in it, from nothing; Ctrl-C stops it'
	@echo 'make run ONCE=1          the same, then remove everything that it made; for trying and for checks'
	@echo 'make test                all tests (root, 2 processors: some 30 minutes); T=tests/unit for some of them'
	@echo 'make soak                the simulator, for long: 1,300 small and 200 large clouds in which all goes wrong, all breakages;'
	@echo '                         fails unless services died in the middle of something 10,000 times at least; its parts:'
	@echo '                         soak-breakages, soak-small, soak-fine, soak-large, soak-sums'
	@echo 'make setup               the Python environment .venv, with the kilonova command in it'
	@echo 'make packages            the Debian packages that are missing; says which, and what for'
	@echo 'make guest-image         the small guest image in build/guest'
	@echo 'make lint                format, lint, types, layers, and whether the generated documents are fresh'
	@echo 'make format              bring the code into form'
	@echo 'make bench               measure start, API, boots; prints tables, writes JSON to build/bench'
	@echo 'make docs                generate docs/configuration.md from the options in the code'
	@echo 'make lock                compute the locked versions in requirements/ anew'
	@echo 'make clean               remove the environments and all that was built; a STATE directory stays'
	@echo
	@echo 'Variables: STATE=$(STATE) (where the cloud lives), LISTEN=$(LISTEN) (its API), ONCE=1, T=TESTS,'
	@echo 'PYTHON=$(PYTHON), PACKAGES=skip (do not look for Debian packages), SEEDS=$(SEEDS), SMALL_SEEDS=$(SMALL_SEEDS), FINE_SEEDS=$(FINE_SEEDS), JOBS=$(JOBS) (of soak).'

# --- What must be there ----------------------------------------------------------------------------------

.PHONY: packages test-packages
packages:
ifneq ($(PACKAGES),skip)
	@$(PYTHON) scripts/packages.py build run image
endif

test-packages:
ifneq ($(PACKAGES),skip)
	@$(PYTHON) scripts/packages.py
endif

# A stamp lies inside the environment it speaks of, so that it goes with it.
$(VENV)/ready: requirements/dev.txt pyproject.toml scripts/make-venv
	@scripts/make-venv $(PYTHON) $(VENV) requirements/dev.txt
	@scripts/install-libvirt-python $(BIN)/python
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Ready: $(BIN)/kilonova"

$(CLIENTS)/ready: requirements/clients.txt scripts/make-venv
	@scripts/make-venv $(PYTHON) $(CLIENTS) requirements/clients.txt
	@touch $@

.PHONY: setup
setup: packages
	@$(MAKE) --silent $(VENV)/ready

.PHONY: clients
clients: packages
	@$(MAKE) --silent $(CLIENTS)/ready

.PHONY: guest-image
guest-image: packages
	@$(PYTHON) guest/build.py

# --- Running it ------------------------------------------------------------------------------------------

.PHONY: run
run: setup guest-image
	@$(SUDO) $(BIN)/kilonova first-run --state '$(STATE)' --listen '$(LISTEN)' \
		--image build/guest/kilonova-guest.qcow2 $(if $(filter-out 0 no,$(ONCE)),--once)

.PHONY: bench
bench: test-packages setup
	@mkdir -p build/bench
	@$(BIN)/python bench/cloud.py --json build/bench/cloud.json
	@$(BIN)/python bench/rpc.py --json build/bench/rpc.json
	@$(BIN)/kilonova bench scheduler --json build/bench/scheduler.json
	@$(BIN)/python bench/claims.py --json build/bench/claims.json
	@$(BIN)/python bench/chaos.py --json build/bench/chaos.json
	@$(BIN)/python bench/services.py --json build/bench/services.json

# --- Checking it -----------------------------------------------------------------------------------------

PYTEST := $(BIN)/python -m pytest

.PHONY: test
ifneq ($(T),)
test: setup
	@$(PYTEST) $(T)
else
test: test-packages setup clients guest-image lint
	@echo '== tests that stand beside others'
	@$(PYTEST) -n 2 -m 'not clouds and not machine' tests
	@echo '== tests of real parts, and beside them those of whole clouds on simulated hosts (build/test-clouds.log)'
	@mkdir -p build; \
	$(PYTEST) -m clouds --durations=15 tests > build/test-clouds.log 2>&1 & clouds=$$!; \
	trap 'kill $$clouds; wait $$clouds; exit 130' INT TERM; \
	$(PYTEST) -m machine --durations=15 tests; machine=$$?; \
	echo '== tests of whole clouds on simulated hosts'; \
	wait $$clouds; clouds=$$?; cat build/test-clouds.log; \
	test $$machine -eq 0 -a $$clouds -eq 0
endif

SEEDS ?= 1-200
SMALL_SEEDS ?= 1-1000
FINE_SEEDS ?= 1-300
JOBS ?= 2
# Runs of all these seeds together; with fewer, too few kills in the middle of something are only remarked on.
WHOLE_SOAK := 1500

.PHONY: soak soak-breakages soak-small soak-fine soak-large soak-sums
soak: soak-breakages soak-small soak-fine soak-large soak-sums

soak-breakages: setup
	@echo '== every breakage, searched for from the first seed on'
	@KILONOVA_SOAK=1 $(PYTEST) -n $(JOBS) --timeout=0 tests/sim

# $(1): the name of this part; $(2): its seeds; $(3): what it simulates.
define SIMULATE
@mkdir -p build
@$(BIN)/kilonova simulate $(3) --faults all --seeds $(2) --jobs $(JOBS) --json > build/soak-$(1).json \
	|| { tail -c 4000 build/soak-$(1).json; exit 1; }
endef

soak-small: setup
	@echo '== seeds $(SMALL_SEEDS): 4 hosts, 12 servers, looked at after every transaction'
	$(call SIMULATE,small,$(SMALL_SEEDS),--hosts 4 --servers 12)

soak-fine: setup
	@echo '== seeds $(FINE_SEEDS): 4 hosts with CPUs, pages and devices to give away, 24 servers'
	$(call SIMULATE,fine,$(FINE_SEEDS),--hardware fine --hosts 4 --servers 24)

soak-large: setup
	@echo '== seeds $(SEEDS): 100 hosts, 500 servers, everything that can go wrong'
	$(call SIMULATE,large,$(SEEDS),--hosts 100 --servers 500)

soak-sums: setup
	@$(BIN)/python scripts/soak_sums.py --whole $(WHOLE_SOAK) build/soak-small.json build/soak-fine.json build/soak-large.json

.PHONY: lint
lint: setup
	@$(BIN)/ruff format --check --quiet . || { echo 'Not in form: run make format.'; $(BIN)/ruff format --check .; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@mkdir -p build; $(BIN)/lint-imports --no-logo > build/lint-imports.log || { cat build/lint-imports.log; exit 1; }
	@$(BIN)/kilonova docs --check
	@echo 'lint: all well'

.PHONY: format
format: setup
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

# --- Making things anew ----------------------------------------------------------------------------------

.PHONY: docs
docs: setup
	@$(BIN)/kilonova docs

.PHONY: lock
lock: packages
	@scripts/lock $(PYTHON)

.PHONY: clean
clean:
	rm -rf $(VENV) $(CLIENTS) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache src/*.egg-info
