"""Where a control group is delegated, each worker has one of its own, and all that is in it ends with the worker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.spawner.cgroups import Cgroups, delegated, own_group
from tests.system.lobu_process import until


@pytest.fixture
def group() -> Iterator[Path]:
    """A delegated group with this process, and so the spawner that it starts, in it."""
    before = own_group()
    if before is None:
        pytest.skip("this machine has no control groups of version 2")
    made = before / f"lobu-test-{os.getpid()}"
    try:
        made.mkdir()
        os.setxattr(made, "user.delegate", b"1")
        (made / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        with suppress(OSError):
            made.rmdir()
        pytest.skip(f"control groups cannot be made here: {error}")
    try:
        yield made
    finally:
        (before / "cgroup.procs").write_text(str(os.getpid()))
        with suppress(OSError):
            (made / "cgroup.kill").write_text("1")
        for left in made.glob("worker-*"):
            left.rmdir()
        made.rmdir()


async def test_a_worker_is_in_a_group_of_its_own_which_goes_with_it(group, host, wait_for_end):
    one, other = await host.ready(), await host.ready()
    await host.start("absent").gone()  # a worker is told of before it is in its group; the next one is not
    groups = [group / f"worker-{client.worker.worker_id}" for client in (one, other)]
    pids = [[int(pid) for pid in (made / "cgroup.procs").read_text().split()] for made in groups]
    assert [one.pid in pids[0], other.pid in pids[1]] == [True, True]
    grandchild = int(await one.reply("spawn session"))
    assert str(grandchild) in (groups[0] / "cgroup.procs").read_text().split(), "whatever session it made"
    one.worker.kill()
    await one.gone()
    await wait_for_end(grandchild)
    await until(lambda: not groups[0].exists(), "its group is removed")
    assert groups[1].exists()
    assert await other.reply("still here") == "still here"


def test_groups_that_a_dead_spawner_left_are_ended(group):
    left = group / "worker-left"
    left.mkdir()
    pid = os.fork()
    if pid == 0:
        os.execv("/bin/sleep", ["sleep", "1000"])
    (left / "cgroup.procs").write_text(str(pid))
    cgroups = Cgroups(delegated())
    cgroups.end_left_over()
    assert os.waitpid(pid, 0)[1] == 9
    cgroups.sweep()
    assert not left.exists()


def test_nothing_is_done_where_nothing_is_delegated():
    assert delegated() is None, "the tests themselves run in no delegated group"
    cgroups = Cgroups(None)
    cgroups.enter("w", 1)
    cgroups.end("w")
    cgroups.sweep()
    cgroups.end_left_over()
