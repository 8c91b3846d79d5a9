"""Short programs run through the spawner when the supervisor starts: what they say on a worker's descriptor, and how
they end. Owns the one that finds out what another user can reach."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from lobu_actors.contract.ids import new_id
from supervisor.spawner.connection import Exit, SpawnedProcess
from supervisor.spawner.link import SpawnerLink
from supervisor.spawner.protocol import Spawn
from supervisor.workers.environment import LANG, PATH

PROBE_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024
ENVIRONMENT = {"PATH": PATH, "LANG": LANG}
# Says the first path that cannot be used, and nothing when all can. Its first argument must be writable, too.
_REACH = """
cd "$1" 2>/dev/null && : 2>/dev/null > .reached && rm .reached || { printf %s "$1" >&3; exit; }
shift
for path; do
    if [ -d "$path" ]; then [ -r "$path" ] && [ -x "$path" ]; else [ -r "$path" ] || [ -x "$path" ]; fi ||
    { printf %s "$path" >&3; exit; }
done
"""


class ProbeFailed(Exception):
    """The program did not end in time."""


async def run_probe(link: SpawnerLink, spawn: Spawn) -> tuple[Exit, bytes]:
    """Run it to its end. Raises ProbeFailed, SpawnFailed, SpawnerLost. Nothing of it is left."""
    process: SpawnedProcess | None = None
    try:
        with trio.fail_after(PROBE_SECONDS):
            process = await link.spawn(spawn)
            answer = await _read(process)
            return await process.wait(), answer
    except trio.TooSlowError as error:
        raise ProbeFailed(f"the test did not end within {PROBE_SECONDS:g} s") from error
    finally:
        if process is not None:
            link.kill(spawn.worker_id)
            process.close()


async def first_unreachable(link: SpawnerLink, workspace: str, paths: Sequence[str], user: int) -> str | None:
    """The first of the paths that a user cannot use; `workspace` must be writable. Raises what `run_probe` does."""
    argv = ["/bin/sh", "-c", _REACH, "sh", workspace, *paths]
    how, said = await run_probe(link, Spawn(new_id(), argv, ENVIRONMENT, "/", user=[user, user]))
    if said:
        return said.decode(errors="replace")
    if how.exit_code != 0:
        raise ProbeFailed("the test of what its user can reach was ended")
    return None


async def _read(process: SpawnedProcess) -> bytes:
    answer = b""
    while len(answer) <= MAX_ANSWER_BYTES:
        await trio.lowlevel.wait_readable(process.socket)
        try:
            data = process.socket.recv(MAX_ANSWER_BYTES)
        except BlockingIOError:
            continue
        except ConnectionError:
            break
        if not data:
            break
        answer += data
    return answer
