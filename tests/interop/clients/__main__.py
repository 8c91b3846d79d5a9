"""`make interop-clients`: real third-party clients against a real server, offline.

Rows go to results/interop/clients.json, of which `python -m tests.interop.table` makes the page.
Installs the pinned clients below `.interop/clients` (npm and pip), once. Exits with 1 when a scenario failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from tests.interop.clients import open_webui
from tests.interop.clients.scenarios import SCENARIOS, Json, Scenario
from tests.interop.clients.world import ROOT, World, world

HERE = Path(__file__).parent
INSTALLED = ROOT / ".interop" / "clients"
RESULTS = ROOT / "results" / "interop" / "clients.json"
SCENARIO_SECONDS = 90.0
CANCEL_SECONDS = 15.0
# By the name of the driver: how the row is called, and by which package or program its version is known.
PYTHON = {
    "openai-pypi-chat": ("openai (PyPI), chat completions", "openai"),
    "openai-pypi-responses": ("openai (PyPI), Responses", "openai"),
    "llm": ("llm", "llm"),
    "httpx-sse": ("httpx-sse", "httpx-sse"),
    "chromium": ("EventSource in Chromium", "/usr/bin/chromium"),
    "firefox": ("EventSource in Firefox", "/usr/bin/firefox-esr"),
}
OURS = {"ours": ("lobu_actors.client", "lobu-actors")}  # in the environment that this program runs in
WEBUI = {"open-webui": ("Open WebUI in Chromium", "open-webui")}
NODE = {
    "openai-npm-chat": ("openai (npm), chat completions", "openai"),
    "openai-npm-responses": ("openai (npm), Responses", "openai"),
    "ai5": ("Vercel AI SDK 5", "ai5"),
    "ai6": ("Vercel AI SDK 6", "ai6"),
    "ai7": ("Vercel AI SDK 7", "ai7"),
    "ag-ui": ("AG-UI client", "@ag-ui/client"),
    "eventsource-npm": ("eventsource (npm)", "eventsource"),
    "ws": ("ws (npm), WebSocket", "ws"),
}
EVERY = PYTHON | OURS | WEBUI | NODE
_DRIVERS = {"ours": "ours.py", "open-webui": "open_webui.py", "ws": "websocket.mjs"}  # those that have one of their own


def install() -> None:
    """What is there and pinned the same is left as it is."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    pins = (HERE / "package.json").read_text() + (HERE / "requirements.txt").read_text()
    stamp = INSTALLED / "installed"
    if stamp.exists() and stamp.read_text() == pins:
        return
    shutil.copy(HERE / "package.json", INSTALLED)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=INSTALLED, check=True)
    subprocess.run([sys.executable, "-m", "venv", INSTALLED / "venv"], check=True)
    pip = [INSTALLED / "venv" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", HERE / "requirements.txt"], check=True)
    stamp.write_text(pins)


def version_of(client: str) -> str | None:
    """None: it is not on this machine."""
    if client in NODE:
        manifest = INSTALLED / "node_modules" / NODE[client][1] / "package.json"
        return str(json.loads(manifest.read_text())["version"])
    if client in WEBUI:
        return open_webui.version()
    name = (PYTHON | OURS)[client][1]
    if name.startswith("/"):
        if not Path(name).exists():
            return None
        said = subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout
        return next(word for word in said.split() if word[:1].isdigit())
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    return subprocess.run([_python(client), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def _python(client: str) -> Path:
    return Path(sys.executable) if client in OURS else INSTALLED / "venv" / "bin" / "python"


def _command(client: str, scenario: Scenario) -> list[str]:
    if client in NODE:
        node = INSTALLED / "node_modules" / ".bin" / "node"
        return [str(node), str(HERE / "drivers" / _DRIVERS.get(client, "clients.mjs")), client, scenario.name]
    return [str(_python(client)), str(HERE / "drivers" / _DRIVERS.get(client, "clients.py")), client, scenario.name]


async def drive(place: World, client: str, scenario: Scenario, number: int) -> tuple[Json, float]:
    """The client's outcome, and how long it took. An outcome without an end: it hung, or its program ended."""
    environment = {
        **os.environ,
        "LOBU_URL": place.run.url,
        "LOBU_KEY": place.run.admin_key,
        "LOBU_CHAT": _chat(client, scenario, number),
        "LOBU_AGENT": scenario.agent,
        "LOBU_TEXT": scenario.text,
        "LOBU_MODULES": str(INSTALLED),
        "LOBU_WEBUI": place.webui,
    }
    met = scenario.meanwhile is None
    began, outcome = time.monotonic(), {"end": "hung", "text": "", "error": ""}
    async with trio.open_nursery() as nursery:
        start = partial(
            trio.run_process, _command(client, scenario), env=environment, stdout=subprocess.PIPE, check=False
        )
        process: trio.Process = await nursery.start(start)
        with trio.move_on_after(SCENARIO_SECONDS):
            async for line in _lines(process):
                if "step" in line and scenario.meanwhile is not None and not met:
                    await scenario.meanwhile(place)
                    met = True
                elif "end" in line:
                    outcome = line
                    break
            else:
                outcome["end"] = "its program ended"
        nursery.cancel_scope.cancel()
    if not met:
        outcome |= {"end": f"{outcome['end']} before its first text"}
    return outcome, time.monotonic() - began


async def _lines(process: trio.Process) -> Any:
    assert process.stdout is not None
    rest = b""
    while piece := await process.stdout.receive_some():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            if line.startswith(b"{"):
                yield json.loads(line)


def _chat(client: str, scenario: Scenario, number: int) -> str:
    return f"{client}-{scenario.name}-{number}"


async def is_cancelled(place: World, scenario: Scenario, chat: str) -> bool:
    """Whether the server knows that the turn was cancelled, within a bound."""
    import httpx

    key = f"{scenario.agent}_admin_local_{chat}"
    with trio.move_on_after(CANCEL_SECONDS):
        async with httpx.AsyncClient(base_url=place.run.url) as http:
            while True:
                headers = {"Authorization": f"Bearer {place.run.admin_key}"}
                shown = (await http.get(f"/api/v1/agents/{key}", headers=headers)).json()
                if shown.get("agent", {}).get("status") == "idle":
                    return True
                await trio.sleep(0.1)
    return False


async def row(place: World, client: str, scenario: Scenario, number: int) -> Json:
    name, version = EVERY[client][0], version_of(client)
    about = {"kind": "client", "name": name, "version": version or "", "scenario": scenario.name}
    if version is None:
        return about | {"result": "skipped", "seconds": 0, "note": "not on this machine"}
    if not scenario.applies(client):
        return about | {"result": "n/a", "seconds": 0, "note": ""}
    outcome, seconds = await drive(place, client, scenario, number)
    wrong = scenario.judge(outcome)
    chat = outcome.get("chat") or _chat(client, scenario, number)
    if wrong is None and scenario.cancels and not await is_cancelled(place, scenario, chat):
        wrong = "the turn goes on"
    result = "pass" if wrong is None else "fail"
    return about | {"result": result, "seconds": round(seconds, 1), "note": wrong or _note(outcome)}


def _note(outcome: Json) -> str:
    """How it ended; of a complete reply also what the client went through before, if it says so."""
    resumed = outcome["end"] == "complete" and outcome["error"]
    return str(outcome["error"] if resumed else outcome["end"])


async def matrix(clients: list[str], names: list[str]) -> list[Json]:
    """The rows, each kept as soon as it is there."""
    rows: list[Json] = []
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(world())
        if "open-webui" in clients:
            place = attrs.evolve(place, webui=await stack.enter_async_context(open_webui.serving(place)))
        for number, client in enumerate(clients):
            for scenario in SCENARIOS:
                if scenario.name in names:
                    made = await row(place, client, scenario, number)
                    print(f"{made['result']:5} {client:24} {scenario.name:18} {made['note']}", flush=True)
                    keep([made])
                    rows.append(made)
    return rows


def keep(rows: list[Json]) -> None:
    """They replace those of the same client and scenario, and stand in the order of the matrix."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    new = {(made["name"], made["scenario"]) for made in rows}
    kept = [old for old in known if (old["name"], old["scenario"]) not in new]
    clients = [name for name, _ in EVERY.values()]
    scenarios = [scenario.name for scenario in SCENARIOS]
    kept = [old for old in kept + rows if old["name"] in clients and old["scenario"] in scenarios]
    kept.sort(key=lambda made: (clients.index(made["name"]), scenarios.index(made["scenario"])))
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


def main() -> int:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="make interop-clients", description=__doc__)
    parser.add_argument("--client", action="append", choices=list(EVERY), help="only this one; may be repeated")
    parser.add_argument("--scenario", action="append", choices=names, help="only this one; may be repeated")
    options = parser.parse_args()
    clients = options.client or list(EVERY)
    install()
    if "open-webui" in clients:
        open_webui.install()
    rows = trio.run(matrix, clients, options.scenario or names)
    failed = [made for made in rows if made["result"] == "fail"]
    print(f"{len(rows) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
