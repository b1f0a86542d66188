##@ Prove

# The Makefile includes this file only if the folder `proof` is there.

.PHONY: prove
prove: ## Prove the engine: every schedule, the peers, random walks, histories, mutants (two hours)
	$(SETUP) dev sam cloud peers
	@PYTHONPATH=src .venv/bin/python -m proof

.PHONY: mutate
mutate: ## Remove one condition at a time, and see that a test fails: make mutate [ONLY=store.py] [SINCE=main]
	$(SETUP) dev
	@.venv/bin/python -m proof.mutants $(if $(ONLY),--only "$(ONLY)") $(if $(SINCE),--since "$(SINCE)")

.PHONY: peers
peers: ## Run the explorer on the peers too, and write docs/proof.md
	$(SETUP) peers
	@PYTHONPATH=src .local/peers/bin/python -m proof.explorer.compare

.PHONY: bench
bench: ## Compare with the peers, and write docs/comparison.md and docs/performance.md
	$(SETUP) peers
	@PYTHONPATH=src .local/peers/bin/python -m proof.peers

# example campaigns
.PHONY: chaos
chaos: ## Kill workers and cut connections for a while, then account for every key: make chaos [MINUTES=10] [SEED=1]
	$(SETUP) dev sam cloud
	@PYTHONPATH=src .venv/bin/python -m proof.chaos $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

# end of example
.PHONY: test-proof
test-proof: ## Test the proof itself, and run a bounded part of it
	$(SETUP) dev sam cloud
	$(RUN) pytest $(PARALLEL) proof --ignore=proof/peers

.PHONY: test-peers
test-peers: ## Run the tests of the comparison, in the peers' environment
	$(SETUP) peers
	@.local/peers/bin/python -m pytest --confcutdir=proof/peers proof/peers

# example campaigns
.PHONY: heal-bench
heal-bench: ## Measure how soon operations go on after an outage: make heal-bench [BEFORE=COMMIT]
	$(SETUP) dev sam cloud
	@PYTHONPATH=src .venv/bin/python -m proof.heal $(if $(BEFORE),--before $(BEFORE))
# end of example
