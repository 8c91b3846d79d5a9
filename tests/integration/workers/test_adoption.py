"""The spawner and its workers outlive their supervisor; the next one finds all that the wire and the disk can tell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
import structlog.testing
import trio
from msgspec.structs import replace

from lobu_actors.contract.frames import Complete, Delta
from lobu_actors.contract.ids import ConversationRef
from supervisor.spawner.launch import started_at
from supervisor.spawner.link import SOCKET_NAME
from supervisor.spawner.program import RECORDS_NAME
from supervisor.spawner.protocol import Spawn
from supervisor.workers.probes import ENVIRONMENT, run_probe
from tests.integration.workers.lives import PATIENCE, Context, MortalLink, life
from tests.system.lobu_process import until as until_within

PIPE_BYTES = 65_536
OTHER = ConversationRef("org", "agent", "conversation-2")


@pytest.fixture
def types(script, host):
    script(
        "deaf",
        "say('ready', protocol=1, name='deaf', version='1', capabilities=['reattach'])\nimport time\ntime.sleep(1000)",
    )
    script(
        "prints",
        """
say('ready', protocol=1, name='prints', version='1', capabilities=['reattach'])
import time
while True:
    print('x' * 100, flush=True)
    time.sleep(0.001)
""",
    )
    return host.types


@pytest.fixture
def lives(tmp_path, types):
    return partial(life, tmp_path / "lives", types)


async def until(condition):
    await until_within(condition, "what the test waits for", PATIENCE)


def words(number):
    return "".join(f"word{n} " for n in range(number))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


async def test_what_was_written_while_nobody_read_is_not_lost(lives):
    async with lives() as first:
        run = await first.begin("echo", "stream 60 5")
        await first.frames_until(Delta)
        spawner = first.link.pid
        first.die()
    await trio.sleep(0.2)
    async with lives() as second:
        assert second.link.pid == spawner
        assert second.adopt(run)
        assert await second.text_until(Complete) == words(60)
        assert [info.pid for info in second.workers.snapshot()] == [run.worker_pid]


async def test_past_the_sockets_buffer_a_worker_waits_and_goes_on(lives, is_alive):
    async with lives() as first:
        run = await first.begin("echo", "stream 30000")
        await first.frames_until(Delta)
        first.die()
    used = [-1.0]

    def is_blocked():
        """It needs no processor any more; looked at every 0.3 s at most."""
        time.sleep(0.3)
        used.append(sum(psutil.Process(run.worker_pid).cpu_times()[:2]))
        return used[-1] == used[-2]

    await until(is_blocked)
    assert is_alive(run.worker_pid)
    async with lives() as second:
        assert second.adopt(run)
        assert await second.text_until(Complete) == words(30000)


@pytest.mark.parametrize("read_bytes", [1, 17, 60])
async def test_half_a_line_that_died_with_its_reader_is_left_out(lives, read_bytes):
    async with lives() as first:
        run = await first.begin("echo", "stream 200 2")
        await first.frames_until(Delta)
        first.die(read_bytes=read_bytes)
    async with lives() as second:
        assert second.adopt(run)
        assert await second.text_until(Complete) == words(200)


async def test_a_worker_in_its_handshake_is_ended(lives, wait_for_end):
    async with lives() as first:
        worker = first.start("mute")
        await until(lambda: worker.pid)
        pid = worker.pid
        first.die()
    async with lives():
        await wait_for_end(pid)


async def test_a_worker_that_was_sent_half_a_frame_is_ended(lives, wait_for_end):
    async with lives() as first:
        run = await first.begin("deaf", "x" * 3_000_000)
        await until(lambda: first.link._connection.processes and first.worker._flushing)
        first.die()
    async with lives() as second:
        await wait_for_end(run.worker_pid)
        assert not second.adopt(run)


async def test_a_worker_that_ended_while_nobody_was_there_is_no_more(lives, tmp_path, wait_for_end):
    async with lives() as first:
        run = await first.begin("echo", "sleep 1000")
        first.die()
    os.kill(run.worker_pid, signal.SIGKILL)
    await wait_for_end(run.worker_pid)
    records = tmp_path / "lives" / "spawner" / RECORDS_NAME
    await until(lambda: os.listdir(records) == ["spawner"])  # the spawner, too, has seen it
    async with lives() as second:
        assert not second.adopt(run)


async def test_another_process_with_the_workers_number_is_not_adopted(lives, wait_for_end):
    async with lives() as first:
        run = await first.begin("echo", "sleep 1000")
        first.die()
    async with lives() as second:
        assert not second.adopt(replace(run, worker_started_at=run.worker_started_at + 1))
        await wait_for_end(run.worker_pid)


async def test_log_output_while_nobody_is_there_is_counted_and_dropped(lives):
    async with lives() as first:
        run = await first.begin("prints", "")
        spawner = first.link.pid
        first.die()
    before = psutil.Process(spawner).memory_info().rss
    worker = psutil.Process(run.worker_pid)
    written = worker.io_counters().write_chars
    await until(lambda: worker.io_counters().write_chars > written + PIPE_BYTES + 30_000)
    assert psutil.Process(spawner).memory_info().rss < before + 4_000_000
    with structlog.testing.capture_logs() as logs:
        async with lives() as second:
            assert second.adopt(run)
            await until(lambda: any(line["event"] == "worker.output" for line in logs))
    dropped = [line["bytes"] for line in logs if line["event"] == "worker.output_dropped"]
    assert dropped
    assert dropped[0] > 10_000, "what does not fit into the pipe was read by the spawner"


async def test_supervisors_that_follow_within_milliseconds(lives):
    async with lives() as first:
        run = await first.begin("echo", "stream 300 2")
        await first.frames_until(Delta)
        first.die()
    for _ in range(5):
        async with lives() as short:
            short.die()
    async with lives() as last:
        assert last.adopt(run)
        assert await last.text_until(Complete) == words(300)


async def test_the_next_supervisor_can_test_what_it_needs_while_workers_are_frozen(lives, tmp_path):
    """Where several hosts are, the workers freeze when their supervisor dies, and go on only once the next is a host;
    what that one tries before, without a label, must not stand still with them."""
    run = lambda name, label: Spawn(name, ["sleep", "1000"], {}, str(tmp_path), label)  # noqa: E731
    async with lives() as first:
        worker = await first.link.spawn(run("a", "of a conversation"))
        first.link.trust(time.monotonic() + 1000)
        first.die()
    await until_within(lambda: psutil.Process(worker.pid).status() == "stopped", "it is frozen", PATIENCE)
    link = MortalLink(tmp_path / "lives" / "spawner")
    async with trio.open_nursery() as nursery:
        context = Context()
        nursery.start_soon(link.run, context)
        await context.up.wait()
        how, said = await run_probe(
            link, Spawn("b", ["sh", "-c", "sleep 0.3; printf reached >&3"], dict(ENVIRONMENT), str(tmp_path))
        )
        assert (how.exit_code, said) == (0, b"reached")
        later, kept = await link.spawn(run("c", "of another")), await link.spawn(run("d", ""))
        assert psutil.Process(kept.pid).status() != "stopped"
        link.relabel("d", "given to a conversation")
        for process in (worker, later, kept):
            await until_within(lambda: psutil.Process(process.pid).status() == "stopped", "frozen", PATIENCE)  # noqa: B023
        for process in (worker, later, kept, *link.take_running()):
            process.close()
        context.stopping.set()


async def test_what_a_dead_supervisor_had_asked_for_is_done(lives, tmp_path, wait_for_end):
    """It was in the link's buffer when the supervisor died."""
    sleeping = partial(Spawn, argv=["sleep", "1000"], env={}, cwd=str(tmp_path))
    async with lives() as first:
        kept, ended = await first.link.spawn(sleeping("a")), await first.link.spawn(sleeping("b"))
        os.kill(first.link.pid, signal.SIGSTOP)
        first.link.relabel("a", "told at the last moment")
        first.link.kill("b")
        spawner = first.link.pid
        first.die()
    os.kill(spawner, signal.SIGCONT)
    await wait_for_end(ended.pid)
    link = MortalLink(tmp_path / "lives" / "spawner")
    async with trio.open_nursery() as nursery:
        context = Context()
        nursery.start_soon(link.run, context)
        await context.up.wait()
        found = link.take_running()
        labels = {process.pid: process.label for process in found}
        assert labels[kept.pid] == "told at the last moment"
        context.stopping.set()
    for process in (kept, ended, *found):
        process.close()


async def test_workers_that_nobody_comes_for_are_ended(tmp_path, types, wait_for_end):
    async with life(tmp_path / "lives", types, abandon_seconds=0.5) as first:
        run = await first.begin("deaf", "")
        spawner = first.link.pid
        first.die()
    await wait_for_end(run.worker_pid)
    await wait_for_end(spawner)
    async with life(tmp_path / "lives", types) as second:
        assert second.link.pid != spawner
        assert not second.adopt(run)


def innocent():
    return subprocess.Popen(["sleep", "1000"], start_new_session=True)


async def test_what_outlives_its_spawner_is_ended_at_the_next_start(lives, tmp_path, wait_for_end, is_alive):
    async with lives() as first:
        first.start("echo", OTHER)
        await first.next()
        gentle = first.worker.pid
        run = await first.begin("deaf", "")
        spawner = first.link.pid
        first.die()
    os.kill(spawner, signal.SIGKILL)
    await wait_for_end(spawner)
    await wait_for_end(gentle)  # its socket ended
    assert is_alive(run.worker_pid)
    records = tmp_path / "lives" / "spawner" / RECORDS_NAME
    boot_id = json.loads(next(path for path in records.iterdir() if path.name != "spawner").read_text())[0]
    innocents = [innocent(), innocent()]
    try:
        other, same = innocents
        (records / "planted1").write_text(json.dumps([boot_id, other.pid, started_at(other.pid) + 5]))
        (records / "planted2").write_text(json.dumps(["another boot", same.pid, started_at(same.pid)]))
        (records / "planted3").write_text("no record")
        async with lives():
            await wait_for_end(run.worker_pid)
            assert all(is_alive(process.pid) for process in innocents)
            assert os.listdir(records) == ["spawner"]
    finally:
        for process in innocents:
            process.kill()
            process.wait()


CONNECT = """
import os, socket, sys
link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
link.settimeout(10)
link.connect(f"/proc/self/fd/{sys.argv[1]}/socket")
try:
    print(link.recv(1000))
except ConnectionResetError:
    print(b"")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
async def test_another_user_is_not_served(lives, tmp_path):
    async with lives() as only:
        run = await only.begin("echo", "sleep 0.5")
        folder = tmp_path / "lives" / "spawner"
        folder.chmod(0o755)  # as it should never be
        (folder / SOCKET_NAME).chmod(0o777)
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
        try:
            command = ["/usr/bin/env", "python3", "-c", CONNECT, str(descriptor)]
            answer = await trio.run_process(command, capture_stdout=True, user=65534, pass_fds=(descriptor,), cwd="/")
        finally:
            os.close(descriptor)
        assert answer.stdout == b"b''\n"
        assert run.worker_pid
        await only.frames_until(Complete)


OLD = """
from supervisor.spawner import __main__, protocol
protocol.PROTOCOL_VERSION -= 1
__main__.main()
"""


async def test_a_spawner_of_another_version_is_replaced(lives, tmp_path, wait_for_end):
    link = MortalLink(tmp_path / "lives" / "spawner", command=(sys.executable, "-P", "-c", OLD))
    await link._start()
    async with lives() as only:
        assert only.failures
        await wait_for_end(link.child.pid)
        assert only.link.pid != link.child.pid
        await only.begin("echo", "hello")
        await only.frames_until(Complete)
    await link.child.wait()


async def test_a_folder_with_a_long_path(tmp_path, types):
    folder = tmp_path / ("x" * 120) / ("y" * 120)
    async with life(folder, types) as first:
        run = await first.begin("echo", "stream 50 5")
        first.die()
    async with life(folder, types) as second:
        assert second.adopt(run)
        assert await second.text_until(Complete) == words(50)


async def test_a_hundred_adoptions_cost_no_descriptor(lives):
    async with lives() as first:
        run = await first.begin("echo", "stream 100000 20")
        await first.frames_until(Delta)
        first.die()
    counts = set()
    for _ in range(100):
        async with lives() as found:
            assert found.adopt(run)
            await found.text_until(Delta)
            counts.add((descriptors(os.getpid()), descriptors(found.link.pid)))
            found.die()
    async with lives():
        assert all(max(each) - min(each) < 20 for each in zip(*counts, strict=True)), counts
