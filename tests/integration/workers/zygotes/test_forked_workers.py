"""Workers that are forked from a zygote: that they are, and that nothing tells them from executed ones."""

# ruff: noqa: ASYNC240 - it reads /proc, which never blocks
from __future__ import annotations

import ctypes  # noqa: F401 - for what a worker is asked and this process too
import os
import signal
import sys
from pathlib import Path

import pytest
import structlog
import trio
from msgspec.structs import replace

from lobu_actors.contract.frames import Complete, Fail
from lobu_actors.contract.ids import new_id
from lobu_actors.conversation.worker_port import Gone
from supervisor.spawner.protocol import ZYGOTE, Preload, Spawn
from supervisor.upkeep.process_audit import audit_processes
from supervisor.workers.service import WorkerProcesses
from supervisor.workers.types import WorkerLimits, WorkerType
from tests.integration.workers.conftest import PATIENCE, PATIENT
from tests.workers.forking import (
    children_of,
    environ_of,
    forked,
    is_forked,
    until,
    value,
    waiting_of,
    zygotes_of,
)


@pytest.fixture
def limits() -> WorkerLimits:
    return replace(PATIENT, max_workers=400)


def status_lines(pid: int, *names: str) -> dict[str, str]:
    lines = (line.partition(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: value.strip() for name, _, value in lines if name in names}


async def test_a_worker_is_forked_and_is_the_spawners_child_in_a_session_of_its_own(host, program):
    program()
    one, other = await forked(host), await forked(host)
    assert one.pid != other.pid
    assert await value(one, "born") == await value(other, "born") == zygotes_of(host)[0]
    for client in (one, other):
        assert await value(client, "[os.getpid(), os.getppid(), os.getsid(0), os.getpgrp()]") == [
            client.pid,
            host.link.pid,
            client.pid,
            client.pid,
        ]
        assert await value(client, "os.getcwd()") == await value(client, "os.environ['WORKSPACE_DIR']")


async def test_the_environment_is_the_one_that_an_executed_worker_has(host, program):
    host.worker_env.update(API_KEY="secret", EMPTY="", UMLAUT="ä=ö")
    program()
    for look in (
        "dict(os.environ)",
        "dict(line.split('=', 1) for line in open('/proc/self/environ').read().split(chr(0)) if line)",
        "dict(line.split('=', 1) for line in subprocess.run(['env'], capture_output=True, text=True)"
        ".stdout.splitlines() if not line.startswith('_='))",
        "{name: (ctypes.CDLL(None).getenv(name.encode()) != 0) for name in [*os.environ, 'LOBU_ZYGOTE_FD',"
        " 'LOBU_ZYGOTE_ROOM']}",
    ):
        found = [await value(client, look) for client in (await forked(host), await host.ready("exec"))]
        own = [[environment.pop(name) for name in ("LOBU_WORKER_ID", "WORKSPACE_DIR", "HOME", "WORKER_TOKEN")]
               for environment in found]  # fmt: skip
        assert found[0] == found[1]
        assert "LOBU_ZYGOTE_FD" not in found[0] or not found[0]["LOBU_ZYGOTE_FD"]
        if "getenv" not in look:
            assert all(one != other for one, other in zip(*own, strict=True))
            assert found[0]["API_KEY"] == "secret"


async def test_descriptors_signals_and_limits_are_those_of_an_executed_worker(host, program):
    program()
    by_fork, by_exec = await forked(host), await host.ready("exec")
    looks = [
        "{fd: os.readlink(f'/proc/self/fd/{fd}').split(':')[0] for fd in '0123'}",
        "sorted(map(int, os.listdir('/proc/self/fd')))[:-1]",  # the last one is the folder's own
        "signal.pthread_sigmask(signal.SIG_BLOCK, []).__len__()",
        "[str(signal.getsignal(s)) for s in sorted(signal.valid_signals()) if s not in (9, 19)]",
        # Not SigQ, which counts what all processes of the user have queued.
        "[line for line in open('/proc/self/status') if line[:5] in ('SigPn', 'SigBl', 'SigIg', 'SigCg')]",
        "[line for line in open('/proc/self/status') if line[:3] in ('Uid', 'Gid', 'NoN')]",
        "open('/proc/self/limits').read()",
        "len(threading.enumerate()) == len(os.listdir('/proc/self/task'))",
        "[sys.argv, sys.path[:2], __name__]",
    ]
    for look in looks:
        assert await value(by_fork, look) == await value(by_exec, look), look
    assert await value(by_fork, looks[1]) == [0, 1, 2, 3]


async def test_each_has_a_keyring_of_its_own(host, program):
    program()
    of_mine = "ctypes.CDLL(None).syscall({'x86_64': 250, 'aarch64': 219}[os.uname().machine], 0, -3, 0)"
    one, other = await forked(host), await forked(host)
    keyring = await value(one, of_mine)
    if keyring == -1:
        pytest.skip("no keys here")
    assert keyring != await value(other, of_mine)
    assert keyring != eval(of_mine)


async def test_random_numbers_are_each_workers_own(host, program):
    program(
        "import types\nsys.modules['numpy.random'] = types.SimpleNamespace(seed=lambda: seeded.append(os.getpid()))\n"
        "seeded = []\nrandom.seed(7)"
    )
    clients = [await forked(host) for _ in range(3)]
    assert len({await value(client, "random.random()") for client in clients}) == 3
    for client in clients:
        assert await value(client, "seeded") == [client.pid]


async def test_output_is_logged_as_the_workers(host, program):
    program()
    client = await forked(host)
    with structlog.testing.capture_logs() as logs:
        await client.reply("!print('out', flush=True); print('err', file=sys.stderr)")
        client.worker.kill()
        await client.gone()
        await until(lambda: sum(entry["event"] == "worker.output" for entry in logs) == 2)
    lines = {(entry["worker_id"], entry["line"]) for entry in logs if entry["event"] == "worker.output"}
    assert lines == {(client.worker.worker_id, "out"), (client.worker.worker_id, "err")}


@pytest.mark.parametrize("kind", ["zygote", "exec"])
async def test_ends_are_told_as_they_were(host, program, kind):
    program()
    for act, exit_code, number in (
        ("!os._exit(7)", 7, None),
        ("!os.kill(os.getpid(), signal.SIGSEGV)", None, signal.SIGSEGV),
        ("!os.kill(os.getpid(), signal.SIGTERM)", None, signal.SIGTERM),
    ):
        client = await forked(host) if kind == "zygote" else await host.ready(kind)
        client.turn(act)
        gone = await client.gone()
        assert (gone.reason, gone.exit_code, gone.signal) == (Gone.EXITED, exit_code, number)
    client = await forked(host) if kind == "zygote" else await host.ready(kind)
    client.worker.shutdown(10)
    assert (await client.gone()).exit_code == 0


async def test_asynchronous_handlers(host, tmp_path):
    path = tmp_path / "asynchronous.py"
    path.write_text(
        "import os, asyncio\nfrom lobu_actors.worker import serve\nborn = os.getpid()\n"
        "async def reply(turn):\n    await asyncio.sleep(0.001)\n    "
        "yield str(born if turn.content == 'born' else 'yes')\n"
        "serve(reply)"
    )
    host.types["zygote"] = WorkerType("zygote", (sys.executable, str(path)), zygote=True)
    client = await forked(host)
    assert await client.reply("really?") == "yes"


@pytest.mark.parametrize("scrubbed", [False, True])
async def test_what_a_forked_worker_leaves_behind_is_ended(host, program, wait_for_end, scrubbed):
    program()
    client = await forked(host)
    env = {} if scrubbed else None
    grandchild = await value(
        client, f"subprocess.Popen(['sleep', '1000'], start_new_session=True, env={env}, stdout=-3, stderr=-3).pid"
    )
    client.worker.kill()
    await client.gone()
    await wait_for_end(grandchild)
    await forked(host)


async def test_limits_and_user_of_a_request(host, program, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root gives a worker another user")
    path = program()
    await forked(host)
    environment = host.workers._environment_of(str(tmp_path), "token")
    spawn = Spawn(
        new_id(),
        [sys.executable, str(path)],
        environment,
        "/tmp",
        kind=ZYGOTE,
        limits={"RLIMIT_NOFILE": 64, "RLIMIT_CPU": 50},
        user=[12345, 23456],
    )
    with trio.fail_after(PATIENCE):
        process = await host.link.spawn(spawn)
    assert children_of(process.pid) == []
    found = status_lines(process.pid, "Uid", "Gid", "Groups", "NoNewPrivs", "CapEff")
    assert found == {
        "Uid": "\t".join(["12345"] * 4),
        "Gid": "\t".join(["23456"] * 4),
        "Groups": "",
        "NoNewPrivs": "1",
        "CapEff": "0" * 16,
    }
    shown = Path(f"/proc/{process.pid}/limits").read_text().splitlines()
    assert [line.split()[3:5] for line in shown if line.startswith("Max open files")] == [["64", "64"]]
    assert [line.split()[3:5] for line in shown if line.startswith("Max cpu time")] == [["50", "51"]]
    assert environ_of(process.pid)["LOBU_WORKER_ID"] == spawn.worker_id
    assert os.stat(f"/proc/{process.pid}").st_uid == 12345  # as dumpable as an executed one
    process.kill()
    with trio.fail_after(PATIENCE):
        await process.wait()
    process.close()


async def test_a_folder_that_is_not_there_is_told_as_for_an_execution(host, program):
    path = program()
    await forked(host)
    spawn = Spawn(new_id(), [sys.executable, str(path)], host.workers._environment_of("/", "t"), "/absent", kind=ZYGOTE)
    with trio.fail_after(PATIENCE), pytest.raises(Exception, match="The working folder '/absent' cannot be entered"):
        await host.link.spawn(spawn)


async def test_the_audit_counts_workers_and_not_their_zygote(host, program, tmp_path):
    program()
    clients = [await forked(host) for _ in range(2)]
    verdict = await audit_processes(tmp_path)
    assert verdict.leftovers == []
    assert verdict.checked["process"] == 2
    assert {environ_of(client.pid)["LOBU_WORKER_ID"] for client in clients} == {
        client.worker.worker_id for client in clients
    }


async def test_preloading_begins_before_the_first_worker_is_asked_for(host, program):
    program()
    workers = WorkerProcesses(host.link, host.types, host.workspaces, host.workers._environment_of)
    context = type(host.workers_context)()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workers.run, context)
        await until(lambda: waiting_of(host))
        assert await is_forked(await host.ready("zygote"))
        context.stopping.set()


async def test_300_at_once_and_nothing_left_of_them(host, program):
    program()
    await forked(host)
    await until(lambda: waiting_of(host))
    spawner = host.link.pid
    zygotes, descriptors, processes = (
        zygotes_of(host),
        len(os.listdir(f"/proc/{spawner}/fd")),
        len(children_of(spawner)),
    )
    clients = [host.start("zygote", startup_seconds=60) for _ in range(300)]
    for client in clients:
        await client.ready()
    assert len({client.pid for client in clients}) == 300
    await until(lambda: len(children_of(spawner)) == 303)  # with the zygote, the first one, and the one that waits
    for client in clients:
        client.worker.kill()
    for client in clients:
        await client.gone()
    again = await forked(host)
    again.worker.kill()
    await again.gone()
    await until(lambda: len(children_of(spawner)) == processes)
    await until(lambda: len(os.listdir(f"/proc/{spawner}/fd")) == descriptors)
    assert zygotes_of(host) == zygotes
    # Its socket, and the pipe of who waits, once it has seen the end of the fork between itself and that one.
    await until(lambda: len(os.listdir(f"/proc/{zygotes[0]}/fd")) == 5 and children_of(zygotes[0]) == [])


async def test_workers_that_end_do_not_end_those_that_are_being_forked(host, program):
    program()
    (await forked(host)).worker.kill()
    for _ in range(40):
        quick, slow = host.start("zygote"), host.start("zygote")
        await quick.ready()
        quick.worker.kill()  # the sweep at its end sees a child of the spawner that is nobody's yet
        await slow.ready()
        slow.worker.kill()
        await slow.gone()


async def test_workers_that_end_at_once(host, program, tmp_path, notices):
    """Their pid is told before their end, however the spawner comes to look."""
    import_of_serve = "import importlib; serving = importlib.import_module('lobu_actors.worker.serve')"
    flag = tmp_path / "flag"
    ends = f"os._exit(9 if born != os.getpid() else 10) if os.path.exists({str(flag)!r}) else worker(*given)"
    program(f"{import_of_serve}\nworker = serving.Worker\nserving.Worker = lambda *given: {ends}")
    await forked(host)
    flag.touch()
    for _ in range(20):
        clients = [host.start("zygote") for _ in range(10)]
        for client in clients:
            gone = await client.gone()
            assert (gone.exit_code, gone.signal) == (9, None), gone
    assert notices() == []


async def test_a_turn_that_fails_or_completes(host, program):
    program()
    client = await forked(host)
    client.turn("!raise Fail('QUOTA', 'no')")
    assert (await client.frames_until(Complete, Fail))[-1].code == "QUOTA"
    assert await value(client, "1 + 1") == 2


async def test_a_program_asked_for_by_a_preload_is_another_one_with_another_environment(host, program):
    path = program()
    await forked(host)
    host.link.preload([Preload([sys.executable, str(path)], {"PATH": "/bin", "NEW": "setting"})])
    await until(lambda: len(zygotes_of(host)) == 2)
    host.worker_env["NEW"] = "setting"
    client = await forked(host)
    assert await value(client, "os.environ['NEW']") == "setting"
    assert environ_of(await value(client, "born"))["NEW"] == "setting"
