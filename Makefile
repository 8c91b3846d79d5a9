# `make run` and `make test` do all their own set-up in .venv; a second run skips what is done.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Images for containers often set it, and Python then compiles all of ours again at each start of each process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test check slow soak supervisor-kills kill-campaign takeovers partitions rolling-restarts rolling-hosts \
	stale-writers database-away overlap interop interop-clients interop-agents pi-moves bench bench-rivals clean

run: $(STAMP)
	$(BIN)/lobu run

test: $(STAMP) check
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

soak: $(STAMP)
	$(BIN)/python -m tests.soak $(ARGS)

supervisor-kills: $(STAMP)
	$(BIN)/python -m tests.supervisor_kills $(ARGS)

kill-campaign: $(STAMP)
	$(BIN)/python -m tests.kill_campaign $(ARGS)

takeovers: $(STAMP)
	$(BIN)/python -m tests.cluster.takeover $(ARGS)

partitions: $(STAMP)
	$(BIN)/python -m tests.cluster.partitions $(ARGS)

rolling-restarts: $(STAMP)
	$(BIN)/python -m tests.systemd.rolling $(ARGS)

rolling-hosts: $(STAMP)
	$(BIN)/python -m tests.rolling_hosts $(ARGS)

stale-writers: $(STAMP)
	$(BIN)/python -m tests.stale_writers $(ARGS)

database-away: $(STAMP)
	$(BIN)/python -m tests.database_away $(ARGS)

overlap: $(STAMP)
	$(BIN)/python -m tests.overlap $(ARGS)

interop: $(STAMP)  # all of both, and then the page of what they did
	failed=0; for part in clients agents table; do $(BIN)/python -m tests.interop.$$part || failed=1; done; exit $$failed

interop-clients: $(STAMP)
	$(BIN)/python -m tests.interop.clients $(ARGS)

interop-agents: $(STAMP)
	$(BIN)/python -m tests.interop.agents $(ARGS)

pi-moves: $(STAMP)
	$(BIN)/python -m tests.interop.agents.pi_moves $(ARGS)

bench: $(STAMP)
	$(BIN)/lobu bench $(or $(ARGS),all)

bench-rivals: $(STAMP)
	$(BIN)/python -m benchmarks.rivals $(ARGS)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	$(BIN)/python -m compileall -q lobu_actors supervisor edge benchmarks  # as pip does for what it copies
	touch $@

clean:
	rm -rf $(VENV) .venv-rivals .interop build *.egg-info .mypy_cache .ruff_cache .pytest_cache
