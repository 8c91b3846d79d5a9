"""What a workspace may hold: measured as the disk has it, and emptied, all but the session, when it is too much."""

# ruff: noqa: ASYNC240 - the files under test are small and local
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.worker_port import Gone
from supervisor.upkeep.workspace_watch import WorkspaceWatch
from supervisor.workspaces.ownership import MAX_DEPTH
from supervisor.workspaces.usage import Quota
from supervisor.workspaces.workspace import HostWorkspaces
from tests.integration.workers.conftest import ChildContext, Host

REF = ConversationRef("org", "agent", "conversation")
KIB = 1024
QUOTA = Quota(max_bytes=1024 * KIB, max_files=120)


@pytest.fixture
def workspaces(tmp_path: Path) -> Iterator[HostWorkspaces]:
    found = HostWorkspaces(tmp_path / "workspaces", max_bytes=100 * KIB, quota=QUOTA)
    yield found
    found.close()


@pytest.fixture
def top(workspaces: HostWorkspaces) -> Path:
    return Path(workspaces.ensure(REF)[0])


def large(top: Path) -> None:
    (top / "large").write_bytes(b"x" * 1100 * KIB)


def many(top: Path) -> None:
    (top / "temp" / "folder").mkdir()
    for number in range(121):
        (top / "temp" / "folder" / str(number)).symlink_to("/")


def deep(top: Path) -> None:
    made = top
    for _ in range(MAX_DEPTH + 1):
        made /= "d"
        made.mkdir()


def hidden(top: Path) -> None:
    (top / "closed" / "inner").mkdir(parents=True)
    large(top / "closed" / "inner")
    (top / "closed" / "inner").chmod(0)
    (top / "closed").chmod(0)


@pytest.mark.parametrize(
    ("fill", "reason"),
    [
        (large, "more than 1048576 bytes"),
        (many, "more than 120 files"),
        (deep, "nested more than 100 deep"),
        (hidden, "more than 1048576 bytes"),
    ],
)
async def test_what_is_too_much_is_removed_and_the_session_stays(
    workspaces: HostWorkspaces, top: Path, fill: Callable[[Path], None], reason: str
) -> None:
    mark = await workspaces.of(REF).write_session(b"kept\n")
    (top / ".openclaw" / "other").write_text("x")
    assert await workspaces.excess(REF) is None
    await workspaces.make_room(REF)
    assert (top / ".openclaw" / "other").exists(), "what is not too much is left alone"
    fill(top)
    assert reason in (await workspaces.excess(REF) or "")
    await workspaces.make_room(REF)
    assert await workspaces.excess(REF) is None
    assert sorted(path.relative_to(top).as_posix() for path in top.rglob("*")) == [
        ".openclaw", ".openclaw/session.jsonl",
    ]  # fmt: skip
    assert await workspaces.of(REF).read_session() == (b"kept\n", mark)


def as_link(session: Path) -> None:
    session.symlink_to("/etc/passwd")


def as_folder(session: Path) -> None:
    session.mkdir()


def as_large_file(session: Path) -> None:
    session.write_bytes(b"x" * 101 * KIB)


@pytest.mark.parametrize("spoil", [as_link, as_folder, as_large_file])
async def test_a_session_file_that_cannot_be_read_goes_with_the_rest(
    workspaces: HostWorkspaces, top: Path, spoil: Callable[[Path], None]
) -> None:
    large(top)
    spoil(top / ".openclaw" / "session.jsonl")
    await workspaces.make_room(REF)
    assert [path.name for path in top.rglob("*")] == [".openclaw"]
    assert Path("/etc/passwd").exists()


async def test_only_what_the_disk_holds_counts_and_each_file_once(workspaces: HostWorkspaces, top: Path) -> None:
    with (top / "sparse").open("wb") as file:
        file.truncate(1024**4)
    (top / "file").write_bytes(b"x" * 300 * KIB)
    for number in range(9):
        os.link(top / "file", top / f"name-{number}")
    (top / "out").symlink_to("/usr")
    assert await workspaces.excess(REF) is None


async def test_a_conversation_without_a_workspace_holds_nothing(workspaces: HostWorkspaces) -> None:
    assert await workspaces.excess(REF) is None
    await workspaces.make_room(REF)


async def test_no_descriptor_is_left(workspaces: HostWorkspaces, top: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for fill in (deep, many):
        fill(top)
        await workspaces.excess(REF)
        assert len(os.listdir("/proc/self/fd")) <= before  # fewer: what an earlier test left is collected meanwhile
        await workspaces.make_room(REF)
        workspaces.ensure(REF)
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_the_watch_ends_the_worker_whose_workspace_is_too_full_and_no_other(host: Host) -> None:
    host.workspaces._quota = QUOTA
    watch = WorkspaceWatch(
        host.workers.snapshot, host.workspaces.excess, host.workers.end_for_its_workspace, interval_seconds=0.02
    )
    filler, other, context = await host.ready(), await host.ready(), ChildContext()
    workspace = Path(host.workspaces.ensure(filler.worker.request.ref)[0])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run, context)
        large(workspace)
        gone = await filler.gone()
        assert (gone.reason, gone.detail) == (Gone.WORKSPACE_FULL, "The workspace holds more than 1048576 bytes.")
        assert await other.reply("still here") == "still here"
        context.stopping.set()
    again = host.client()
    again.worker = host.workers.start(filler.worker.request, again.send.send)
    await again.ready()
    assert not (workspace / "large").exists(), "a worker starts in a workspace that is not too full"
