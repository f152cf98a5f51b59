# Every target works from a fresh clone, in any folder; the first one that needs it runs `setup`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= python3.11
# Options for demo, bench, test and up: make demo ARGS='--users 1000'
ARGS ?=

.PHONY: help
help: ## Show this list
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: $(READY) ## Install everything that is needed, into .venv

$(READY): pyproject.toml requirements.txt | system
	python="$$(command -v $(PYTHON) || command -v python3)"
	if ! "$(BIN)/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
	  echo "creating $(VENV) with $$("$$python" --version)"
	  "$$python" -m venv --clear $(VENV)
	fi
	echo "installing Python packages into $(VENV)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	# With the checkout itself on the path, packages that are added later are found too.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  --config-settings editable_mode=compat --editable .
	touch $@

# What pip cannot install. Debian's names; as root they are installed, else they are named.
.PHONY: system
system:
	is_311() { "$$1" -c 'import sys, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }
	java_major() { java -version 2>&1 | sed -nE 's/.* version "([0-9]+).*/\1/p'; }
	missing=()
	is_311 $(PYTHON) || is_311 python3 || missing+=(python3.11 python3.11-venv)
	major="$$(java_major || true)"
	[ "$${major:-0}" -ge 17 ] || missing+=(openjdk-17-jre-headless)
	command -v mvn >/dev/null || missing+=(maven)
	/sbin/ldconfig -p 2>/dev/null | grep -q 'libgomp\.so\.1' || missing+=(libgomp1)
	may_install() { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; }
	install_packages() {
	  echo "installing $$*"
	  export DEBIAN_FRONTEND=noninteractive
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends "$$@" >/dev/null
	}
	# For the tests of the console alone, which are left out without it.
	if ! command -v chromium >/dev/null && may_install; then
	  install_packages chromium || echo "without Chromium the console is not tested" >&2
	fi
	[ "$${#missing[@]}" -gt 0 ] || exit 0
	if ! may_install; then
	  echo "missing: $${missing[*]}" >&2
	  echo "Python 3.11 with venv, Java 17 or newer, Maven and libgomp are needed; on Debian 12:" >&2
	  echo "  sudo apt-get install $${missing[*]}" >&2
	  exit 1
	fi
	install_packages "$${missing[@]}"
	is_311 $(PYTHON) || is_311 python3 || { echo "there is no Python 3.11; set PYTHON=/path/to/python3.11" >&2; exit 1; }

.PHONY: demo
demo: $(READY) ## Score simulated traffic on an embedded Flink and show how it went
	$(BIN)/fraudstream demo $(ARGS)

.PHONY: up
up: $(READY) ## Start everything, submit the jobs and print where the console is
	$(BIN)/fraudstream stack up $(ARGS)

.PHONY: simulate
simulate: $(READY) ## Send live traffic to what `make up` has started, until Ctrl-C
	eval "$$($(BIN)/fraudstream stack env)"
	$(BIN)/fraudstream simulate --tps 50 $(ARGS)

.PHONY: status
status: $(READY) ## Show what of them runs
	$(BIN)/fraudstream stack status

.PHONY: down
down: $(READY) ## End them
	$(BIN)/fraudstream stack down

.PHONY: test
test: $(READY) ## Run the tests, with those that start a real Kafka and Flink
	$(BIN)/pytest -m 'not slow' $(ARGS)

.PHONY: test-fast
test-fast: $(READY) ## Run the tests that need no server
	$(BIN)/pytest $(ARGS)

.PHONY: test-stack
test-stack: $(READY) ## Run only the tests that start a real Kafka and Flink
	$(BIN)/pytest -m 'stack and not slow' $(ARGS)

.PHONY: test-slow
test-slow: $(READY) ## Run the tests that take minutes each
	$(BIN)/pytest -m slow $(ARGS)

.PHONY: screenshots
screenshots: $(READY) ## Make the pictures of the console in docs/console anew
	$(BIN)/python -m tests.serving.console.screenshots

.PHONY: lint
lint: $(READY) ## Check style, types, import directions and generated files
	failed=0
	check() { echo "== $$*"; "$(BIN)/$$@" || failed=1; }
	check ruff check .
	check ruff format --check .
	check mypy --explicit-package-bases .
	check lint-imports --no-logo --no-cache
	check fraudstream events check
	exit $$failed

.PHONY: bench
bench: $(READY) ## Measure speed, latency and memory
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: clean
clean: ## Remove caches, build output and the demo's results; not .venv, not the stack's data
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .run/demo
	find . -path ./$(VENV) -prune -o -path ./.run -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
