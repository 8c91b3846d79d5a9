"""A log that cannot be written is no reason to stop: its disk is full, its reader is gone, or there never was one."""

from __future__ import annotations

import pytest

from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO

# Its reader ends at once.
GONE = 'mkfifo "$TMPDIR/log"; : < "$TMPDIR/log" & exec 3> "$TMPDIR/log"; rm "$TMPDIR/log"; wait; exec "$@" 2>&3 3>&-'


@pytest.mark.parametrize("shell", ['exec "$@" 2> /dev/full', 'exec "$@" 2>&-', GONE], ids=["full", "closed", "gone"])
async def test_a_log_that_cannot_be_written(start_run: Start, shell: str) -> None:
    run = await start_run(config=ECHO, prefix=("sh", "-c", shell, "sh"))
    assert (await (await client_of(run).open()).ask("crash")).event == "agent-error", "which is logged"
    assert (await (await client_of(run).open()).ask("hello")).event == "complete"
    assert await run.stop() == 0
    assert run.processes() == []
