# `make` alone lists what there is. Everything is installed into .venv, once, and again when
# requirements.lock or pyproject.toml change. Arguments: make up ARGS='--base-port 18001'.

PYTHON3 ?= python3
UV ?= uv
VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip --quiet --disable-pip-version-check
INSTALLED := $(VENV)/.installed
LOAD_VENV := .venv-load
LOAD_PYTHON := $(LOAD_VENV)/bin/python
LOAD_INSTALLED := $(LOAD_VENV)/.installed
PEERS_VENV := .venv-peers
PEERS_PYTHON := $(PEERS_VENV)/bin/python
PEERS_INSTALLED := $(PEERS_VENV)/.installed
AUDIT_VENV := .venv-audit
AUDIT_PYTHON := $(AUDIT_VENV)/bin/python
AUDIT_INSTALLED := $(AUDIT_VENV)/.installed
SIMULATION := PYTHONPATH=tests/support:tests $(PYTHON) -m simulation
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help up install test hostile fuzz simulate cluster-full chaos mutants trace check audit format bench versus inside locality groups example load lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

up: $(INSTALLED) ## Three nodes in this terminal, and a session to copy; Ctrl-C stops them
	@$(VENV)/bin/raftq dev $(ARGS)

install: $(INSTALLED) ## Everything into .venv

test: $(INSTALLED) ## All tests
	$(PYTHON) -m pytest $(ARGS)

hostile: $(INSTALLED) ## All that a hostile client may do, at full size: connections, generated requests
	RAFTQ_HOSTILE=full $(PYTHON) -m pytest tests/hostile $(ARGS)

fuzz: $(INSTALLED) ## Damaged bytes for all that reads them: N=how many (1000000), SEED=which (0)
	@PYTHONPATH=.:tests/support:tests nice $(PYTHON) -m fuzz --executions $(or $(N),1000000) --seed $(or $(SEED),0) $(ARGS)

simulate: $(INSTALLED) ## Whole clusters from seeds: N=how many (1000), SEED=the first (0), on all cores
	@$(SIMULATION) --seeds $(or $(N),1000) --first $(or $(SEED),0) $(ARGS)

cluster-full: $(INSTALLED) ## The tests of whole clusters at full size: kills, lost disks, damaged files
	RAFTQ_CLUSTER=full $(PYTHON) -m pytest tests/cluster $(ARGS)

chaos: $(INSTALLED) ## Faults on a cluster of hosts, at random, and a page about it; needs root; ARGS=--help
	@$(PYTHON) tests/support/chaos.py $(ARGS)

mutants: $(INSTALLED) ## Does the simulator find what is damaged on purpose? ARGS='--only NAME --seeds 500 --jobs 2'
	@$(SIMULATION).mutate $(ARGS)

trace: $(INSTALLED) ## What a simulated run does, as lines and as a page in reports/: SEED=7 or PLAN=file
	$(if $(PLAN)$(SEED),,$(error Say which run: make trace SEED=7, or PLAN=file))
	@$(SIMULATION) $(if $(PLAN),--plan $(PLAN),--trace $(SEED))

check: $(INSTALLED) ## What a change must pass besides the tests: style, types, import directions
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

audit: $(AUDIT_INSTALLED) ## Known vulnerabilities of what requirements.lock pins; needs a network
	@$(AUDIT_PYTHON) -m audit

format: $(INSTALLED) ## Put the code into the one format
	$(VENV)/bin/ruff check --fix-only --quiet .
	$(VENV)/bin/ruff format .

bench: $(INSTALLED) $(if $(findstring peers,$(ARGS)),$(PEERS_INSTALLED)) ## Throughput, latency, CPU and memory beside baselines, as a page in reports/; ARGS=--quick for a glance, --help
	$(PYTHON) -m loadtests.bench $(ARGS)

versus: $(INSTALLED) ## This checkout against another version: AGAINST=a commit, or the directory of a checkout
	$(PYTHON) -m loadtests.bench.versus $(AGAINST) $(ARGS)

inside: $(INSTALLED) ## What a message costs inside a node, part by part, without network and log
	$(PYTHON) -m loadtests.bench.inside $(ARGS)

locality: $(INSTALLED) ## Work that stays in its zone, with delays between the zones; ARGS=--quick for a glance
	$(PYTHON) -m loadtests.locality $(ARGS)

groups: $(INSTALLED) ## What many groups would give, simulated, as a page in reports/; ARGS=--quick for a glance
	$(PYTHON) -m loadtests.groups $(ARGS)

example: $(INSTALLED) ## Three zones at work, one cut off and healed, as a page in reports/; ARGS='--seconds 20'
	@$(PYTHON) -m examples.three_zones $(ARGS)

load: $(INSTALLED) $(LOAD_INSTALLED) ## Half a minute of locust against a cluster of its own
	$(PYTHON) -m loadtests.load $(ARGS)

lock: ## Pin all dependencies anew, with hashes and without addresses (needs uv)
	$(UV) pip compile pyproject.toml --group dev --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-strip-extras -o requirements.lock

clean: ## Remove what was installed and cached; data/ stays
	rm -rf $(VENV) $(LOAD_VENV) $(PEERS_VENV) $(AUDIT_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock pyproject.toml | $(PYTHON)
	@echo "Installing into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-build-isolation --no-deps -e .
	@touch $@

$(LOAD_INSTALLED): loadtests/requirements.lock | $(LOAD_PYTHON)
	@echo "Installing into $(LOAD_VENV) ..."
	@$(LOAD_PYTHON) -m pip --quiet --disable-pip-version-check install --require-hashes -r $<
	@touch $@

$(PEERS_INSTALLED): loadtests/bench/peers/requirements.lock | $(PEERS_PYTHON)
	@echo "Installing into $(PEERS_VENV) ..."
	@$(PEERS_PYTHON) -m pip --quiet --disable-pip-version-check install --require-hashes -r $<
	@touch $@

$(AUDIT_INSTALLED): audit/requirements.lock | $(AUDIT_PYTHON)
	@echo "Installing into $(AUDIT_VENV) ..."
	@$(AUDIT_PYTHON) -m pip --quiet --disable-pip-version-check install --require-hashes -r $<
	@touch $@

$(PYTHON) $(LOAD_PYTHON) $(PEERS_PYTHON) $(AUDIT_PYTHON):
	@$(call ensure-venv)
	@$(PYTHON3) -m venv --clear $(patsubst %/bin/python,%,$@)

# Debian splits the standard library: without python3-venv, `python3 -m venv` cannot bring pip.
define ensure-venv
	if ! $(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	  echo "raftq needs Python 3.11 or newer; name one with: make PYTHON3=python3.11" >&2; exit 1; \
	fi; \
	if ! $(PYTHON3) -c 'import ensurepip, venv' 2>/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "python3-venv is missing; installing it with apt-get ..."; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install python3-venv >/dev/null; \
	  else \
	    echo "Python's venv module is incomplete. Run: sudo apt-get install python3-venv" >&2; exit 1; \
	  fi; \
	fi
endef
