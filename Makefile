# make help lists the targets. Each of them sets up what it needs; nothing is installed outside of this folder.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PYTHON3 ?= python3
SETUP := @$(PYTHON3) tools/setup.py
RUN := @.venv/bin/python -m
# Tests that need what a machine lacks are skipped, which is said first; `make check` wants them all.
WITHOUT_DYNAMODB := echo "the tests that need it are skipped" >&2
PARALLEL := -n 2 --dist loadgroup
# One process more, where some tests wait.
WHILE_SOME_WAIT := -n 3 --dist loadgroup
SAM := .local/sam/bin/sam
UNFINISHED := @PYTHONPATH=src .venv/bin/python -m tools.ops.unfinished
export SAM_CLI_TELEMETRY := 0

# A command acts only on what make's own command line names: variables of the shell with these names do not count.
AIMS := BEFORE DISTURB ENV EVENT ID KEY MINUTES NAME ONLY PICTURE PORT PRINCIPAL SEED SERVE SINCE STEPS TOKEN WHAT
$(foreach name,$(AIMS),$(if $(filter command,$(firstword $(origin $(name)))),,$(eval override $(name) :=)))
ifneq ($(ENV),)
ifeq ($(shell grep -Fx '[$(ENV).global.parameters]' samconfig.toml),)
$(error there is no environment $(ENV) in samconfig.toml)
endif
endif

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

##@ Start

.PHONY: demo
demo: ## Play a story on a local cloud: make demo [PICTURE=docs/demo.svg]
	$(SETUP) dev sam cloud
	$(RUN) tools.demo $(if $(PICTURE),--picture "$(PICTURE)")

# example campaigns
.PHONY: picture
picture: ## Draw the console of make dev for README (needs Chromium)
	$(SETUP) dev sam cloud
	@PYTHONPATH=src .venv/bin/python -m tools.demo.console_picture docs/images/console.png

# end of example
.PHONY: dev
dev: ## Run the API on this machine, and deploy what you save: make dev [PORT=8000]
	$(SETUP) dev sam cloud
	@PYTHONPATH=src .venv/bin/python -m tools.local.dev --port $(or $(PORT),0)

.PHONY: up
up: ## Start the local stack and leave it running, or bring it up to date: make up [PORT=8000]
	$(SETUP) dev sam cloud
	$(RUN) tools.local.stack up --port $(or $(PORT),0)

.PHONY: down
down: ## Stop the local stack
	$(SETUP) dev
	$(RUN) tools.local.stack down

.PHONY: setup
setup: ## Create every environment (the other targets create those that they need)
	$(SETUP) dev sam cloud audit peers

.PHONY: new-operation
new-operation: ## Write an operation of your own: make new-operation NAME=feeds STEPS=2
	$(SETUP) dev
	$(RUN) tools.start.new_operation -- "$(NAME)" "$(STEPS)"

.PHONY: rename
rename: ## Give the project a name of its own: make rename NAME=orders-api
	$(SETUP) dev
	$(RUN) tools.start.rename -- "$(NAME)"

# example campaigns
.PHONY: remove-example
remove-example: ## Remove an example of the template: make remove-example WHAT=campaigns
	$(SETUP) dev
	$(RUN) tools.start.remove_example -- "$(WHAT)"
# end of example

##@ Test

.PHONY: test
test: ## Run the tests, but for those of test-slow
	$(SETUP) dev sam cloud
	@.venv/bin/python -m tools.local.dynamodb_local --check || $(WITHOUT_DYNAMODB)
	$(RUN) pytest $(WHILE_SOME_WAIT) -m "not slow" tests

.PHONY: test-slow
test-slow: ## Run the tests that take minutes: of commands on copies of the project, of sam local, of long stories
	$(SETUP) dev sam cloud
	$(RUN) pytest $(WHILE_SOME_WAIT) -m slow tests

.PHONY: test-unit
test-unit: ## Run only the quick tests of src, without a server
	$(SETUP) dev
	$(RUN) pytest $(PARALLEL) -m "not slow and not thorough" tests/unit

.PHONY: sam-local
sam-local: ## Invoke the functions in Docker with every event of events/: make sam-local [EVENT=provision | SERVE=1]
	$(SETUP) dev sam
	$(RUN) tools.local.sam_local $(EVENT) $(if $(SERVE),--serve)

.PHONY: lint
lint: ## Check style, types, imports, spelling and the template
	$(SETUP) dev sam
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/codespell
	@.venv/bin/mypy $(wildcard src tests tools proof)
	@PYTHONPATH=src .venv/bin/lint-imports
	$(RUN) tools.wiring
	@AWS_DEFAULT_REGION=eu-west-1 $(SAM) validate

.PHONY: audit
audit: ## Check what is deployed and what deploys it: cfn-lint, checkov, zizmor, actionlint, pip-audit
	$(SETUP) dev audit
	$(RUN) tools.ops.audit

.PHONY: costs
costs: ## Write what the stack costs into docs/runbook.md, from tools/prices.json
	$(SETUP) dev
	$(RUN) tools.ops.costs

.PHONY: contract
contract: ## Write the request bodies of src/ into template.yaml and openapi.yaml
	$(SETUP) dev
	$(RUN) tools.contract

.PHONY: format
format: ## Format the code, and fix what ruff can fix
	$(SETUP) dev
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

.PHONY: check
check: WITHOUT_DYNAMODB := exit 2
check: test lint ## Run the tests, then lint

##@ Operate

.PHONY: build
build: ## Build the artifact
	$(SETUP) sam
	@$(SAM) build

.PHONY: deploy
deploy: build ## Deploy to AWS: make deploy ENV=dev
	$(SETUP) dev
	$(RUN) tools.ops.deploy "$(or $(ENV),dev)"

.PHONY: smoke
smoke: ## Ask a deployed stack what only a deployment can tell: make smoke ENV=dev [DISTURB=1]
	$(SETUP) dev
	@PYTHONPATH=src .venv/bin/python -m tools.ops.smoke --env "$(ENV)" $(if $(DISTURB),--disturb)

.PHONY: token
token: ## Issue a bearer token: make token PRINCIPAL=alice [ENV=prod]
	$(SETUP) dev
	$(RUN) tools.ops.tokens issue --env "$(ENV)" -- "$(PRINCIPAL)"

.PHONY: revoke
revoke: ## Revoke a bearer token: make revoke TOKEN=… [ENV=prod]
	$(SETUP) dev
	$(RUN) tools.ops.tokens revoke --env "$(ENV)" -- "$(TOKEN)"

.PHONY: unfinished
unfinished: ## List the operations that are not finished: make unfinished [ENV=prod]
	$(SETUP) dev
	$(UNFINISHED) list --env "$(ENV)"

.PHONY: record
record: ## Show the record of a key: make record KEY=… [PRINCIPAL=alice] [ENV=prod]
	$(SETUP) dev
	@PYTHONPATH=src .venv/bin/python -m tools.ops.record --env "$(ENV)" --principal "$(PRINCIPAL)" -- "$(KEY)"

.PHONY: retry
retry: ## Let recovery try a parked operation again: make retry ID=… [ENV=prod]; ID=all for all
	$(SETUP) dev
	$(UNFINISHED) retry "$(ID)" --env "$(ENV)"

.PHONY: recover
recover: ## Carry on what is due now, without waiting for the schedule: make recover [ENV=prod]
	$(SETUP) dev
	$(UNFINISHED) recover --env "$(ENV)"

.PHONY: logs
logs: ## Follow the logs of the functions: make logs [ENV=prod]
	$(SETUP) dev sam
	$(RUN) tools.ops.logs --env "$(ENV)"

# The proof of the engine has targets of its own, which go if its folder is deleted.
-include proof/proof.mk
