# `make` alone prints the targets. Everything runs in ./.venv, which .ci/setup.sh makes on first use.

BIN := .venv/bin
export PYTHON

help: ## print this
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-7s %s\n' "$$name" "$$text"; done

demo: setup ## two throw-away servers, an application at work, its audit trail
	@$(BIN)/python -m cdc_audit demo

test: setup ## all tests, on real servers (CDC_AUDIT_TEST_PG=auto|local|docker)
	$(BIN)/pytest -n 2 --dist loadfile

lint: setup ## ruff, mypy and the import contract
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## lint and test: what CI runs

bench: setup ## measure the speed of the whole way
	$(BIN)/python -m tests.bench

wheel: setup ## dist/*.whl and dist/*.tar.gz
	$(BIN)/python -m hatchling build -d dist

clean: ## remove everything that these targets made
	rm -rf .venv dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup:
	@bash .ci/setup.sh

.PHONY: help demo test lint check bench wheel clean setup
