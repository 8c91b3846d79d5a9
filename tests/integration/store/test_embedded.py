"""The embedded server's life, for real: new data, stop and start, crashes, leftovers, two at once."""

import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from lobu_actors.store.driver import open_connection
from lobu_actors.store.embedded import EmbeddedServer, find_programs, running_url
from lobu_actors.store.errors import EmbeddedServerError, StoreUnavailable
from lobu_actors.store.postmaster import processes_of, read_pid_file
from lobu_actors.store.server_files import SOCKET_PREFIX


async def ask(url, statement=b"SELECT 1"):
    connection = await open_connection(url, timeout_seconds=10)
    try:
        return await connection.fetch(statement, None, timeout_seconds=10, write=True)
    finally:
        connection.close_now()


async def until(found):
    """What `found()` gives once it is something."""
    for _ in range(30_000):
        if it := found():
            return it
        await trio.sleep(0.001)
    raise AssertionError("it did not come")


@pytest.fixture
async def servers():
    """Makes servers that are stopped afterwards, whatever happened."""
    made = []

    def make(folder, **options):
        made.append(EmbeddedServer(folder, **options))
        return made[-1]

    yield make
    for server in made:
        await server.stop("immediate")


def pgdata(folder: Path) -> Path:
    return folder / ".lobu" / "pgdata"


def new_clusters(folder: Path) -> list[Path]:
    """What is or was being made."""
    return list((folder / ".lobu").glob("pgdata.new*"))


def groups_of_makers(folder: Path) -> set[int]:
    """The process groups of what makes a cluster just now; each of these processes is short-lived."""
    groups = set()
    for cluster in new_clusters(folder):
        for pid in processes_of(cluster):
            with suppress(ProcessLookupError):
                groups.add(os.getpgid(pid))
    return groups


async def test_new_stop_start_again(servers, server_folder):
    said = []
    server = servers(server_folder, on_progress=said.append)
    with pytest.raises(EmbeddedServerError, match="not running"):
        _ = server.url
    await server.start()
    assert any("making a new database" in sentence for sentence in said)
    await ask(server.url, b"CREATE TABLE t AS SELECT 7 AS x")
    assert await ask(server.url, b"SHOW listen_addresses") == [("",)]
    assert await ask(server.url, b"SHOW fsync") == [("on",)]
    assert running_url(server_folder) == server.url
    with pytest.raises(EmbeddedServerError, match="already"):
        await server.start()
    await server.stop()
    await server.stop()
    assert processes_of(pgdata(server_folder)) == []
    assert running_url(server_folder) is None
    said.clear()
    await server.start()
    assert said == []
    assert await ask(server.url, b"SELECT x FROM t") == [(7,)]


async def test_nobody_else_may_enter(servers, server_folder):
    server = servers(server_folder)
    await server.start()
    found = read_pid_file(pgdata(server_folder))
    for folder in (found.socket_dir, pgdata(server_folder)):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    owner = os.stat(f"/proc/{server.pid}").st_uid
    assert owner != 0
    assert pgdata(server_folder).stat().st_uid == owner
    assert os.getpgid(server.pid) == server.pid


async def test_a_deep_folder_gets_its_socket_elsewhere(servers, server_folder):
    deep = server_folder / ("d" * 60) / ("e" * 60)
    server = servers(deep)
    await server.start()
    socket_dir = read_pid_file(pgdata(deep)).socket_dir
    assert socket_dir.name.startswith(SOCKET_PREFIX)
    assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert await ask(server.url) == [(1,)]
    await server.stop()
    assert not socket_dir.exists()


async def test_a_killed_server_is_seen_and_restarted(servers, server_folder):
    server = servers(server_folder)
    await server.start()
    await ask(server.url, b"CREATE TABLE t AS SELECT 7 AS x")
    url = server.url
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                assert await server.wait_exit() == -signal.SIGKILL
                await server.restart()

            nursery.start_soon(watch)
            os.kill(server.pid, signal.SIGKILL)
    assert server.url == url
    assert await ask(url, b"SELECT x FROM t") == [(7,)]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_restarting_ends_sessions_and_keeps_data(servers, server_folder, mode):
    server = servers(server_folder)
    await server.start()
    await ask(server.url, b"CREATE TABLE t AS SELECT 7 AS x")
    connection = await open_connection(server.url, timeout_seconds=10)
    await server.restart(mode)
    with pytest.raises(StoreUnavailable):
        await connection.fetch(b"SELECT 1", None, timeout_seconds=10, write=False)
    assert await ask(server.url, b"SELECT x FROM t") == [(7,)]


KILLED = """
import os, signal, sys, trio
from pathlib import Path
from lobu_actors.store.embedded import EmbeddedServer

async def main():
    server = EmbeddedServer(Path(sys.argv[1]))
    await server.start()
    print(server.url, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

trio.run(main)
"""


@pytest.fixture
async def left(server_folder):
    """The pid and the url of a server whose starter was killed."""
    life = await trio.run_process(
        [sys.executable, "-c", KILLED, str(server_folder)], capture_stdout=True, check=False, stdin=subprocess.DEVNULL
    )
    assert life.returncode == -signal.SIGKILL
    pid, url = read_pid_file(pgdata(server_folder)).pid, life.stdout.decode().strip()
    assert pid in processes_of(pgdata(server_folder))
    await ask(url, b"CREATE TABLE t AS SELECT 7 AS x")
    return pid, url


async def test_the_server_of_a_killed_life_goes_on(servers, server_folder, left):
    pid, url = left
    session = await open_connection(url, timeout_seconds=10)
    said = []
    server = servers(server_folder, on_progress=said.append)
    await server.start()
    assert (server.pid, server.url, server.running) == (pid, url, True)
    assert any(f"pid {pid}" in sentence for sentence in said)
    await session.fetch(b"SELECT 1", None, timeout_seconds=10, write=False)
    session.close_now()
    await server.stop()
    assert not server.running
    assert processes_of(pgdata(server_folder)) == []
    await server.start()
    assert server.pid != pid
    assert await ask(server.url, b"SELECT x FROM t") == [(7,)]


async def test_a_server_that_went_on_is_watched_and_restarted(servers, server_folder, left):
    pid, url = left
    server = servers(server_folder)
    await server.start()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                assert await server.wait_exit() is None
                await server.restart()

            nursery.start_soon(watch)
            os.kill(pid, signal.SIGKILL)
    assert (server.pid != pid, server.url) == (True, url)
    assert await ask(url, b"SELECT x FROM t") == [(7,)]


async def test_a_server_that_was_started_otherwise_is_stopped_first(servers, server_folder, left):
    pid, _ = left
    said = []
    server = servers(server_folder, settings={"work_mem": "8MB"}, on_progress=said.append)
    await server.start()
    assert server.pid != pid
    assert any(f"stopped a server (pid {pid})" in sentence for sentence in said)
    assert await ask(server.url, b"SHOW work_mem") == [("8MB",)]
    assert await ask(server.url, b"SELECT x FROM t") == [(7,)]


async def test_a_server_that_takes_nobody_any_more_is_stopped_first(servers, server_folder, left):
    pid, url = left
    session = await open_connection(url, timeout_seconds=10)
    os.kill(pid, signal.SIGTERM)  # ends when the last session has, and takes no other
    with trio.fail_after(10):
        while True:
            try:
                await ask(url)
            except StoreUnavailable:
                break
            await trio.sleep(0.01)
    server = servers(server_folder)
    await server.start()
    assert server.pid != pid
    session.close_now()
    assert await ask(server.url, b"SELECT x FROM t") == [(7,)]


@pytest.mark.parametrize("whose", ["dead", "another program's"])
async def test_a_stale_pid_file_is_removed(servers, server_folder, whose):
    server = servers(server_folder)
    await server.start()
    found = (pgdata(server_folder) / "postmaster.pid").read_text().splitlines()
    await server.stop()
    dead = await trio.run_process([sys.executable, "-c", "import os; print(os.getpid())"], capture_stdout=True)
    found[0] = dead.stdout.decode().strip() if whose == "dead" else str(os.getpid())
    (pgdata(server_folder) / "postmaster.pid").write_text("\n".join(found) + "\n")
    assert running_url(server_folder) is None
    await server.start()
    assert await ask(server.url) == [(1,)]


async def test_a_pid_file_that_names_no_process_is_removed(servers, server_folder):
    """As a power failure may leave one: the server itself would refuse to start beside it."""
    server = servers(server_folder)
    await server.start()
    for content in ("", "0\n", "what is this\n", "\0" * 64):
        await server.stop()
        (pgdata(server_folder) / "postmaster.pid").write_text(content)
        await server.start()
    assert await ask(server.url) == [(1,)]


async def test_a_copy_of_a_folder_leaves_the_server_of_the_other_alone(servers, server_folder):
    deep, copy = server_folder / ("d" * 100), server_folder / ("c" * 100)
    server, other = servers(deep), servers(copy)
    await server.start()
    await trio.run_process(["cp", "-a", deep, copy])
    await other.start()
    assert other.url != server.url
    assert await ask(other.url) == [(1,)]
    assert await ask(server.url) == [(1,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server has another user")
async def test_a_folder_that_lies_behind_a_link(servers, server_folder):
    server = servers(server_folder)
    await server.start()
    for linked in (".lobu/pgdata", ".lobu"):
        await server.stop()
        behind = server_folder / f"another disk {len(linked)}"
        behind.mkdir(mode=0o700)
        (server_folder / linked).rename(behind / "moved")
        (server_folder / linked).symlink_to(behind / "moved")
        server = servers(server_folder)
        await server.start()
    assert await ask(server.url) == [(1,)]


async def test_two_processes_do_not_share_a_folder(servers, server_folder):
    first, second = servers(server_folder), servers(server_folder)
    await first.start()
    with pytest.raises(EmbeddedServerError, match=f"pid {os.getpid()}"):
        await second.start()
    await second.stop()
    assert await ask(first.url) == [(1,)]
    await first.stop()
    await second.start()


async def test_half_a_cluster_is_made_again(servers, server_folder):
    half = server_folder / ".lobu" / "pgdata.new-1" / "base"
    half.mkdir(parents=True)
    server = servers(server_folder)
    await server.start()
    assert await ask(server.url) == [(1,)]
    assert not half.exists()


async def test_who_was_killed_while_he_made_the_cluster_is_not_in_the_way(servers, server_folder):
    """What he had started for that goes on for a while, and cleans up after itself where it was told to work."""
    life = await trio.lowlevel.open_process([sys.executable, "-c", KILLED, server_folder], stdout=subprocess.DEVNULL)
    try:
        await until(lambda: list(server_folder.glob(".lobu/pgdata.new*/PG_VERSION")))
    finally:
        life.kill()
        await life.wait()
    server = servers(server_folder)
    await server.start()
    assert await ask(server.url, b"SELECT count(*) > 0 FROM pg_ts_config WHERE cfgname = 'yiddish'") == [(True,)]
    assert new_clusters(server_folder) == []


async def test_a_folder_that_holds_something_else_is_left_alone(servers, server_folder):
    (pgdata(server_folder)).mkdir(parents=True)
    (pgdata(server_folder) / "letters.txt").write_text("dear")
    with pytest.raises(EmbeddedServerError, match="something else; move it away"):
        await servers(server_folder).start()
    assert new_clusters(server_folder) == []


async def test_a_failed_start_says_why_and_leaves_nothing(servers, server_folder):
    (server_folder / ".lobu").mkdir()
    (server_folder / ".lobu" / "postgres.log").write_text("an earlier life's\n")
    server = servers(server_folder, settings={"shared_buffers": "nonsense"})
    with pytest.raises(EmbeddedServerError, match=r"(?s)postgres\.log.*nonsense") as failed:
        await server.start()
    assert "earlier" not in str(failed.value)
    assert processes_of(pgdata(server_folder)) == []
    await servers(server_folder).start()


async def test_a_start_that_takes_too_long(servers, server_folder):
    server = servers(server_folder)
    await server.start()
    await server.stop()
    slow = servers(server_folder, start_timeout_seconds=0)
    with pytest.raises(EmbeddedServerError, match="within 0 s"):
        await slow.start()
    assert processes_of(pgdata(server_folder)) == []


async def test_a_cancelled_start_leaves_nothing(servers, server_folder):
    server = servers(server_folder)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.start)
        groups = await until(lambda: groups_of_makers(server_folder))
        assert os.getpgid(0) not in groups, "a terminal's Ctrl-C is not for what makes the cluster"
        nursery.cancel_scope.cancel()
    with pytest.raises(EmbeddedServerError):
        _ = server.url
    assert processes_of(pgdata(server_folder)) == []
    assert new_clusters(server_folder) == []
    await server.start()
    assert await ask(server.url) == [(1,)]


async def test_a_folder_that_cannot_be_used(servers, server_folder):
    (server_folder / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match="cannot be used"):
        await servers(server_folder / "file").start()


def test_the_programs_are_there():
    assert (find_programs() / "initdb").exists()
