# The two commands: `make run` (an archive with a real study in it) and `make test` (everything).
# All the others are parts of these. See README.md.

PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(CURDIR)/.cache
VIEWER := $(CACHE)/viewer
JUNIT ?=
# Of `make chaos`: one SCENARIO instead of all, SEEDS of each from SEED on, a deployed LAB instead of one of its
# own, the folder OUT, which an interrupted campaign goes on in
SCENARIO ?=
SEED ?= 1
SEEDS ?= $(if $(SCENARIO),1,5)
LAB ?=
OUT ?= $(CACHE)/chaos/$(shell date +%Y-%m-%dT%H-%M-%S)
HOSTS ?= 3
PYTEST := env STELE_TEST_REQUIRE_ALL=$(if $(filter 0,$(shell id -u)),1,0) $(BIN)/pytest

export STELE_VIEWER__PATH := $(VIEWER)

.PHONY: run test test-together test-quiet smoke smoke-long install install-test lint bench bundle lab lab-down cluster chaos lock clean

run: install ## The archive on embedded defaults, a real study, the viewer's address
	.ci/install-packages tests/demo-packages.txt
	$(BIN)/python -m tests.demo

install: $(VENV)/.installed $(VIEWER)/.prepared ## Debian packages, the virtual environment, the viewer

install-test: install $(VENV)/.installed-test ## And what the tests need
	$(BIN)/python -m tests.corpus fetch
	$(BIN)/python -m chaos.lab prepare

test: install-test lint ## Every test but smoke's; as root nothing may be skipped for a missing part
	$(MAKE) --keep-going test-together test-quiet

test-together: ## What measures no time: two files at a time, each worker in a network of its own
	$(PYTEST) -m "not quiet" --dist loadfile --no-loadscope-reorder \
		--tx '2*popen//python=.ci/isolated $(BIN)/python' $(JUNIT)

test-quiet: ## What has the machine to itself
	.ci/isolated $(PYTEST) -m "quiet and not deployed" $(JUNIT)

smoke: install-test bundle ## A cluster on the lab's own three hosts, seen from outside and under one fault of each tier
	.ci/isolated $(PYTEST) -m "deployed and not long" $(JUNIT)

smoke-long: install-test bundle ## What takes a lab for long: killed deployments, the restore drill
	.ci/isolated $(PYTEST) -m "deployed and long" $(JUNIT)

lint: install-test ## Style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd ansible && ../$(BIN)/ansible-lint --offline --profile production -q

bench: install-test ## Side by side with DCMTK, pynetdicom and Orthanc, as ratios
	.ci/isolated $(BIN)/python -m tests.bench

lab: install ## Three Debian hosts on this machine (HOSTS=6 for six)
	.ci/install-packages chaos/debian-packages.txt
	$(BIN)/python -m chaos.lab up --hosts $(HOSTS)

lab-down: ## And every trace of them gone
	$(BIN)/python -m chaos.lab down

bundle: install ## All that the hosts of a cluster install, for hosts without internet
	.ci/install-packages cluster/bundle/debian-packages.txt
	$(BIN)/python -m cluster.bundle $(VIEWER) $(CACHE)/bundle

cluster: install-test bundle ## Stele on the lab's three hosts, as on real ones
	$(BIN)/python -m chaos deploy

chaos: install-test bundle ## Every fault with five seeds while clients watch, or one SCENARIO; see chaos/README.md
	$(BIN)/python -m chaos run --out "$(OUT)" --seed $(SEED) --seeds $(SEEDS) \
		$(if $(LAB),--lab $(LAB),--own-lab) $(or $(SCENARIO),--all)

lock: ## Resolve the dependencies anew
	$(BIN)/pip install -q uv
	$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header --upgrade \
		pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --python-version 3.11 --no-header --upgrade \
		pyproject.toml --group dev -o requirements-dev.lock

clean: ## Remove all that make has made
	[ ! -x $(BIN)/python ] || $(BIN)/python -m chaos.lab down
	rm -rf $(VENV) $(CACHE) .stele

$(VENV)/.installed: node/debian-packages.txt requirements.lock pyproject.toml
	.ci/install-packages node/debian-packages.txt
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	touch $@

$(VENV)/.installed-test: tests/debian-packages.txt chaos/debian-packages.txt cluster/bundle/debian-packages.txt requirements-dev.lock $(VENV)/.installed
	.ci/install-packages tests/debian-packages.txt tests/demo-packages.txt \
		chaos/debian-packages.txt cluster/bundle/debian-packages.txt
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

$(VIEWER)/.prepared: node/viewer/package-lock.json $(wildcard node/viewer/*.py node/viewer/static/*) $(VENV)/.installed
	$(BIN)/python -m node.viewer.prepare $(VIEWER)
	touch $@
