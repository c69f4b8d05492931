# make demo   the whole loop on this machine: convert, verify, roll out, observe, roll back
# make test   the whole test-suite
# make explore  the property tests, each over a thousand examples that are new each time
# make check  lint, format, types, layers
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Debian packages that the tests (not the demo) use; where we are not root, the line says what to install. Without
# prometheus and chromium, the tests of the hub's alerts, dashboard and pages are skipped; without ceph and radosgw,
# those against an S3-compatible server; without qemu-user, those of processors that are not here.
DEBIAN := mosquitto prometheus chromium ceph-mon ceph-osd ceph-common radosgw qemu-user

.PHONY: demo test explore check debian kubernetes clean

$(VENV)/.installed: pyproject.toml constraints.txt demo-requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --no-deps --requirement demo-requirements.txt
	touch $@

demo: $(VENV)/.installed
	$(BIN)/edgewright demo

debian:
	@missing=; for program in mosquitto promtool chromium radosgw ceph-osd qemu-x86_64; do \
	  PATH="$$PATH:/usr/sbin" command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(DEBIAN); \
	  else echo "make test lacks$$missing. Install with: sudo apt-get install $(DEBIAN)" >&2; \
	    case "$$missing" in *mosquitto*) exit 2;; esac; fi; fi

# A real control plane for the tests, built once from Debian's source package (13 minutes) and kept in ~/.cache.
# Where it can neither be found nor built, one line says so here and the tests that need it are skipped.
kubernetes:
	-@$(PYTHON) tests/fleet/kubernetes/cluster_binaries.py

test: debian kubernetes $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadgroup --no-loadscope-reorder

explore: $(VENV)/.installed
	$(BIN)/python -m pytest -m "hypothesis and not slow" --hypothesis-profile=explore

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) demo-report
