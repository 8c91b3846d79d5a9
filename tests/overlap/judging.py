"""What must hold of what clients were told and of what workers did, beside what the database says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import psycopg
import trio

from tests.overlap.talks import Life, Talk, every
from tests.system.lobu_process import LobuRun
from tests.system.sse_client import Client, Transcript

_OWED = """
SELECT 'owed', turn_id, conversation_id FROM turn_marker WHERE conversation_id NOT LIKE '%\\_watcher\\_%'
UNION ALL SELECT 'live', run_id, conversation_id FROM run
WHERE status = 'live' AND conversation_id NOT LIKE '%\\_watcher\\_%'
"""


async def replay(life: Life, run: LobuRun, seconds: float) -> list[str]:
    """What a client that comes now is told, against what the one that was there all the time knows."""
    again = Transcript()
    there = life.conversation.through(Client(run.url, run.admin_key))
    with trio.move_on_after(seconds):
        await again.follow(there, lambda: life.transcript.terminals.keys() <= again.terminals.keys())
    found = [f"replay: {fault}" for fault in again.faults]
    if {name: frame.data for name, frame in again.terminals.items()} != {
        name: frame.data for name, frame in life.transcript.terminals.items()
    }:
        found.append(f"{life.conversation.key}: the log replayed has other ends than were told")
    return found


def histories(life: Life) -> list[str]:
    """A session holds what completed since it began anew: of each run what was asked and a reply, and nothing else."""
    found: list[str] = []
    runs: set[tuple[str, ...]] = set()
    least = most = 0
    for frame in life.transcript.frames:
        if frame.event != "complete":
            continue
        together = tuple(frame.data["processedMessageIds"])
        sent = life.sent.get(together[0])
        if sent is None or sent.content == "/new":
            least = most = 0
        elif together not in runs:
            runs.add(together)
            if sent.content == "history" and len(together) == 1 and not least <= int(frame.data["finalText"]) <= most:
                found.append(
                    f"{together[0]}: {frame.data['finalText']} messages are in the session, not {least}-{most}"
                )
            least, most = least + 2, most + len(together) + 1  # what was merged is asked each; what steers is not
    return found


def heard_wrong(talks: Sequence[Talk]) -> list[str]:
    """What readers and callers were told that does not fit."""
    found = [fault for talk in talks for fault in talk.faults]
    for life in every(talks):
        lies = life.conversation.key.startswith("fuzzing")  # a worker that says another text at the end
        found += [
            f"{life.conversation.key}: {fault}"
            for fault in life.transcript.faults
            if not (lies and fault.endswith("is not how its finalText begins"))
        ]
        found += [] if lies else histories(life)
        found += [f"{len(told)} answers to {name} were taken" for name, told in life.answers.items() if len(told) > 1]
        found += [
            f"{name} ended and was never said to be accepted"
            for name, sent in life.sent.items()
            if name in life.transcript.terminals and sent.accepted_at is None
        ]
    return found


def owed(url: str) -> list[str]:
    """What is not done, but for watchers, who go on all the while."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(_OWED).fetchall()
    return [f"a turn that is owed or live still: {row}" for row in rows]


def worked_at_once(hosts: Sequence[LobuRun]) -> dict[str, str]:
    """By conversation and message: two workers that were at it at the same time, by the stamps of `all_manners`."""
    acted: dict[str, list[tuple[float, float, str]]] = {}
    for run in hosts:
        folder = run.folder / ".lobu" / "workspaces"
        for path in folder.rglob("stamps-*"):
            with suppress(OSError):  # its conversation was deleted meanwhile
                if stamps := [float(line) for line in path.read_text().split()]:
                    name, pid = path.name.removeprefix("stamps-").rsplit("-", 1)
                    whose = f"{path.parent.relative_to(folder)}/{name}"
                    acted.setdefault(whose, []).append((stamps[0], stamps[-1], f"{pid} of {run.folder.name}"))
    return {
        name: f"{name} was worked at by {one[2]} until {one[1]:.3f} and by {other[2]} from {other[0]:.3f}"
        for name, workers in acted.items()
        for one, other in pairwise(sorted(workers))
        if other[0] < one[1]
    }
