"""Somebody else's server is measured by URL and key, and neither killed nor looked into."""

from __future__ import annotations

import json
import subprocess

import pytest

from benchmarks.server import own_server
from tests.benchmarks.lobu_bench import LOBU, bench


def test_a_server_that_runs_is_measured_by_url_and_key() -> None:
    with own_server() as server:
        words = ("--quick", "--repeat", "10", "--url", server.url, "--key", server.key, "--agent", "zygote", "--json")
        [result] = json.loads(bench("terminal", *words).stdout)["results"]
        again = json.loads(bench("terminal", *words, "--database-url", server.database_url).stdout)["results"][0]
    names = [latency["name"] for latency in result["latencies"]]
    assert names[0] == "warm, one after another"
    assert not any("cold" in name for name in names), "nobody restarts the workers of somebody else's server"
    assert result["latencies"][0]["count"] == 10
    assert "2 commits" not in result["latencies"][0]["floor_parts_ms"]
    assert "2 commits" in again["latencies"][0]["floor_parts_ms"]


@pytest.mark.parametrize("kind", ["crash", "hang", "failover", "restart", "spawn", "idle", "snapshot", "hosts"])
def test_what_kills_or_looks_inside_refuses_somebody_elses_server(kind: str) -> None:
    words = [*LOBU, "bench", kind, "--url", "http://127.0.0.1:1", "--key", "k"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"lobu: `{kind}` is measured on a server of its own only; leave --url away.\n"
