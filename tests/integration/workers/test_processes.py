"""What must not be left behind, leak out or leak in: processes, descriptors, environment, memory."""

# ruff: noqa: ASYNC240 - it reads /proc, which never blocks
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import trio
from msgspec.structs import replace

from lobu_actors.contract.frames import Complete, Delta, Steer
from lobu_actors.conversation.worker_port import Gone, WorkerFrames, WorkerGone, WorkerReady
from supervisor.spawner import protocol
from supervisor.spawner.connection import MISSED_PINGS, Connection
from supervisor.spawner.protocol import Spawn
from tests.integration.workers.conftest import PATIENCE, PATIENT
from tests.system.lobu_process import until


@pytest.mark.parametrize("place", ["", "group", "session"])
@pytest.mark.parametrize("end", ["killed", "crashed", "shutdown"])
async def test_grandchildren_end_with_the_worker(host, wait_for_end, is_alive, place, end):
    client = await host.ready()
    grandchild = int(await client.reply(f"spawn {place}"))
    assert is_alive(grandchild)
    if end == "killed":
        client.worker.kill()
    elif end == "crashed":
        client.turn("crash")
    else:
        client.worker.shutdown(1000)
    await client.gone()
    await wait_for_end(grandchild)


async def test_a_grandchild_of_one_worker_survives_the_end_of_another(host, is_alive, wait_for_end):
    one, other = await host.ready(), await host.ready()
    grandchild = int(await one.reply("spawn session"))
    other.worker.kill()
    await other.gone()
    # The spawner has swept by the time that it answers again.
    third = await host.ready()
    assert is_alive(grandchild)
    third.worker.kill()
    one.worker.kill()
    await one.gone()
    await wait_for_end(grandchild)


async def test_a_daemon_with_a_scrubbed_environment_ends_too(host, script, wait_for_end):
    name = script(
        "daemonizer",
        """
say("ready")
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(writer, str(os.getpid()).encode())
        os.execve("/bin/sleep", ["sleep", "1000"], {})
    os._exit(0)
os.wait()
say("delta", runId="run-1", text=os.read(reader, 20).decode())
hear()
""",
    )
    client = await host.ready(name)
    (delta,) = (await client.next()).frames
    client.worker.kill()
    await client.gone()
    await wait_for_end(int(delta.text))


async def test_a_grandchild_that_holds_the_socket_does_not_delay_the_end(host, script, wait_for_end):
    name = script(
        "holder",
        """
import subprocess
say("ready")
link.set_inheritable(True)
child = subprocess.Popen(["sleep", "1000"], close_fds=False, start_new_session=True, env={})
say("delta", runId="run-1", text=str(child.pid))
os._exit(5)
""",
    )
    client = await host.ready(name)
    (delta,) = (await client.next()).frames
    gone = await client.gone()
    assert (gone.reason, gone.exit_code) == (Gone.EXITED, 5)
    await wait_for_end(int(delta.text))


async def test_spawner_killed(host, is_alive, wait_for_end):
    clients = [await host.ready() for _ in range(3)]
    clients[1].turn("hang")
    grandchild = int(await clients[2].reply("spawn session"))
    old = host.link.pid
    os.kill(old, signal.SIGKILL)
    for client in clients:
        assert (await client.gone()).reason == Gone.SPAWNER_LOST
        await wait_for_end(client.pid)
        await client.assert_nothing_more()
    await wait_for_end(grandchild)
    again = await host.ready()
    assert host.link.pid != old
    assert len(host.link_failures) == 1
    assert await again.reply("works") == "works"


@pytest.mark.parametrize("silent_seconds", [4.0])  # real: a spawner that merely waits for its turn is silent for less
async def test_a_spawner_that_stands_still_is_replaced(host, wait_for_end):
    client = await host.ready()
    client.turn("hang")
    old = host.link.pid
    os.kill(old, signal.SIGSTOP)
    waiting = host.start()
    assert (await client.gone()).reason == Gone.SPAWNER_LOST
    await wait_for_end(client.pid)
    await wait_for_end(old)
    # What was asked of it while nobody knew is lost with it.
    assert (await waiting.gone()).reason == Gone.SPAWNER_LOST
    assert await (await host.ready()).reply("works") == "works"
    assert host.link.pid != old
    assert len(host.link_failures) == 1


@pytest.mark.parametrize("silent_seconds", [4.0])
async def test_a_spawner_that_answers_is_left_alone(host, monkeypatch):
    pongs = 0
    take = Connection._take

    def count(self: Connection, reply: protocol.Reply, descriptors: list[int]) -> None:
        nonlocal pongs
        pongs += isinstance(reply, protocol.Pong)
        take(self, reply, descriptors)

    monkeypatch.setattr(Connection, "_take", count)
    client, pid = await host.ready(), host.link.pid
    await until(lambda: pongs > MISSED_PINGS, "more answers than may be missing")
    assert await client.reply("still here") == "still here"
    assert (host.link.pid, host.link_failures) == (pid, [])


async def test_the_next_spawner_knows_how_long_its_host_is_trusted(host, tmp_path):
    """It would hear of it with the next renewal, which does not come when the database is away meanwhile."""
    await host.ready()
    old = host.link.pid
    host.link.trust(time.monotonic())
    os.kill(old, signal.SIGKILL)
    with trio.fail_after(PATIENCE):
        while host.link.pid in (None, old):  # noqa: ASYNC110 - another task replaces it
            await trio.sleep(0.01)
        process = await host.link.spawn(Spawn("w", ["sleep", "1000"], {}, str(tmp_path), "of a conversation"))
        while psutil.Process(process.pid).status() != "stopped":  # noqa: ASYNC110 - another process does it
            await trio.sleep(0.01)
    process.close()


async def test_spawner_killed_with_workers_that_do_not_look(host, script, wait_for_end):
    name = script("deaf", "import time\nsay('ready')\nlink.detach()\nwhile True: time.sleep(1000)\n")
    client = await host.ready(name)
    os.kill(host.link.pid, signal.SIGKILL)
    assert (await client.gone()).reason == Gone.SPAWNER_LOST
    await wait_for_end(client.pid)


async def test_a_start_during_the_spawners_restart_waits(host):
    pid = host.link.pid
    os.kill(pid, signal.SIGKILL)
    client = host.start()
    signal_ = await client.next()
    # It was asked for just before or just after the loss was noticed.
    assert isinstance(signal_, WorkerReady) or signal_.reason == Gone.SPAWNER_LOST


async def test_closed_link_ends_spawner_and_workers(host, script, wait_for_end):
    name = script("deaf", "import time\nsay('ready')\nwhile True: time.sleep(1000)\n")
    client = await host.ready(name)
    spawner = host.link.pid
    # What the kernel does when a supervisor dies.
    host.link._connection._link.shutdown(2)
    await wait_for_end(client.pid)
    await wait_for_end(spawner)
    assert (await client.gone()).reason == Gone.SPAWNER_LOST


async def test_sigterm_ends_spawner_and_workers(host, wait_for_end):
    client = await host.ready()
    client.turn("hang")
    spawner = host.link.pid
    os.kill(spawner, signal.SIGTERM)
    assert (await client.gone()).reason in (Gone.EXITED, Gone.SPAWNER_LOST)
    await wait_for_end(spawner)
    await wait_for_end(client.pid)


async def test_ctrl_c_does_not_reach_spawner_or_worker(host):
    client = await host.ready()
    os.kill(host.link.pid, signal.SIGINT)
    assert os.getsid(host.link.pid) == host.link.pid
    assert os.getsid(client.pid) == os.getpgid(client.pid) == client.pid
    assert await client.reply("fine") == "fine"
    await host.ready()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_no_descriptor_is_left_of_100_workers(host):
    await (await host.ready()).reply("warm up")
    before = descriptors(os.getpid()), descriptors(host.link.pid)
    for _ in range(10):
        clients = [host.start("quits" if number % 2 else "echo") for number in range(10)]
        for client in clients[::2]:
            await client.ready()
            client.worker.kill()
        for client in clients:
            await client.gone()
    last = await host.ready()  # the spawner has cleaned up after the ones before when it answers
    last.worker.kill()
    await last.gone()
    await host.start("absent").gone()
    assert descriptors(os.getpid()) <= before[0]
    assert descriptors(host.link.pid) <= before[1]


async def test_descriptors_signals_and_streams_of_a_worker_are_clean(host, script):
    name = script(
        "introspect",
        """
say("ready")
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
own = {}
for name in os.listdir("/proc/self/fd"):
    try:
        own[name] = os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        pass  # of the listing itself
signals = {key: status[key].strip() for key in ("SigBlk", "SigIgn")}
say("delta", runId="r", text=json.dumps([signals, own, os.getcwd()]))
hear()
""",
    )
    client = await host.ready(name)
    (delta,) = (await client.next()).frames
    signals, own, folder = json.loads(delta.text)
    assert int(signals["SigBlk"], 16) == 0
    # Python itself ignores SIGPIPE (13) and SIGXFSZ (25); 32 and 33 are the C library's own, which posix_spawn (make
    # uses it) leaves ignored and which no program can set.
    assert int(signals["SigIgn"], 16) & ~(1 << 12 | 1 << 24 | 0b11 << 31) == 0
    assert own["0"] == "/dev/null"
    assert own["1"] == own["2"]
    assert own["1"].startswith("pipe:")
    assert own["3"].startswith("socket:")
    assert {number for number in own if int(number) > 3} == set()
    assert folder == host.workspaces.of(client.worker.request.ref).path


async def test_the_environment_has_only_what_is_listed(host, monkeypatch):
    monkeypatch.setenv("PLANTED_SECRET", "planted-secret-value")
    monkeypatch.setenv("DATABASE_URL", "postgres://planted-secret-value")
    host.worker_env = {"EXTRA": "1", "LOBU_SESSION_STORE": "file"}
    client = await host.ready()
    environment = json.loads(await client.reply("env"))
    environment.pop("LC_CTYPE", None)  # Python's own
    assert set(environment) == {
        *("PATH", "LANG", "HOME", "EXTRA", "WORKSPACE_DIR", "DISPATCHER_URL", "WORKER_TOKEN"),
        *("LOBU_WORKER_FD", "LOBU_WORKER_ID"),
    }
    assert b"planted-secret-value" not in Path(f"/proc/{host.link.pid}/environ").read_bytes()


class TestStalled:
    @pytest.fixture
    def limits(self):
        return replace(PATIENT, send_buffer_bytes=1024 * 1024)

    async def test_a_worker_that_does_not_read_is_ended(self, host, script):
        name = script("stuck", "import time\nsay('ready')\nwhile True: time.sleep(1000)\n")
        client = await host.ready(name)
        content = "x" * 100_000
        for _ in range(100):
            client.worker.send(Steer(run_id="r", message_id="m", content=content))
            assert client.worker._writer.pending_bytes <= 1024 * 1024
        gone = await client.gone()
        assert gone.reason == Gone.STALLED

    async def test_a_slow_reader_gets_everything_in_order(self, host, script):
        name = script(
            "slow",
            """
import time
say("ready")
hear()
got = [hear()["content"] for _ in range(30)]
say("delta", runId="r", text=json.dumps([[text[0], len(text)] for text in got]))
hear()
""",
        )
        client = await host.ready(name)
        client.turn("go")
        for number in range(30):
            client.worker.send(Steer(run_id="r", message_id="m", content=chr(65 + number) * 30_000))
        (delta,) = (await client.next()).frames
        assert json.loads(delta.text) == [[chr(65 + number), 30_000] for number in range(30)]


async def test_a_hello_larger_than_the_sockets_buffer(host, script):
    name = script("big", "say('ready')\nsay('delta', runId='r', text=str(len(hello['settings']['x'])))\nhear()\n")
    client = host.start(name, settings={"x": "y" * 2_000_000})
    await client.ready()
    assert (await client.next()).frames[0].text == "2000000"


async def test_output_waits_for_a_slow_receiver_and_none_is_lost(host):
    send, receive = trio.open_memory_channel(0)
    client = host.start(deliver=send.send)
    words = 50_000
    with trio.fail_after(60):
        assert isinstance(await receive.receive(), WorkerReady)
        client.turn(f"stream {words}")
        found = []
        while not found or not isinstance(found[-1], Complete):
            signal_ = await receive.receive()
            assert isinstance(signal_, WorkerFrames)
            found += signal_.frames
    assert [frame.text for frame in found if isinstance(frame, Delta)] == [f"word{n} " for n in range(words)]
    client.worker.kill()
    assert isinstance(await receive.receive(), WorkerGone)


async def test_a_worker_is_killed_at_once_though_its_receiver_waits(host, wait_for_end):
    send, receive = trio.open_memory_channel(0)
    client = host.start(deliver=send.send)
    ready = await receive.receive()
    client.turn("stream 1000000")
    client.worker.kill()
    await wait_for_end(ready.pid)
    while not isinstance(await receive.receive(), WorkerGone):
        pass


async def test_stdout_is_a_log_and_a_flood_of_it_blocks_nobody(host, script):
    client = await host.ready()
    assert await client.reply("print some words") == "printed"
    flood = "say('ready')\nhear()\nfor _ in range(3000): print('x' * 1000)\nsay('complete', runId='run-1')\n"
    name = script("loud", flood)
    loud = await host.ready(name)
    loud.turn("x")
    await loud.frames_until(Complete)
    assert await client.reply("fine") == "fine"


def test_the_spawner_never_imports_trio():
    program = (
        "import sys, supervisor.spawner.__main__; print([n for n in sys.modules if n.startswith(('trio', 'attr'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_spawner_says_what_is_wrong_with_its_arguments():
    for arguments in ([], ["--folder", "x", "--listen-fd", "y"], ["--folder", "x", "--listen-fd", "0"]):
        command = [sys.executable, "-m", "supervisor.spawner", *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "spawner" in done.stderr
