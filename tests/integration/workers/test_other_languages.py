"""Any program can be a worker: a two-turn conversation with one in bash and one in Node."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lobu_actors.conversation.worker_port import Gone
from supervisor.workers.types import WorkerType

PROGRAMS = Path(__file__).parents[2] / "workers"


@pytest.mark.parametrize(("interpreter", "program"), [("bash", "bash_worker.sh"), ("node", "node_worker.mjs")])
async def test_two_turns(host, interpreter, program):
    if shutil.which(interpreter) is None:
        pytest.skip(f"{interpreter} is not installed here")
    host.types["other"] = WorkerType("other", (interpreter, str(PROGRAMS / program)))
    client = await host.ready("other")
    assert await client.reply("one") == "before: nothing, now: one"
    assert await client.reply("two words") == "before: one, now: two words"
    client.worker.shutdown(1000)
    gone = await client.gone()
    assert (gone.reason, gone.exit_code) == (Gone.EXITED, 0)
