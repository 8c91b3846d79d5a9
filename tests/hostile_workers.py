"""`python -m tests.hostile_workers [FILE [HABIT …]]`: each attack of a hostile worker on a real `lobu run`, and what
its neighbours felt of it, as a table in Markdown; into docs/hostile-workers.md unless another file is named.

Exit 1 when a turn ended otherwise than it should, something was left over, a promise was broken, or a neighbour was
slowed more than the bound allows. Neighbours talk all the time, before each attack in peace and then during it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import median, quantiles

import attrs
import psutil
import trio

from lobu_actors.contract.ids import new_id
from tests.hostile_attacks import ATTACKS, CRASHES, TURN_SECONDS, Attack, Scene
from tests.sandbox_world import PYTHON, UIDS, UIDS_APART
from tests.system.audit import broken_promises
from tests.system.lobu_process import LobuRun, lobu_run
from tests.system.sse_client import Client, Conversation, Transcript

PROGRAM = Path(__file__).parent / "workers" / "hostile.py"
PAGE = Path(__file__).parents[1] / "docs" / "hostile-workers.md"
NEIGHBOURS = 3
THINK_SECONDS = 0.03
QUIET_SECONDS = 4.0
ATTACK_SECONDS = 5.0  # an attack whose turn ends sooner is repeated
GONE_SECONDS = 60.0
RATIO = 3.0
LIMITS = f"""
[limits]
requests_per_second = 0
cancel_grace_seconds = 0.5
crash_loop_crashes = {CRASHES}
session_file_max_bytes = 1000000
reply_max_bytes = 1000000
upload_max_files = 2
upload_file_max_bytes = 1000000
upload_total_max_bytes = 1000000
workspace_max_bytes = 200000000
workspace_max_files = 2000
worker_uid_first = {UIDS.first}
"""
# What attacks run into is short; all else leaves time to a machine that has none because of them.
_DEADLINES = "{{ heartbeat_seconds = 30, first_output_seconds = 5, progress_seconds = 30, turn_seconds = {turn} }}"
_TURN_SECONDS = {"frame_flood": 10}  # else 60


class Neighbours:
    """Conversations that are talked to all the time; `seconds` are the times of the turns that ended lately."""

    def __init__(self, run: LobuRun) -> None:
        self._run = run
        self.seconds: list[float] = []
        self.turns = 0

    async def talk(self) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(NEIGHBOURS):
                nursery.start_soon(self._talk)

    def lately(self) -> list[float]:
        found, self.seconds = self.seconds, []
        return found

    async def _talk(self) -> None:
        client = Client(self._run.url, self._run.admin_key, keep=True)
        conversation, transcript = await client.open(agentId="neighbour"), Transcript()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transcript.follow, conversation, lambda: False)
                while not transcript.connections:  # noqa: ASYNC110 - it waits for a frame, too
                    await trio.sleep(0.01)
                while True:
                    await self._turn(conversation, transcript)
                    await trio.sleep(THINK_SECONDS)
        finally:
            await client.close()

    async def _turn(self, conversation: Conversation, transcript: Transcript) -> None:
        begun = time.perf_counter()
        message_id = await conversation.send("hello", new_id())
        with trio.fail_after(TURN_SECONDS):
            while message_id not in transcript.terminals:
                await transcript.changed()
        self.seconds.append(time.perf_counter() - begun)
        frame = transcript.terminals[message_id]
        assert frame.event == "complete", frame
        assert not transcript.faults, transcript.faults
        self.turns += 1


@attrs.frozen
class Outcome:
    """`problems` are sentences; the turn's end is `told`, `seconds` after it was sent, over all repetitions."""

    attack: Attack
    told: str
    seconds: list[float]
    quiet: list[float]
    during: list[float]
    problems: list[str]


@asynccontextmanager
async def hostile_run(database_url: str | None = None) -> AsyncIterator[LobuRun]:
    """A run with a worker type for each attack, in a folder that the workers' users can pass."""
    with tempfile.TemporaryDirectory(prefix="lobu-hostile-") as name:
        program = Path(name) / PROGRAM.name
        shutil.copy(PROGRAM, program)
        program.parent.chmod(0o755)
        async with lobu_run(config=_config(program), database_url=database_url, start=False) as run:
            run.folder.chmod(0o711)
            await run.start()
            yield run


def _config(program: Path) -> str:
    parts = [LIMITS]
    for habit in ("neighbour", *(attack.habit for attack in ATTACKS)):
        turn = _TURN_SECONDS.get(habit, 60)
        deadlines = "" if habit == "neighbour" else f"deadlines = {_DEADLINES.format(turn=turn)}\n"
        parts.append(
            f'[workers.{habit}]\ncommand = ["{PYTHON}", "{program}", "{habit}"]\nmemory_mb = 128\nprocesses = 64\n'
            f'[[agents]]\nid = "{habit}"\nworker = "{habit}"\n{deadlines}'
        )
    return "".join(parts)


async def attacked(run: LobuRun, attack: Attack, neighbours: Neighbours, *, quiet: float, seconds: float) -> Outcome:
    """Do it once, or again and again for so long."""
    neighbours.lately()
    await trio.sleep(quiet)
    before = neighbours.lately()
    told: set[str] = set()
    took: list[float] = []
    problems: list[str] = []
    begun = time.perf_counter()
    while not took or time.perf_counter() - begun < seconds:
        conversation = await Client(run.url, run.admin_key).open(agentId=attack.habit)
        sent = time.perf_counter()
        frame = await attack.act(Scene(run, conversation, neighbour_worker()))
        took.append(time.perf_counter() - sent)
        told.add(frame.data.get("errorCode", frame.event))
        answer = await conversation.client.call("DELETE", conversation.path)
        if answer.status != 200:
            problems.append(f"its conversation could not be ended: {answer}")
    during = neighbours.lately()
    if told != {attack.code}:
        problems.append(f"it was told {sorted(told)}, not {attack.code}")
    problems += await leftovers(run)
    return Outcome(attack, ", ".join(sorted(told)), took, before, during, problems)


def neighbour_worker() -> str:
    for process in _workers():
        with suppress(psutil.Error):
            if "neighbour" in process.cmdline():
                return process.environ()["LOBU_WORKER_ID"]
    raise AssertionError("no neighbour has a worker")


async def leftovers(run: LobuRun) -> list[str]:
    """Processes of workers and workspaces, but for the neighbours'."""
    found: list[str] = []
    with trio.move_on_after(GONE_SECONDS):
        while found := _strays() + _other_workspaces(run):  # noqa: ASYNC110
            await trio.sleep(0.02)
    return found


def _strays() -> list[str]:
    found = []
    for process in _workers():
        with suppress(psutil.NoSuchProcess):
            command = "zombie" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline())
            if "neighbour" not in command:
                found.append(f"a process is left: {command}")
    return found


def _workers() -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["uids", "cmdline"])
        if (process.info["uids"] and UIDS.first <= process.info["uids"].real < UIDS.first + UIDS_APART)
        or any(part.endswith("/hostile.py") for part in process.info["cmdline"] or ())
    ]


def _other_workspaces(run: LobuRun) -> list[str]:
    number = len(list((run.folder / ".lobu" / "workspaces").iterdir()))
    return [f"{number - NEIGHBOURS} workspaces are left"] if number > NEIGHBOURS else []


async def audited(run: LobuRun) -> list[str]:
    """What `lobu audit` and a look at the log find."""
    command = [sys.executable, "-m", "supervisor.cli.main", "audit", "--database-url", run.database_url]
    result = await trio.run_process(command, cwd=run.folder, capture_stdout=True, capture_stderr=True, check=False)
    problems = [] if result.returncode == 0 else [(result.stdout + result.stderr).decode()]
    problems += await trio.to_thread.run_sync(lambda: broken_promises(run.database_url, quiet=False))
    lines = run.errors().splitlines()
    return problems + [
        "\n".join(lines[max(at - 1, 0) : at + 40]) for at, line in enumerate(lines) if line.startswith("Traceback")
    ]


def p99(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else max(values, default=0.0)


async def table(attacks: list[Attack]) -> tuple[list[str], list[str]]:
    """The page's lines, and what was wrong."""
    outcomes: list[Outcome] = []
    async with hostile_run() as run, trio.open_nursery() as nursery:
        neighbours = Neighbours(run)
        nursery.start_soon(neighbours.talk)
        while neighbours.turns < 20 * NEIGHBOURS:  # noqa: ASYNC110
            await trio.sleep(0.05)
        for attack in attacks:
            outcome = await attacked(run, attack, neighbours, quiet=QUIET_SECONDS, seconds=ATTACK_SECONDS)
            outcomes.append(outcome)
            print(_row(outcome, outcome.quiet), *outcome.problems, sep="\n  ", file=sys.stderr)
        problems = await audited(run)
        nursery.cancel_scope.cancel()
    quiet = [seconds for outcome in outcomes for seconds in outcome.quiet]
    for outcome in outcomes:
        problems += [f"{outcome.attack.habit}: {problem}" for problem in outcome.problems]
        if p99(outcome.during) > RATIO * p99(quiet):
            problems.append(f"{outcome.attack.habit}: its neighbours' p99 is more than {RATIO:g} times the quiet one")
    facts = {"cpus": os.cpu_count(), "neighbours": NEIGHBOURS, "ratio": RATIO, "number": len(quiet)}
    lines = [_TOP.format(p50=median(quiet) * 1e3, p99=p99(quiet) * 1e3, **facts)]
    lines += [_row(outcome, quiet) for outcome in outcomes]
    return [*lines, ""], problems


def _row(outcome: Outcome, quiet: list[float]) -> str:
    during = outcome.during
    return (
        f"| {outcome.attack.what} | `{outcome.told}` | {outcome.attack.bounded_by} | {len(outcome.seconds)} "
        f"| {median(outcome.seconds):.2f} s | {'none' if not outcome.problems else '**something**'} "
        f"| {median(during) * 1e3:.1f} ms | {p99(during) * 1e3:.1f} ms | {p99(during) / p99(quiet):.1f} times |"
    )


_TOP = """# Hostile workers

Made by `python -m tests.hostile_workers`; the same attacks are tests. Each is made by a worker of a type of its own
under a real `lobu run` with its embedded Postgres, whose client shares the machine's {cpus} CPUs with it. Workers have
users of their own and `memory_mb = 128`, `processes = 64`. Meanwhile {neighbours} neighbours talk, one turn after
another. In peace, before each attack, their turns took {p50:.1f} ms at the median and {p99:.1f} ms at p99, over
{number} turns; the bound for an attack is {ratio:g} times that p99.

"Time" is from the message, or an attack's first one, to the terminal event; the median where it was repeated. Left over
means processes and workspaces, after its conversation was ended. `lobu audit` is asked at the end.

| what the worker does | its turn ends with | bounded by | times | time | left over | p50 | p99 | of the quiet p99 |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main() -> int:
    wanted = sys.argv[2:]
    lines, problems = trio.run(table, [attack for attack in ATTACKS if not wanted or attack.habit in wanted])
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text("\n".join(lines))
    print("\n".join(problems) if problems else f"{len(ATTACKS)} attacks, all bounded")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
