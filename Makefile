# make help lists the targets. All of them set up what they need; nothing is installed outside of this folder.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON3 ?= python3
SETUP := @$(PYTHON3) tools/setup.py
RUN := @.venv/bin/python -m
PARALLEL := -n 2 --dist loadgroup
OPERATIONS := @PYTHONPATH=src .venv/bin/python -m tools.ops.operations
ENV ?=
PORT ?= 0

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Make every environment (the other targets make those that they need)
	$(SETUP) dev sam cloud peers

.PHONY: demo
demo: ## Play the story on a local cloud: answers lost, retries, duplicates, a crash
	$(SETUP) dev sam cloud
	$(RUN) tools.demo

.PHONY: up
up: ## Start the local stack and leave it running: make up [PORT=4566]
	$(SETUP) dev sam cloud
	$(RUN) tools.local.stack up --port $(PORT)

.PHONY: down
down: ## Stop the local stack
	$(SETUP) dev
	$(RUN) tools.local.stack down

.PHONY: logs
logs: ## Show the logs of the functions as they come: make logs [ENV=prod]
	$(SETUP) dev
	$(RUN) tools.ops.logs --env "$(ENV)"

.PHONY: token
token: ## Issue a bearer token: make token PRINCIPAL=alice [ENV=prod]
	$(SETUP) dev
	$(RUN) tools.ops.tokens issue "$(PRINCIPAL)" --env "$(ENV)"

.PHONY: revoke
revoke: ## Revoke a bearer token: make revoke TOKEN=… [ENV=prod]
	$(SETUP) dev
	$(RUN) tools.ops.tokens revoke "$(TOKEN)" --env "$(ENV)"

.PHONY: operations
operations: ## List the operations that are not finished: make operations [ENV=prod]
	$(SETUP) dev
	$(OPERATIONS) list --env "$(ENV)"

.PHONY: recover
recover: ## Finish what is due now, without waiting for the schedule: make recover [ENV=prod]
	$(SETUP) dev
	$(OPERATIONS) recover --env "$(ENV)"

.PHONY: retry
retry: ## Let recovery try a parked operation again: make retry ID=… [ENV=prod]
	$(SETUP) dev
	$(OPERATIONS) retry "$(ID)" --env "$(ENV)"

.PHONY: sam-local
sam-local: ## Invoke the functions in Docker with each of events/*.json: make sam-local [EVENT=provision | SERVE=1]
	$(SETUP) dev sam
	$(RUN) tools.local.sam_local $(EVENT) $(if $(SERVE),--serve)

.PHONY: build
build: ## Build the artifact
	$(SETUP) sam
	@SAM_CLI_TELEMETRY=0 .local/sam/bin/sam build

.PHONY: deploy
deploy: build ## Deploy to AWS: make deploy ENV=dev
	@SAM_CLI_TELEMETRY=0 .local/sam/bin/sam deploy --config-env $(or $(ENV),dev)

.PHONY: test
test: ## Run all tests
	$(SETUP) dev sam cloud
	$(RUN) pytest $(PARALLEL)

.PHONY: test-unit
test-unit: ## Run the tests that need no server
	$(SETUP) dev
	$(RUN) pytest $(PARALLEL) tests/unit tests/tools

.PHONY: lint
lint: ## Check style, types, imports and the template
	$(SETUP) dev sam
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy $(wildcard src tests tools proof)
	@PYTHONPATH=src .venv/bin/lint-imports
	@SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=eu-west-1 .local/sam/bin/sam validate

.PHONY: format
format: ## Bring the code into shape
	$(SETUP) dev
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

.PHONY: check
check: test lint ## Run all tests, then lint

# The proof of the engine has its own targets, and goes with its folder.
-include proof/proof.mk
