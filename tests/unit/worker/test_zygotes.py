"""When there is a zygote, and for how long: the set of them, without workers. The zygotes are real processes."""

from __future__ import annotations

import os
import select
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.spawner import zygotes as module
from supervisor.spawner.launch import Launched
from supervisor.spawner.protocol import ZYGOTE, Preload, Spawn
from supervisor.spawner.records import Records
from supervisor.spawner.zygotes import Zygotes

ARGV = [sys.executable, "-P", "-m", "lobu_actors.agents.echo"]
PATIENCE = 20.0


class World:
    """Stands for the loop, but for the reaping of workers: here they are never ordered from a zygote that answers."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.selector = selectors.DefaultSelector()
        self.records = Records(folder)
        self.executed: list[str] = []
        self.notices: list[str] = []
        self.zygotes = Zygotes(
            self.selector,
            self.records,
            fork_done=self.fork_done,
            notice=self.notices.append,
            output=lambda name, text, dropped: None,
        )

    def fork_done(self, request: Spawn, launched: Launched | None) -> None:
        assert launched is None
        self.executed.append(request.worker_id)

    def until(self, holds: Callable[[], Any]) -> None:
        give_up_at = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < give_up_at
            for key, events in self.selector.select(0.01):
                key.data(events)
            self.zygotes.expire()
            self.reap()

    def reap(self) -> None:
        for pid in list(self.zygotes.leaders):
            how = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if how is not None:
                self.zygotes.ended(pid, how.si_code, how.si_status)
                os.waitpid(pid, 0)

    def parked(self) -> list[str]:
        programs = self.zygotes._programs.values()
        return [p.env.get("N", "") for p in programs if p.zygote is not None and p.zygote.parked]

    def spawn(self, worker_id: str, **env: str) -> bool:
        return self.zygotes.spawn(Spawn(worker_id, ARGV, {"PATH": "/bin", **env}, "/", kind=ZYGOTE))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path / "records")
    yield found
    found.zygotes.end()
    for pid in list(found.zygotes.leaders):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    found.reap()
    assert found.zygotes.leaders == {}
    assert found.records.read() == []
    assert found.selector.get_map() == {}


def test_the_first_spawn_is_executed_and_brings_a_zygote(world):
    assert not world.spawn("one")
    assert not world.spawn("two")
    assert len(world.zygotes.leaders) == 1
    world.until(world.parked)
    assert [record.worker_id for record in world.records.read()] == list(world.zygotes.leaders.values())


def test_what_differs_from_worker_to_worker_makes_no_other_zygote(world):
    for number in range(3):
        world.spawn(f"w{number}", HOME=str(number), WORKSPACE_DIR=str(number), WORKER_TOKEN=str(number))
    assert len(world.zygotes.leaders) == 1
    world.spawn("other", SETTING="other")
    assert len(world.zygotes.leaders) == 2


def test_the_least_used_one_goes_and_those_to_be_kept_stay(world, monkeypatch):
    monkeypatch.setattr(module, "MAX_PROGRAMS", 3)
    world.zygotes.preload(Preload(ARGV, {"PATH": "/bin", "N": "kept"}))
    for name in ("a", "b", "a", "c"):
        world.spawn(name, N=name)
    world.until(lambda: sorted(world.parked()) == ["a", "c", "kept"])
    world.until(lambda: len(world.zygotes.leaders) == 3)


def test_an_unused_one_ends_unless_it_is_to_be_kept(world, monkeypatch):
    world.zygotes.preload(Preload(ARGV, {"PATH": "/bin", "N": "kept"}))
    world.spawn("one", N="unused")
    world.until(lambda: sorted(world.parked()) == ["kept", "unused"])
    assert 0 < world.zygotes.patience() <= module.UNUSED_SECONDS
    monkeypatch.setattr(module, "UNUSED_SECONDS", 0.0)
    assert world.zygotes.patience() == 0
    world.until(lambda: world.parked() == ["kept"] and len(world.zygotes.leaders) == 1)
    assert world.zygotes.patience() is None
    world.zygotes.forget_preloads()
    world.until(lambda: not world.zygotes.leaders)
    assert world.notices == []


def test_a_program_that_never_comes_to_serve(world, monkeypatch):
    monkeypatch.setattr(module, "PARK_SECONDS", 0.3)
    world.zygotes.preload(Preload(["sleep", "1000"], {"PATH": "/bin:/usr/bin"}))
    world.until(lambda: world.notices and not world.zygotes.leaders)
    told = "Workers of `sleep 1000` are executed, not forked: it did not come to `serve` within 0.3 s."
    assert world.notices == [told]


def test_an_unfit_program_is_tried_again_later_and_told_again_only_for_another_reason(world, monkeypatch, tmp_path):
    script = tmp_path / "script.sh"

    def try_with(code: int, unfit_seconds: float) -> None:
        monkeypatch.setattr(module, "UNFIT_SECONDS", unfit_seconds)
        script.write_text(f"exit {code}")
        assert not world.zygotes.spawn(Spawn("w", ["sh", str(script)], {"PATH": "/bin"}, "/", kind=ZYGOTE))
        world.until(lambda: not world.zygotes.leaders)

    for code, unfit_seconds in ((4, 0.0), (4, 0.0), (5, 60.0)):
        try_with(code, unfit_seconds)
    assert [notice.rpartition("exit code ")[2] for notice in world.notices] == [
        "4 before it came to `serve`.",
        "5 before it came to `serve`.",
    ]
    world.zygotes.spawn(Spawn("w", ["sh", str(script)], {"PATH": "/bin"}, "/", kind=ZYGOTE))
    assert not world.zygotes.leaders  # it is too early for another try


def test_a_program_that_is_not_there(world):
    world.zygotes.preload(Preload(["/no/such/program"], {}))
    assert world.notices == [
        "Workers of `/no/such/program` are executed, not forked: The program '/no/such/program' was not found."
    ]


def test_orders_beyond_what_its_socket_holds_wait_and_are_executed_when_it_dies(world):
    world.spawn("first")
    world.until(world.parked)
    (pid,) = world.zygotes.leaders
    os.killpg(pid, signal.SIGSTOP)
    ids = [f"w{number}" for number in range(100)]
    assert all(world.spawn(worker_id, LARGE="x" * 20_000) is False for worker_id in ids[:1])  # another environment
    assert all(world.spawn(worker_id) for worker_id in ids)
    assert world.zygotes.ordered == set(ids)
    before = len(os.listdir("/proc/self/fd"))
    os.killpg(pid, signal.SIGKILL)
    world.until(lambda: world.executed)
    assert world.executed == ids
    assert world.zygotes.ordered == set()
    assert len(os.listdir("/proc/self/fd")) <= before - 32


def test_an_order_that_is_not_answered_is_executed_after_a_while(world, monkeypatch):
    monkeypatch.setattr(module, "FORK_SECONDS", 0.2)
    world.spawn("first")
    world.until(world.parked)
    (pid,) = world.zygotes.leaders
    os.killpg(pid, signal.SIGSTOP)
    assert world.spawn("one")
    assert world.zygotes.patience() <= 0.2
    world.until(lambda: world.executed == ["one"])
    assert "did not answer for 0.2 s and was replaced" in world.notices[0]


def test_a_zygote_ends_when_the_other_end_of_its_socket_closes(world):
    world.spawn("first")
    world.until(world.parked)
    (pid,) = world.zygotes.leaders
    pidfd = os.pidfd_open(pid)
    (program,) = world.zygotes._programs.values()
    program.zygote.close_link()
    assert select.select([pidfd], [], [], PATIENCE)[0]
    os.close(pidfd)
    how = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert (how.si_code, how.si_status) == (os.CLD_EXITED, 0)
