.DEFAULT_GOAL := help
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Which hosts of a scenario's inventory: a group (debian, ubuntu), a host, or all.
export LIMIT ?= debian
SCENARIO ?= default
DEMO := ansible-playbook -i inventories/demo

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## from nothing to the sample app at https://localhost:8443, in a container
	@scripts/testbed
	@$(DEMO) molecule/shared/create.yml playbooks/site.yml
	@docker exec slipway-demo cat /etc/slipway/certificates/demo/fullchain.pem >.cache/demo.pem
	@printf '\nhttps://localhost:8443/ is up. To ask it, trusting its certificate:\n'
	@printf '  curl --cacert .cache/demo.pem https://localhost:8443/health\n'

.PHONY: demo-deploy
demo-deploy: ## the demo's next version and colour, deployed while load runs
	@[[ -f .cache/demo.pem ]] && docker exec slipway-demo true 2>/dev/null || $(MAKE) --no-print-directory demo
	@.venv/bin/python bench/demo_deploy.py

.PHONY: down
down: ## remove the demo and all that it made
	@if docker info >/dev/null 2>&1; then scripts/testbed controller && $(DEMO) molecule/shared/destroy.yml; fi
	@rm -rf .cache/demo.pem .cache/demo-app .cache/demo-deploy.log inventories/demo/.session_key

.PHONY: test
test: ## everything below, each layer timed
	@scripts/test

.PHONY: lint
lint: ## yamllint, ansible-lint, ruff, mypy, shellcheck, and the docs are up to date
	@scripts/testbed controller sample_app
	@pre-commit run --all-files

.PHONY: unit
unit: ## plugins and templates, with no host
	@scripts/testbed controller unit
	@pytest --numprocesses auto --dist loadfile

.PHONY: sample-app
sample-app: ## the sample app's own tests
	@scripts/testbed sample_app
	@cd sample_app && ../.cache/sample_app/bin/pytest

.PHONY: molecule
molecule: ## a scenario on hosts that boot systemd: SCENARIO=default LIMIT=debian
	@scripts/testbed
	@molecule test --no-command-borders --scenario-name $(SCENARIO)

.PHONY: deploys
deploys: ## deploys under load, and cut off, in small counts: a table at the end
	@$(MAKE) --no-print-directory molecule SCENARIO=deploys

.PHONY: servers
servers: ## every server for the same apps, and from one to another under load: a table at the end
	@$(MAKE) --no-print-directory molecule SCENARIO=servers

.PHONY: edge
edge: ## certificates from a CA, and nginx against what it may meet: a table at the end
	@$(MAKE) --no-print-directory molecule SCENARIO=edge

.PHONY: faults
faults: ## full disks, broken downloads, what somebody has broken by hand: a table at the end
	@$(MAKE) --no-print-directory molecule SCENARIO=faults

.PHONY: hardening
hardening: ## what an intruder in an app can do, and where a secret might be: tables at the end
	@$(MAKE) --no-print-directory molecule SCENARIO=hardening

.PHONY: removal
removal: ## a host before Slipway and after it, compared file by file and unit by unit
	@$(MAKE) --no-print-directory molecule SCENARIO=removal

.PHONY: apps
apps: ## apps that others wrote, of Django, Litestar, Flask and FastAPI with PostgreSQL: a table at the end
	@$(MAKE) --no-print-directory molecule SCENARIO=apps

.PHONY: soak
soak: ## deploys, servers, edge, faults and hardening in full counts, and apps: more than three hours
	@for target in deploys servers edge faults hardening apps; do SLIPWAY_SOAK=1 $(MAKE) --no-print-directory $$target || exit; done

.PHONY: judge
judge: ## outside judges of TLS, headers, nginx, strange requests and slow clients: into docs/judges.md
	@scripts/testbed controller engine images judge
	@cd bench && ../.venv/bin/python -m judge $(JUDGE)

.PHONY: bench
bench: ## what it costs, in ratios, against the floor, by hand and tutorials: into docs/bench.md; PART=path QUICK=1
	@scripts/testbed controller engine images slipway/debian:13 bench
	@cd bench && ../.venv/bin/python -m measure $(PART) $(if $(QUICK),--quick)

.PHONY: browser
browser: demo ## the demo from outside: over HTTPS, and in a real browser
	@scripts/testbed browser
	@pytest tests/end_to_end

.PHONY: docs
docs: ## write the roles' READMEs anew, from their argument specs
	@scripts/testbed controller
	@.venv/bin/python scripts/docs

.PHONY: requirements
requirements: ## pin all packages anew: controller, uv, servers, the oldest that are tested, starters, judges, plots
	@scripts/testbed controller
	@for name in requirements roles/python/files/uv $(basename $(wildcard roles/app/files/server/*.in)) \
	    tests/unit/worker_oldest tests/unit/servers_oldest roles/certificates/files/certbot molecule/servers/notes/requirements \
	    molecule/apps/starters bench/judge/requirements bench/measure/requirements; do \
	  case $$name in requirements | bench/* | */starters) python=3.13 ;; */certbot) python=3.10 ;; *) python=3.11 ;; esac; \
	  UV_SYSTEM_CERTS=1 .cache/uv/bin/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	    --only-binary :all: --no-binary sslyze --no-binary termcolor --python-version $$python \
	    --custom-compile-command 'make requirements' $$name.in --output-file $$name.txt || exit; \
	done
	@! command -v npm >/dev/null || npm install --prefix bench/judge --package-lock-only --ignore-scripts \
	  --omit-lockfile-registry-resolved --no-audit --no-fund
