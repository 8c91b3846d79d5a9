"""When there is nothing to fork from: unfit programs, changed code, zygotes that die or hang. Workers start anyway."""

# ruff: noqa: ASYNC240 - it reads /proc, which never blocks
from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from supervisor.spawner.protocol import Preload
from tests.workers.forking import PROGRAM, children_of, forked, is_forked, the_waiting, until, value, zygotes_of

UNFIT = {
    "thread": (
        "threading.Thread(target=time.sleep, args=(1000,), name='poller', daemon=True).start()",
        "its module starts 1 threads when imported (poller)",
    ),
    "socket": (
        "import socket; one, other = socket.socketpair()",
        "its module opens socket:",
    ),
    "file": ("log = open('/proc/self/status')", "when imported, which all workers would share"),
    "child": (
        "child = subprocess.Popen(['sleep', '1000'], stdout=-3, stderr=-3)",
        "its module starts a process when imported",
    ),
    "hook raises": (
        "def hook(): raise RuntimeError('no forks please')\nos.register_at_fork(after_in_child=hook)",
        "it breaks on fork: a fork exited with code 70",
    ),
    "hook of the parent raises": (
        "def hook(): raise RuntimeError('no forks please')\nos.register_at_fork(after_in_parent=hook)",
        "it breaks on fork: a fork hook failed: RuntimeError('no forks please')",
    ),
    "hook exits": (
        "os.register_at_fork(after_in_child=lambda: os._exit(3))",
        "it breaks on fork: a fork exited with code 3",
    ),
    "hook crashes": (
        "os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGSEGV))",
        "it breaks on fork: a fork was ended by signal 11",
    ),
    "hook hangs": (
        "os.register_at_fork(after_in_child=lambda: time.sleep(1000))",
        "it breaks on fork: a fork was not ready within 5 s",
    ),
    "hangs at its end": (
        "import atexit; atexit.register(lambda: 'LOBU_ZYGOTE_FD' in os.environ or time.sleep(6))",
        "it breaks on fork: a fork did not end within 5 s when it was told to end",
    ),
    "needs its own environment": (
        "workspace = os.environ['WORKSPACE_DIR']",
        "it ended with exit code 1 before it came to `serve`: KeyError: 'WORKSPACE_DIR'",
    ),
}


@pytest.mark.parametrize("what", UNFIT)
async def test_an_unfit_program_is_executed_and_that_is_said_once(host, program, notices, what, wait_for_end):
    body, reason = UNFIT[what]
    path = program(body)
    first = await host.ready("zygote")
    await until(notices)
    assert reason in notices()[0]
    assert notices()[0].startswith(f"Workers of `{sys.executable} {path}` are executed, not forked: ")
    await until(lambda: not zygotes_of(host))
    for client in (first, *[await host.ready("zygote") for _ in range(2)]):
        assert not await is_forked(client)
        client.worker.kill()
        await client.gone()
    assert len(notices()) == 1
    await until(lambda: not children_of(host.link.pid))


async def test_a_program_that_cannot_be_imported(host, tmp_path, program, notices):
    program("import no_such_module")
    gone = await host.start("zygote").gone()
    assert "exited with code 1" in gone.detail
    await until(notices)
    assert "before it came to `serve`: ModuleNotFoundError: No module named 'no_such_module'" in notices()[0]


async def test_changed_code_runs_in_the_next_worker(host, program, notices):
    path = program("version = 1")
    old = await forked(host)
    path.write_text(PROGRAM.format(body="version = 2"))
    await trio.sleep(0.6)  # it looks at files each half second at most
    client = await host.ready("zygote")
    assert not await is_forked(client)
    assert await value(client, "version") == 2
    new = await forked(host)
    assert await value(new, "version") == 2
    assert await value(old, "version") == 1
    assert len(zygotes_of(host)) == 1
    assert notices() == []


async def test_a_changed_module_counts_as_the_program_does(host, program, tmp_path):
    module = tmp_path / "its_module.py"
    module.write_text("version = 1")
    program("import its_module")
    assert await value(await forked(host), "its_module.version") == 1
    module.write_text("version = 20")
    await trio.sleep(0.6)
    assert await value(await host.ready("zygote"), "its_module.version") == 20
    assert await value(await forked(host), "its_module.version") == 20


async def test_what_is_written_while_it_is_loaded_may_not_be_what_is_loaded(host, program, notices, tmp_path):
    program("import pathlib; pathlib.Path(__file__).touch()")
    await host.ready("zygote")
    await until(notices)
    assert "program.py was changed while it was loaded" in notices()[0]


async def test_sighup_brings_new_zygotes_and_another_try_for_unfit_ones(host, program, tmp_path, notices):
    data = tmp_path / "data"
    data.write_text("old")
    program(f"data = open({str(data)!r}).read()\nif data == 'unfit': kept = os.pipe()")
    client = await forked(host)
    assert await value(client, "data") == "old"
    before = zygotes_of(host)
    data.write_text("unfit")
    os.kill(host.link.pid, signal.SIGHUP)
    await until(notices)
    assert not await is_forked(await host.ready("zygote"))
    data.write_text("new")
    os.kill(host.link.pid, signal.SIGHUP)
    assert await value(await forked(host), "data") == "new"
    assert zygotes_of(host) != before
    assert await value(client, "data") == "old"


async def test_a_killed_zygote_is_replaced_and_the_next_worker_executed(host, program, wait_for_end):
    program()
    old = await forked(host)
    (zygote,) = zygotes_of(host)
    waiting = await the_waiting(host)
    spawner = host.link.pid
    os.kill(spawner, signal.SIGSTOP)  # it is asked for a worker before it can have another zygote
    os.kill(zygote, signal.SIGKILL)
    await wait_for_end(zygote)
    client = host.start("zygote")
    await until(lambda: client.worker.worker_id in host.link._connection._pending)
    os.kill(spawner, signal.SIGCONT)
    await client.ready()
    assert not await is_forked(client)
    await wait_for_end(waiting)
    assert await value(await forked(host), "born") not in (zygote, client.pid)
    assert await value(old, "born") == zygote


async def test_a_zygote_killed_while_it_forks(host, program):
    program()
    await forked(host)
    for milliseconds in (0, 2, 4, 7):
        await forked(host)
        clients = [host.start("zygote") for _ in range(5)]
        await trio.sleep(milliseconds / 1000)
        for zygote in zygotes_of(host):
            os.kill(zygote, signal.SIGKILL)
        for client in clients:
            await client.ready()
        for client in clients:
            client.worker.kill()
            await client.gone()
    # Nothing was started twice: all that there is is a zygote, who waits, and the six workers that we let live.
    await forked(host)
    await until(lambda: len(children_of(host.link.pid)) == 8)


@pytest.mark.parametrize("both", [True, False])
async def test_a_hung_zygote_is_ended_and_the_worker_executed(host, program, notices, both, wait_for_end):
    program()
    await forked(host)
    (zygote,) = zygotes_of(host)
    waiting = await the_waiting(host)
    os.kill(waiting, signal.SIGSTOP)
    if both:
        os.kill(zygote, signal.SIGSTOP)
    client = await host.ready("zygote")
    assert not await is_forked(client)
    await wait_for_end(zygote)
    await wait_for_end(waiting)
    await until(notices)
    assert "did not answer for 2 s and was replaced" in notices()[0]
    await forked(host)


async def test_zygotes_end_with_their_spawner(host, program, wait_for_end):
    program()
    await forked(host)
    (zygote,) = zygotes_of(host)
    waiting = await the_waiting(host)
    os.kill(host.link.pid, signal.SIGKILL)
    await wait_for_end(zygote)
    await wait_for_end(waiting)


async def test_one_that_hangs_in_its_import_ends_with_its_spawner_too(host, program, wait_for_end):
    path = program("if 'LOBU_ZYGOTE_FD' in os.environ: time.sleep(1000)")
    host.link.preload([Preload([sys.executable, str(path)], {"PATH": "/bin"})])
    await until(lambda: zygotes_of(host))
    found = zygotes_of(host)
    assert not await is_forked(await host.ready("zygote"))
    os.kill(host.link.pid, signal.SIGKILL)
    await wait_for_end(found[0])


async def test_what_is_printed_on_import_is_logged_once(host, program):
    import structlog

    with structlog.testing.capture_logs() as logs:
        program("if 'LOBU_ZYGOTE_FD' in os.environ: print('loaded')")
        await forked(host)
        await forked(host)
        lines = [entry for entry in logs if entry["event"] == "worker.output" and entry["line"] == "loaded"]
    assert [line["worker_id"] for line in lines] == [f"zygote-{zygotes_of(host)[0]}"]
    assert Path(f"/proc/{zygotes_of(host)[0]}").exists()
