# `make` lists the targets. The work is done by scripts/ and tests/cluster/, which can be run by hand as well.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

CLUSTER ?= sessionpools-test
SCALE_CLUSTER ?= sessionpools-scale
PYTEST_ARGS ?=
BENCH_ARGS ?=
bin := .venv/bin
tools = eval "$$(tests/cluster/tools kind kubectl helm)"
pip_compile = uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header
# for images, which are Linux and this Python alone: no markers, so that any pip can download for them
for_images = --python-platform x86_64-manylinux_2_28

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: ## a kind cluster `sessionpools` with Session Pools and a warm pool on both workers, and calls to it
	@scripts/demo

.PHONY: demo-down
demo-down: ## remove the demo's cluster with all that is in it
	@tests/cluster/down sessionpools

.PHONY: test
test: venv ## every test, end-to-end on the kind cluster `sessionpools-test` included
	@$(tools) && scripts/reset sessionpools-test && scripts/deploy sessionpools-test && scripts/test $(PYTEST_ARGS)

.PHONY: test-unit
test-unit: venv ## the tests that need no cluster and no tools: unit and simulation
	@$(bin)/pytest tests/unit tests/sim --numprocesses=auto --dist=loadfile $(PYTEST_ARGS)

.PHONY: bench
bench: venv ## the measurements in tests/bench, beside FastAPI and BentoML (installs Debian's wrk if it can, and build/peer-venv)
	@. scripts/lib.sh; have wrk || (apt_need wrk=wrk) || step "no wrk: the client is made of Python processes"
	@$(tools) && PYTHONPATH=operator:tests $(bin)/python -m bench

.PHONY: bench-scale
bench-scale: venv ## up to 10,000 session pods on 1,000 simulated nodes, beside the DaemonSet controller (a kind cluster of its own)
	@tests/cluster/up $(SCALE_CLUSTER) tests/cluster/kind-scale.yaml && tests/cluster/kwok-up $(SCALE_CLUSTER) 1000
	@$(tools) && PYTHONPATH=operator:tests SESSIONPOOLS_SCALE_CLUSTER=$(SCALE_CLUSTER) \
		$(bin)/python -m bench --scale $(BENCH_ARGS)

.PHONY: bench-scale-down
bench-scale-down: ## remove the cluster of bench-scale, whose simulated nodes keep the machine busy
	@tests/cluster/kwok-up $(SCALE_CLUSTER) 0
	@tests/cluster/down $(SCALE_CLUSTER)

.PHONY: lint
lint: venv ## ruff, mypy, import-linter, shellcheck, and whether crds/ and docs/reference are what the models say
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/lint-imports
	$(bin)/shellcheck --external-sources $$(git ls-files --cached --others --exclude-standard | while read -r file; do \
		if [[ $$file == *.sh ]] || head -n 1 "$$file" 2>/dev/null | grep -aqE '^#!.*[ /](ba)?sh$$'; then echo "$$file"; fi; done)
	PYTHONPATH=operator $(bin)/python -m sessionpools.api.crds --check crds/
	PYTHONPATH=operator $(bin)/python -m sessionpools.api.reference --check docs/reference/

.PHONY: format
format: venv ## ruff format, and the fixes that ruff makes on its own
	$(bin)/ruff format
	$(bin)/ruff check --fix

.PHONY: build
build: ## the images session-pools:dev and session-pools-session:dev
	@scripts/images

.PHONY: deploy
deploy: ## build, load and install into the kind cluster CLUSTER (sessionpools-test), which is brought up
	@scripts/deploy $(CLUSTER)

.PHONY: crds
crds: venv ## crds/ from the models, the chart's copy of it, and the field tables in docs/reference
	PYTHONPATH=operator $(bin)/python -m sessionpools.api.crds crds/
	PYTHONPATH=operator $(bin)/python -m sessionpools.api.reference docs/reference/
	cp crds/*.yaml charts/session-pools/files/crds/

.PHONY: manifests
manifests: crds ## manifests/base from the chart
	@$(tools) && scripts/manifests

.PHONY: venv
venv: ## .venv with the locked requirements; made again when they change
	@scripts/venv

.PHONY: lock
lock: ## the locks in requirements/ again, from pyproject.toml and requirements/*.in (needs uv; UPGRADE=--upgrade for newer releases)
	$(pip_compile) $(UPGRADE) --universal --group dev pyproject.toml -o requirements/dev.txt
	$(pip_compile) $(UPGRADE) $(for_images) pyproject.toml -o requirements/controller.txt
	$(pip_compile) $(UPGRADE) $(for_images) requirements/session-image.in -o requirements/session-image.txt
	$(pip_compile) $(UPGRADE) $(for_images) requirements/build.in -o requirements/build.txt
	$(pip_compile) $(UPGRADE) --universal requirements/peer.in -o requirements/peer.txt
	$(pip_compile) $(UPGRADE) --no-deps requirements/released-tools.in -o requirements/released-tools.txt

.PHONY: clean
clean: ## remove .venv, wheels and caches of this folder; images, clusters and ~/.cache/session-pools stay
	rm -rf .venv build dist operator/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf images/wheels/*.whl images/wheels/.complete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
