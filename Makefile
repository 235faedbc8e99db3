# `make` alone prints the targets. Everything runs in ./.venv, which .ci/setup.sh makes on first use.

BIN := .venv/bin
export PYTHON
# Tests start thousands of processes, each of which would compile the program anew.
export PYTHONDONTWRITEBYTECODE :=

help: ## print this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-7s %s\n' "$$name" "$$text"; done

demo: setup ## two throw-away servers, an application at work, its audit trail
	@$(BIN)/python -m cdc_audit demo

test: setup ## all tests, on real servers (CDC_AUDIT_TEST_PG=auto|local|docker)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: setup ## ruff, mypy and the import contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## lint and test: what CI runs

bench: setup ## measure the speed of the whole way, its latency and its costs (10 minutes)
	$(BIN)/python -m tests.bench

chaos: setup ## random faults under load: make chaos SEED=7 MINUTES=5
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),1) --minutes $(or $(MINUTES),5) $(if $(JSON),--json $(JSON))

profile: setup ## where the time goes on a recorded stream, by cProfile
	$(BIN)/python -m tests.bench profile --rows 50000

wheel: setup ## dist/: wheel, source archive, bill of materials (CycloneDX), manual page
	$(BIN)/python -m hatchling build -d dist
	$(BIN)/python .ci/sbom.py dist
	$(BIN)/python -m cdc_audit man >dist/cdc-audit.1

native: setup ## optional: compile the hot loops, for less CPU (needs gcc, python3-dev, libssl-dev)
	$(BIN)/python deploy/native/build.py

clean: ## remove everything that these targets made
	rm -rf .venv dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .cache
	rm -f cdc_audit/*/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@bash .ci/setup.sh

.PHONY: help demo test lint check bench chaos profile wheel native clean setup
