"""Workspaces on a real disk, against a worker that puts links, pipes and deep trees where files should be."""

# ruff: noqa: ASYNC240 - the files under test are small and local
from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.worker_port import SessionFileInvalid
from supervisor.workspaces.workspace import HostWorkspaces, workspace_name

REF = ConversationRef("org", "agent", "conversation")


@pytest.fixture
def workspaces(tmp_path: Path):
    found = HostWorkspaces(tmp_path / "state" / "workspaces", max_bytes=1000_000)
    yield found
    found.close()


@pytest.fixture
def workspace(workspaces: HostWorkspaces):
    return workspaces.of(REF)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "session.jsonl").write_text("secret of another tenant")
    return folder


def test_names_differ_where_the_parts_do():
    refs = [ConversationRef("a", "b", "c"), ConversationRef("a", "bc", ""), ConversationRef("ab", "", "c")]
    assert len({workspace_name(ref) for ref in refs}) == 3


async def test_prepare_makes_and_empties(workspace):
    assert await workspace.prepare() is None
    path = Path(workspace.path)
    assert sorted(entry.name for entry in path.iterdir()) == ["input", "output", "temp"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    (path / "input" / "a").write_text("x")
    (path / "output" / "b" / "c").mkdir(parents=True)
    (path / "kept").write_text("x")
    await workspace.prepare()
    assert [list((path / name).iterdir()) for name in ("input", "output", "temp")] == [[], [], []]
    assert (path / "kept").exists()


async def test_session_round_trip(workspace):
    assert await workspace.read_session() is None
    mark = await workspace.write_session(b"one\n")
    assert await workspace.prepare() == mark
    assert await workspace.read_session() == (b"one\n", mark)
    big = b"x" * 900_000
    other = await workspace.write_session(big)
    assert other != mark
    assert await workspace.read_session() == (big, other)
    file = Path(workspace.path) / ".openclaw" / "session.jsonl"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["session.jsonl"]
    assert await workspace.write_session(None) is None
    assert await workspace.read_session() is None
    assert await workspace.write_session(None) is None


async def test_too_large(workspace):
    await workspace.write_session(b"x" * 1_000_001)
    with pytest.raises(SessionFileInvalid, match="limit"):
        await workspace.read_session()


async def test_a_link_for_the_folder(workspace, outside):
    await workspace.prepare()
    folder = Path(workspace.path) / ".openclaw"
    folder.symlink_to(outside)
    with pytest.raises(SessionFileInvalid):
        await workspace.read_session()
    assert await workspace.prepare() is None
    mark = await workspace.write_session(b"ours")
    assert await workspace.read_session() == (b"ours", mark)
    assert not folder.is_symlink()
    assert (outside / "session.jsonl").read_text() == "secret of another tenant"


@pytest.mark.parametrize("place", [".openclaw", ".openclaw/session.jsonl"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "dangling", "file"])
async def test_what_is_no_session_file_is_gone_before_the_next_run(workspace, outside, kind, place):
    await workspace.prepare()
    file = Path(workspace.path) / place
    file.parent.mkdir(exist_ok=True)
    match kind:
        case "link" | "dangling":
            file.symlink_to(outside if kind == "link" else outside / "nothing")
        case "pipe":
            os.mkfifo(file)
        case "folder":
            (file / "session.jsonl" / "deep").mkdir(parents=True)
        case "file":
            file.write_text("x")
    is_session = (kind, place) == ("file", ".openclaw/session.jsonl")
    assert (await workspace.prepare() is not None) == is_session
    read = await workspace.read_session()
    assert (read is not None) == is_session
    assert (outside / "session.jsonl").read_text() == "secret of another tenant"


async def test_a_folder_in_the_place_of_the_session_file_can_be_removed(workspace):
    await workspace.write_session(b"x")
    file = Path(workspace.path) / ".openclaw" / "session.jsonl"
    file.unlink()
    (file / "deep").mkdir(parents=True)
    assert await workspace.write_session(None) is None
    assert await workspace.read_session() is None


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "dangling"])
async def test_no_regular_session_file(workspace, outside, kind):
    await workspace.write_session(b"x")
    file = Path(workspace.path) / ".openclaw" / "session.jsonl"
    file.unlink()
    if kind == "link":
        file.symlink_to(outside / "session.jsonl")
    elif kind == "dangling":
        file.symlink_to(outside / "nothing")
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        (file / "deep").mkdir(parents=True)
    with pytest.raises(SessionFileInvalid):
        await workspace.read_session()
    assert await workspace.prepare() is None
    mark = await workspace.write_session(b"ours")
    assert await workspace.read_session() == (b"ours", mark)
    assert (outside / "session.jsonl").read_text() == "secret of another tenant"


async def test_links_in_the_place_of_folders_and_in_them_are_removed_not_followed(workspace, outside):
    await workspace.prepare()
    path = Path(workspace.path)
    (path / "input").rmdir()
    (path / "input").symlink_to(outside)
    (path / "output" / "inner").mkdir()
    (path / "output" / "inner" / "link").symlink_to(outside)
    (path / "temp").rmdir()
    (path / "temp").write_text("a file")
    await workspace.prepare()
    assert all((path / name).is_dir() and not (path / name).is_symlink() for name in ("input", "output", "temp"))
    assert (outside / "session.jsonl").exists()


async def test_a_link_for_the_whole_workspace(workspace, outside):
    path = Path(workspace.path)
    path.symlink_to(outside)
    with pytest.raises(SessionFileInvalid):
        await workspace.read_session()
    await workspace.prepare()
    assert not path.is_symlink()
    assert [entry.name for entry in outside.iterdir()] == ["session.jsonl"]


async def test_trees_deeper_than_any_recursion_and_closed_folders(workspace):
    await workspace.prepare()
    path = Path(workspace.path) / "temp"
    descriptor = os.open(path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=descriptor)
        below = os.open("deeper", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    closed = path / "closed" / "inner"
    closed.mkdir(parents=True)
    (closed / "file").write_text("x")
    closed.chmod(0)
    closed.parent.chmod(0)
    await workspace.prepare()
    assert list(path.iterdir()) == []


async def test_remove(workspace, workspaces):
    await workspace.write_session(b"x")
    (Path(workspace.path) / "input" / "a").mkdir(parents=True)
    await workspace.remove()
    assert not Path(workspace.path).exists()
    await workspace.remove()


async def test_no_descriptor_is_left(workspace, workspaces):
    await workspace.write_session(b"x" * 300_000)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        workspaces.ensure(REF)
        await workspace.prepare()
        await workspace.read_session()
        await workspace.write_session(b"y")
    assert len(os.listdir("/proc/self/fd")) <= before  # fewer: what an earlier test left is collected meanwhile
