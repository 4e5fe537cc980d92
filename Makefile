# Each target does one thing, and first installs what it needs and misses (scripts/tools, engine, images say what).
.DEFAULT_GOAL := help
.PHONY: help demo demo-down test lint unit sanity build molecule audit acceptance docs bench tools engine images
MAKEFLAGS += --no-print-directory

help: ## Show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 18

demo: tools images ## Put the example app into production in a container: https://localhost:8443/
	@scripts/demo

demo-down: ## Remove the demo's container and files
	@scripts/demo-down

test: tools images ## Run all that follows but acceptance and bench: about an hour
	@scripts/test

lint: tools ## ansible-lint, yamllint, ruff, shellcheck
	@scripts/lint

unit: tools ## Tests of the plugins, of the repository's policies, and of the example app
	@scripts/unit

sanity: tools ## ansible-test sanity
	@scripts/sanity

build: tools images ## Build the collection, install it elsewhere, run its site playbook from there
	@scripts/build

molecule: tools images ## Run the Molecule scenarios; one of them: make molecule SCENARIO=site
	@scripts/molecule $(SCENARIO)

audit: tools images ## Have testssl.sh, the HTTP Observatory, gixy, lynis and ssh-audit look at the stack; a grade each
	@scripts/audit

acceptance: tools images ## Deploy, break and kill the example app under load; no request may fail: about 20 minutes
	@scripts/acceptance

docs: tools ## Write the tables of options in the READMEs and docs anew, from the roles' specs
	@.venv/bin/python scripts/docs.py

bench: tools images ## Measure the roles against plain shell scripts, and the stack against a tutorial's
	@scripts/bench

tools:
	@scripts/tools

engine:
	@scripts/engine

images: engine
	@scripts/images
