"""Who is measured, by name, and how each is started."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.rivals import install
from benchmarks.rivals.places import ROOT, WORKER, Contender, Engine, Ours, Postgres, Rival
from benchmarks.server import free_port

Make = Callable[[Path, Postgres], Contender]  # in a folder


def _service(name: str, module: str) -> Callable[[], Make]:
    """A Python service in a venv of its own."""

    def prepare() -> Make:
        python = install.python_of(name)
        command = [python, "-m", f"benchmarks.rivals.{module}"]
        return lambda folder, database: Rival(name, folder, database, command, {})

    return prepare


def _packages() -> Make:
    """The same service on our packages, which are here."""
    command = [sys.executable, "-m", "benchmarks.rivals.packages"]
    return lambda folder, database: Rival("trio", folder, database, command, {})


def _otp() -> Make:
    folder = install.erlang(Path(__file__).with_name("otp"))
    command = [*install.erlang_command(folder), *BEAM, "-noinput", "-pa", str(folder / "ebin"), "-s", "turns", "main"]
    environment = {"RIVAL_PYTHON": sys.executable, "RIVAL_WORKER": str(ROOT / WORKER)}
    return lambda place, database: Rival("otp", place, database, command, environment)


def _restate() -> Make:
    python = install.python_of("restate")
    program = install.node_package("restate", "@restatedev/restate-server-linux-x64") / "bin" / "restate-server"

    def make(folder: Path, database: Postgres) -> Rival:
        node, ingress, admin, endpoint = (free_port() for _ in range(4))
        environment = {
            "RIVAL_INGRESS": f"http://127.0.0.1:{ingress}",
            "RIVAL_ADMIN": f"http://127.0.0.1:{admin}",
            "RIVAL_ENDPOINT_PORT": str(endpoint),
            "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
            "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_FILTER": "warn",
        }
        command = [python, "-m", "benchmarks.rivals.journalled"]
        engine = [str(program), "--no-logo", "--base-dir", str(folder / "restate"), "--node-name", "rival"]
        return Rival("restate", folder, database, command, environment, Engine(engine, ingress))

    return make


def _langgraph() -> Make:
    python = install.python_of("langgraph")

    def make(folder: Path, database: Postgres) -> Rival:
        module = "benchmarks.rivals.graphed"
        config = {
            "dependencies": ["."],
            "graphs": {"turn": f"{module}:graph"},
            "http": {"app": f"{module}:application"},
        }
        (folder / "langgraph.json").write_text(json.dumps(config))
        environment = {
            "LANGGRAPH_CLI_NO_ANALYTICS": "1",
            "LANGSMITH_TRACING": "false",
            "HTTPS_PROXY": "http://127.0.0.1:9",  # it asks for newer versions and reports itself; nothing leaves
        }
        rival = Rival("langgraph", folder, database, [], environment)
        rival.command = [python, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload", "--port", str(rival.port)]
        rival.command += ["--n-jobs-per-worker", "32", "--server-log-level", "WARNING"]
        return rival

    return make


# Schedulers that spin when idle take the CPUs from Postgres and the client; this is the switch for shared machines.
BEAM = ("+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none")

# Each installs what it needs (NotToBeHad when it cannot), and gives a way to make one.
CONTENDERS: Mapping[str, Callable[[], Make]] = {
    "lobu": lambda: Ours,
    "otp": _otp,
    "asyncio": _service("asyncio", "plain"),
    "trio": _packages,
    "pgqueuer": _service("pgqueuer", "queued"),
    "dbos": _service("dbos", "durable"),
    "restate": _restate,
    "langgraph": _langgraph,
}
