# make demo   the whole loop on this machine: convert, verify, roll out, observe, roll back
# make test   the whole test-suite
# make check  lint, format, types, layers
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Debian packages that the tests (not the demo) use; where we are not root, the line says what to install.
DEBIAN := mosquitto

.PHONY: demo test check debian kubernetes clean

$(VENV)/.installed: pyproject.toml constraints.txt demo-requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --requirement demo-requirements.txt
	touch $@

demo: $(VENV)/.installed
	$(BIN)/edgewright demo

debian:
	@if ! PATH="$$PATH:/usr/sbin" command -v mosquitto >/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(DEBIAN); \
	  else echo "make test needs the Debian packages: $(DEBIAN). Install them with: sudo apt-get install $(DEBIAN)" >&2; exit 2; fi; fi

# A real control plane for the tests, built once from Debian's source package (13 minutes) and kept in ~/.cache.
# Where it can neither be found nor built, one line says so here and the tests that need it are skipped.
kubernetes:
	-@$(PYTHON) tests/fleet/kubernetes/cluster_binaries.py

test: debian kubernetes $(VENV)/.installed
	$(BIN)/python -m pytest

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo-report
