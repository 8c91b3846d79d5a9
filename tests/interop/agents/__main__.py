"""`make interop-agents`: every scenario with every real agent, behind a real `lobu run`, offline; rows as JSON.

    make interop-agents ARGS='--only pi --only opencode --scenario cancel'

Writes results/interop/agents.json: kind, name, version, scenario, result (pass, fail or skipped), seconds, note.
Rows of what did not run this time are kept. Exits with 1 when a scenario failed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import trio

from tests.fakes.model_provider import ModelProvider
from tests.interop.agents import programs
from tests.interop.agents.programs import KEY, KEY_NAME, PROGRAMS, Program
from tests.interop.agents.scenarios import SCENARIOS, SLOW_SCENARIOS, Place
from tests.system.audit import broken_promises
from tests.system.cluster import database
from tests.system.lobu_process import LobuRun, free_port

RESULTS = Path(__file__).parents[3] / "results" / "interop" / "agents.json"
SCENARIO_SECONDS = 600.0
ALL = SCENARIOS | SLOW_SCENARIOS
Row = dict[str, Any]


async def run_all(names: list[str], scenarios: list[str], verbose: bool) -> list[Row]:
    rows: list[Row] = []
    async with database() as server:
        for name in names:
            if why := programs.why_missing(name):
                rows += [_row(PROGRAMS[name](), scenario, "skipped", 0.0, why) for scenario in scenarios]
                continue
            program = PROGRAMS[name]()
            lacks = {scenario: why for scenario in scenarios if (why := _why_not(program, scenario))}
            rows += [_row(program, scenario, "skipped", 0.0, why) for scenario, why in lacks.items()]
            has = [scenario for scenario in scenarios if scenario not in lacks]
            rows += await _run_agent(program, has, server.url, verbose)
    return rows


def _why_not(program: Program, scenario: str) -> str:
    if "question" in scenario and not program.agent.asks:
        return "it asks nobody"
    return "it drives no program" if scenario.startswith("agent") and not program.agent.drives else ""


async def _run_agent(program: Program, scenarios: list[str], database_url: str, verbose: bool) -> list[Row]:
    """One `lobu run` with this agent, and the provider that it is pointed at."""
    rows = []
    folder = Path(tempfile.mkdtemp(prefix="lobu-interop-"))
    home = folder / "home"
    home.mkdir()
    port = free_port()
    config = program.configuration(home, f"http://127.0.0.1:{port}/v1")
    environment = {"WORKER_ENV_NO_PROXY": "127.0.0.1", f"WORKER_ENV_{KEY_NAME}": KEY}
    arguments = ("--port", str(free_port()))
    run = LobuRun(folder, config=config, database_url=database_url, arguments=arguments, environment=environment)
    try:
        await run.start()
        for scenario in scenarios:
            provider = ModelProvider(key=KEY)
            async with provider.serving(port):
                rows.append(await _run_scenario(program, scenario, run))
            if verbose and rows[-1]["result"] == "fail":
                print(run.log())
                tools = {
                    str(tool.get("name")) for request in provider.requests for tool in request.body.get("tools") or ()
                }
                print(f"tools: {sorted(tools)}")
                print("\n".join(f"{request.command!r} {request.turns[-1]}"[:600] for request in provider.requests))
    finally:
        await run.kill_all()
        shutil.rmtree(folder, ignore_errors=True)
    if broken := broken_promises(database_url):
        rows.append(_row(program, "lobu audit", "fail", 0.0, str(broken)[:500]))
        print(f"lobu audit: {broken}", flush=True)
    return rows


async def _run_scenario(program: Program, scenario: str, run: LobuRun) -> Row:
    started = trio.current_time()
    try:
        with trio.fail_after(SCENARIO_SECONDS):
            note, result = await ALL[scenario](Place(run, program.agent)), "pass"
    except (Exception, BaseExceptionGroup) as error:
        if isinstance(error, BaseExceptionGroup) and error.subgroup((KeyboardInterrupt, SystemExit)) is not None:
            raise
        result, note = "fail", _reason(error)
    row = _row(program, scenario, result, trio.current_time() - started, note)
    _write([row])  # what was found out by then is worth having, whatever becomes of the rest
    print(f"{row['name']:18} {row['version']:10} {scenario:30} {result:8} {row['seconds']:6.1f} s  {note}", flush=True)
    return row


def _row(program: Program, scenario: str, result: str, seconds: float, note: str) -> Row:
    return {
        "kind": "agent",
        "name": program.agent.name,
        "version": program.agent.version,
        "scenario": scenario,
        "result": result,
        "seconds": round(seconds, 1),
        "note": note,
    }


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:700]


def _write(rows: list[Row]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    kept: list[Row] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    new = {(row["name"], row["scenario"]) for row in rows}
    rows = [row for row in kept if (row["name"], row["scenario"]) not in new] + rows
    order = list(PROGRAMS)
    known = [row for row in rows if row["name"] in order and row["scenario"] in ALL]
    known.sort(key=lambda row: (order.index(row["name"]), list(ALL).index(row["scenario"])))
    RESULTS.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make interop-agents", description="Real agents behind lobu, offline.")
    parser.add_argument("--only", action="append", choices=list(PROGRAMS), help="this agent; may be repeated")
    parser.add_argument("--scenario", action="append", choices=list(ALL), help="this one; may be repeated")
    parser.add_argument("--verbose", action="store_true", help="logs of what failed")
    options = parser.parse_args()
    names = options.only or list(PROGRAMS)
    programs.install(names)
    rows = trio.run(run_all, names, options.scenario or list(ALL), options.verbose)
    _write(rows)
    raise SystemExit(any(row["result"] == "fail" for row in rows))


if __name__ == "__main__":
    main()
