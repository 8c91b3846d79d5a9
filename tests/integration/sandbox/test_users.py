"""Users of their own for workers, when the supervisor is root: what they cannot reach, and what root still can."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lobu_actors.conversation.worker_port import Gone
from supervisor.workspaces import ownership
from tests.integration.workers.conftest import Client
from tests.sandbox_world import PYTHON, UIDS, ContainedHost, contained_host
from tests.system.lobu_process import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a worker a user of its own")
WHO = "import os\nprint(*os.getresuid(), *os.getresgid(), os.getgroups())"


def _make(host: ContainedHost) -> None:
    host.make("own", own_user=True)
    host.make("supervisors", own_user=False)


async def _start(host: ContainedHost, like: Client | None = None, worker: str = "own") -> Client:
    """A worker; of the same conversation as another one's."""
    client = host.client()
    request = host.request(worker) if like is None else like.worker.request
    client.worker = host.workers.start(request, client.send.send)
    await client.ready()
    return client


async def _end(client: Client) -> None:
    client.worker.kill()
    await client.gone()


def _folder(host: ContainedHost, client: Client) -> Path:
    return Path(host.workspaces.of(client.worker.request.ref).path)


@pytest.fixture
def more_groups() -> Iterator[None]:
    """The supervisor is in a group that workers must not be in."""
    before = os.getgroups()
    os.setgroups([4])
    yield
    os.setgroups(before)


@pytest.mark.usefixtures("more_groups")
async def test_each_living_worker_has_a_uid_of_its_own_and_no_way_back() -> None:
    async with contained_host(_make) as host:
        one, other = await _start(host), await _start(host)
        uids = [(await host.run(client, WHO)).split() for client in (one, other)]
        for words in uids:
            assert len(set(words[:6])) == 1
            assert words[6:] == ["[]"]
            assert UIDS.first <= int(words[0]) < UIDS.first + UIDS.count
        assert uids[0] != uids[1]
        assert "PermissionError" in await host.run(one, "import os\nos.setuid(0)")
        status = await host.run(one, "print([l for l in open('/proc/self/status') if l.startswith('NoNewPrivs')])")
        assert "1" in status
        plain = await _start(host, worker="supervisors")
        assert (await host.run(plain, WHO)).startswith("0 0 0")


async def test_workers_cannot_reach_each_other_nor_the_supervisors_files() -> None:
    async with contained_host(_make) as host:
        one, other = await _start(host), await _start(host)
        for name in ("admin_key", "jwt_keys", "lock"):
            path = host.folder / name
            path.write_text("secret")
            path.chmod(0o600)
        await host.run(other, "open('secret', 'w').write('x')\nimport os\nos.chmod('.', 0o700)")
        theirs = _folder(host, other)
        tries = [
            f"open('{theirs}/secret')",
            f"os.listdir('{theirs}')",
            f"os.listdir('{host.workspaces.path}')",
            f"os.listdir('{host.folder}')",
            *(f"open('{host.folder}/{name}')" for name in ("admin_key", "jwt_keys", "lock")),
            f"os.listdir('{host.folder}/spawner')",
            f"os.kill({other.pid}, 9)",
            f"open('/proc/{other.pid}/environ').read()",
            f"open('/proc/{os.getpid()}/environ').read()",
        ]
        for attempt in tries:
            assert "PermissionError" in await host.run(one, f"import os\n{attempt}"), attempt


async def test_the_next_worker_of_a_conversation_finds_its_files_and_the_supervisor_reads_and_empties_them() -> None:
    async with contained_host(_make) as host:
        first = await _start(host)
        await host.run(
            first, "import os\nos.makedirs('kept/deep', 0o700)\nopen('kept/deep/a', 'w').write('1')\nprint(os.getuid())"
        )
        await _end(first)
        folder = _folder(host, first)
        await until(lambda: folder.stat().st_uid == 0, "it is closed")
        assert folder.stat().st_mode & 0o077 == 0
        # The same uid again: only the folder changes hands.
        second = await _start(host, first)
        before = (folder / "kept/deep/a").stat().st_uid
        assert folder.stat().st_uid == before != 0
        # So for one that starts while its predecessor is on its way out.
        third = await _start(host, first)
        await _end(second)
        assert folder.stat().st_uid == before, "the third one lives here"
        await _end(third)
        await until(lambda: folder.stat().st_uid == 0, "it is closed")
        # Nobody knows whose it is: all of it is given, to a uid that is not in use.
        os.chown(folder, 0, 0)
        folder.chmod(0o700)
        third = await _start(host, first)
        assert (folder / "kept/deep/a").stat().st_uid == folder.stat().st_uid not in (0, before)
        assert await host.run(third, "open('kept/deep/a', 'a').write('2')\nprint(open('kept/deep/a').read())") == "12"
        workspace = host.workspaces.of(first.worker.request.ref)
        await workspace.write_session(b"{}\n")
        await workspace.append_input("in", b"x", 0)
        told = "print(open('.openclaw/session.jsonl').read(), open('input/in').read())"
        assert await host.run(third, told) == "{}\n x"
        await host.run(third, "import os\nos.mkdir('temp/a', 0)\nopen('output/o', 'w').write('o')")
        await workspace.prepare()
        assert os.listdir(folder / "temp") == os.listdir(folder / "output") == []
        await _end(third)
        await until(lambda: folder.stat().st_uid == 0, "it is closed")
        # What the supervisor makes while nobody works there is the next worker's, too.
        (folder / "temp").rmdir()
        await workspace.prepare()
        fourth = await _start(host, first)
        assert await host.run(fourth, "open('temp/t', 'w')\nprint('writes')") == "writes"
        await _end(fourth)
        await workspace.remove()
        assert not folder.exists()


async def test_a_hard_link_to_a_foreign_file_does_not_give_the_file_away() -> None:
    async with contained_host(_make) as host:
        client = await _start(host)
        await _end(client)
        folder = _folder(host, client)
        await until(lambda: folder.stat().st_uid == 0, "it is closed")
        foreign = host.folder / "foreign"
        foreign.write_text("root's")
        os.link(foreign, folder / "planted")  # as a kernel without protected_hardlinks would let it
        os.symlink(foreign, folder / "link")
        os.chown(folder, 0, 0)
        os.chmod(folder, 0o700)  # makes the next start give all of it to a user
        again = await _start(host, client)
        assert (folder / "temp").stat().st_uid != 0
        assert foreign.stat().st_uid == 0
        assert "PermissionError" in await host.run(again, "open('planted', 'a')")


def test_a_workspace_nested_too_deep_is_not_given_away_and_no_descriptor_is_lost(tmp_path: Path) -> None:
    """A supervisor with few descriptors would otherwise run out of them."""
    deep = "/".join("d" * 300)
    os.makedirs(tmp_path / deep)
    top = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ownership.TooDeep, match="nested more than 100 deep"):
        ownership.give(top, UIDS.first, time.monotonic() + 60)
    with pytest.raises(TimeoutError):
        ownership.give(top, UIDS.first, time.monotonic() - 1)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert os.fstat(top).st_uid == 0, "nobody's until all of it is given"
    os.close(top)


async def test_what_another_user_cannot_reach_runs_as_the_supervisor_unless_a_user_was_demanded(tmp_path: Path) -> None:
    closed = tmp_path / "program.py"

    def make(host: ContainedHost) -> None:
        closed.write_bytes(host.program.read_bytes())
        tmp_path.chmod(0o700)
        command = (PYTHON, str(closed))
        host.make("automatic", command=command)
        host.make("demanded", command=command, own_user=True)
        host.make("own")

    async with contained_host(make) as host:
        automatic = await _start(host, worker="automatic")
        assert (await host.run(automatic, WHO)).startswith("0 0 0")
        demanded = host.start("demanded")
        gone = await demanded.gone()
        assert gone.reason == Gone.NOT_STARTED
        assert f"cannot reach {closed}" in gone.detail
        assert not (await host.run(await _start(host), WHO)).startswith("0 ")


async def test_what_a_dead_supervisor_left_open_is_closed_except_for_adopted_workers() -> None:
    async with contained_host(_make) as host:
        folders = [Path(host.workspaces.ensure(host.request().ref)[0]) for _ in range(2)]
        for number, folder in enumerate(folders):
            os.chown(folder, UIDS.first + 60 + number, UIDS.first + 60 + number)
        kept, left = folders
        host.containment.adopt("adopted", "own", kept.name)
        host.containment.settle()
        assert (kept.stat().st_uid, left.stat().st_uid) == (UIDS.first + 60, 0)
        host.containment.release("adopted")
        assert kept.stat().st_uid == 0
