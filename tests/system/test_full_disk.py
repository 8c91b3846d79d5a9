"""A disk without room: the turn that needs some is told so, the host goes on, and the next turn finds room again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lobu_actors.contract.ids import new_id
from tests.system.audit import broken_promises
from tests.system.conftest import client_of
from tests.system.lobu_process import LobuRun, lobu_run
from tests.system.sse_client import Conversation, Frame

WORKER = Path(__file__).parent.parent / "workers" / "files_worker.py"
CONFIG = f"""
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[workers.files]
command = ["{sys.executable}", "{WORKER}"]
[[agents]]
id = "echo"
worker = "echo"
default = true
[[agents]]
id = "files"
worker = "files"
"""
SENTENCE = "The disk of this host is full; send the message again when there is room."
DISK_BYTES = 8 * 1024 * 1024
UPLOAD_BYTES = 2 * 1024 * 1024


@pytest.fixture
async def run(database_url: str) -> AsyncIterator[LobuRun]:
    """A run whose workspaces lie on a small disk of their own."""
    async with lobu_run(config=CONFIG, database_url=database_url, start=False) as found:
        with _small_disk(_disk_of(found)):
            try:
                await found.start()
                yield found
                assert await found.stop() == 0
                assert "Traceback" not in found.errors(), found.log()
                assert broken_promises(database_url) == []
            finally:
                await found.kill_all()


@contextmanager
def _small_disk(path: Path) -> Iterator[None]:
    path.mkdir(parents=True)
    options = f"size={DISK_BYTES},nr_inodes=100,mode=700"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "lobu-test", path], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


async def test_no_room_for_a_workspace(run: LobuRun) -> None:
    neighbour, new = await client_of(run).open(), await client_of(run).open()
    await _works(neighbour)
    with _no_inode_left(run):
        _is_told(await new.ask("hello"))
        _is_told(await new.ask("hello"))
    await _works(new)
    await _works(neighbour)


async def test_no_room_for_a_session_file(run: LobuRun) -> None:
    conversation = await client_of(run).open()
    await conversation.ask("long " * 10_000)
    [session] = _disk_of(run).glob("*/.openclaw/session.jsonl")
    session.write_bytes(b"")  # not what was stored: it must be laid out anew
    with _full(run):
        _is_told(await conversation.ask("hello"))
        _is_told(await conversation.ask("hello"))
        assert [path.name for path in session.parent.iterdir()] == ["session.jsonl"], "nothing half-written is left"
    assert (await conversation.ask("history")).data["finalText"] == "2"


async def test_no_room_for_what_came_with_a_message(run: LobuRun) -> None:
    conversation = await client_of(run).open(agentId="files")
    await _works(conversation)
    with _full(run, leave=UPLOAD_BYTES // 2):
        _is_told(await _upload(run, conversation, os.urandom(UPLOAD_BYTES)))
    frame = await _upload(run, conversation, os.urandom(UPLOAD_BYTES))
    assert frame.event == "complete", frame


async def _works(conversation: Conversation) -> None:
    frame = await conversation.ask("hello")
    assert frame.event == "complete", frame


def _is_told(frame: Frame) -> None:
    data: Any = frame.data
    assert (frame.event, data.get("errorCode"), data.get("error")) == ("agent-error", "DISK_FULL", SENTENCE), frame


async def _upload(run: LobuRun, conversation: Conversation, data: bytes) -> Frame:
    message_id = new_id()
    async with httpx.AsyncClient(base_url=run.url, headers={"Authorization": f"Bearer {run.admin_key}"}) as client:
        form = {"content": "copy", "messageId": message_id}
        answer = await client.post(
            f"{conversation.path}/messages", data=form, files={"files": ("f.bin", data, "application/x-test")}
        )
    assert answer.status_code == 200, answer.text
    return await conversation.terminal_of(message_id)


def _disk_of(run: LobuRun) -> Path:
    return run.folder / ".lobu" / "workspaces"


@contextmanager
def _full(run: LobuRun, *, leave: int = 0) -> Iterator[None]:
    path = _disk_of(run) / "ballast"
    with path.open("wb") as file:
        free = os.statvfs(path).f_bavail * os.statvfs(path).f_frsize
        os.posix_fallocate(file.fileno(), 0, free - leave)
    yield
    path.unlink()


@contextmanager
def _no_inode_left(run: LobuRun) -> Iterator[None]:
    folder = _disk_of(run) / "ballast"
    folder.mkdir()
    made = []
    while os.statvfs(folder).f_ffree:
        made.append(folder / str(len(made)))
        made[-1].touch()
    yield
    for path in made:
        path.unlink()
    folder.rmdir()
