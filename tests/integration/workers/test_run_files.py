"""Single files beneath a workspace whose owner changes it at the same time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.conversation.worker_port import OutputUnreadable
from supervisor.workspaces import run_files
from supervisor.workspaces.workspace import HostWorkspace, HostWorkspaces

REF = ConversationRef("org", "agent", "agent_user_org")


@pytest.fixture
def workspaces(tmp_path: Path) -> Iterator[HostWorkspaces]:
    workspaces = HostWorkspaces(tmp_path / "workspaces")
    yield workspaces
    workspaces.close()


@pytest.fixture
async def workspace(workspaces: HostWorkspaces) -> HostWorkspace:
    made = workspaces.of(REF)
    await made.prepare()
    return made


def folder(workspace: HostWorkspace, name: str) -> Path:
    return Path(workspace.path) / name


async def test_input_comes_piece_by_piece(workspace: HostWorkspace) -> None:
    await workspace.append_input("a", b"", 0)
    await workspace.append_input("a", b"one", 0)
    await workspace.append_input("a", b"two", 3)
    assert (folder(workspace, "input") / "a").read_bytes() == b"onetwo"
    await workspace.prepare()
    assert list(folder(workspace, "input").iterdir()) == []


@pytest.mark.parametrize("offset", [0, 3])
@pytest.mark.parametrize("trick", ["link", "dangling link", "hard link", "pipe", "folder", "longer"])
async def test_input_writes_into_nothing_that_somebody_else_put_there(
    workspace: HostWorkspace, tmp_path: Path, trick: str, offset: int
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"abc"[:offset])
    place = folder(workspace, "input") / "a"
    match trick:
        case "link":
            place.symlink_to(elsewhere)
        case "dangling link":
            place.symlink_to(tmp_path / "new")
        case "hard link":
            os.link(elsewhere, place)
        case "pipe":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case "longer":
            place.write_bytes(b"more than there should be")
    with pytest.raises(OSError, match="a"):
        await workspace.append_input("a", b"secret", offset)
    assert elsewhere.read_bytes() == b"abc"[:offset]
    assert not (tmp_path / "new").exists()


async def test_input_goes_into_no_folder_elsewhere(workspace: HostWorkspace, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder(workspace, "input").rmdir()
    folder(workspace, "input").symlink_to(tmp_path / "elsewhere")
    await workspace.append_input("a", b"x", 0)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (folder(workspace, "input") / "a").read_bytes() == b"x"


async def test_output_is_listed_and_read_in_pieces(workspace: HostWorkspace) -> None:
    output = folder(workspace, "output")
    (output / "b").write_bytes(b"0123456789")
    (output / "a").write_bytes(b"")
    first, second = await workspace.list_output()
    assert [(entry.name, entry.size, entry.unfit) for entry in (first, second)] == [("a", 0, None), ("b", 10, None)]
    assert [await workspace.read_output(second, offset, 4) for offset in (0, 4)] == [b"0123", b"4567"]


@pytest.mark.parametrize("trick", ["link", "grown", "cut", "another", "gone", "pipe"])
async def test_output_that_changes_while_it_is_read_is_not_taken(
    workspace: HostWorkspace, tmp_path: Path, trick: str
) -> None:
    place = folder(workspace, "output") / "a"
    place.write_bytes(b"0123456789")
    elsewhere = tmp_path / "secret"
    elsewhere.write_bytes(b"abcdefghij")
    [entry] = await workspace.list_output()
    assert await workspace.read_output(entry, 0, 5) == b"01234"
    match trick:
        case "grown":
            place.write_bytes(b"0123456789ab")
        case "cut":
            os.truncate(place, 5)
        case _:
            place.rename(tmp_path / "kept")  # so that its number is not given to the next file
    match trick:
        case "link":
            place.symlink_to(elsewhere)
        case "another":
            place.write_bytes(b"abcdefghij")
        case "pipe":
            os.mkfifo(place)
    with pytest.raises((OutputUnreadable, OSError)):
        await workspace.read_output(entry, 5, 5)


async def test_a_folder_with_very_many_entries_is_not_listed_to_its_end(
    workspace: HostWorkspace, monkeypatch: Any
) -> None:
    monkeypatch.setattr(run_files, "MAX_LISTED", 3)
    for number in range(5):
        (folder(workspace, "output") / str(number)).touch()
    listed = await workspace.list_output()
    assert [entry.unfit for entry in listed] == [None, None, None, "more than 3 entries"]


async def test_no_output_folder_is_no_output(workspace: HostWorkspace) -> None:
    folder(workspace, "output").rmdir()
    assert await workspace.list_output() == []
    folder(workspace, "output").write_text("a file")
    with pytest.raises(NotADirectoryError):
        await workspace.list_output()
