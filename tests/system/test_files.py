"""Files through real processes: 100 MB in and out over two hosts, one of which is killed; a worker that cheats."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import trio

from tests.conftest import admin
from tests.system.conftest import Start, client_of
from tests.system.lobu_process import LobuRun, until
from tests.system.sse_client import Conversation

WORKER = Path(__file__).parent.parent / "workers" / "files_worker.py"
CONFIG = f"""
[workers.files]
command = ["{sys.executable}", "{WORKER}"]
[[agents]]
id = "files"
worker = "files"
default = true
"""
MB = 1_000_000
FILE_BYTES = 50 * MB  # two of them are all that a message may bring
GROWTH_BYTES = 20 * MB
SAMPLE_SECONDS = 0.005


class Memory:
    """The largest resident size of a process while it was watched."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.before = self._process.memory_info().rss
        self.peak = self.before

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, self._process.memory_info().rss)
            await trio.sleep(SAMPLE_SECONDS)

    @property
    def growth(self) -> int:
        return self.peak - self.before


@asynccontextmanager
async def watched(run: LobuRun, what: str) -> AsyncIterator[Memory]:
    memory = Memory(run.pid)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(memory.watch)
        began = trio.current_time()
        yield memory
        seconds = trio.current_time() - began
        nursery.cancel_scope.cancel()
    print(f"\n{what}: {seconds:.1f} s, rss {memory.before / MB:.1f} MB, at most {memory.growth / MB:.1f} MB more")


def http(run: LobuRun) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {run.admin_key}"}
    return httpx.AsyncClient(base_url=run.url, headers=headers, timeout=120)


async def upload(run: LobuRun, conversation: Conversation, content: str, files: dict[str, bytes], mid: str) -> Any:
    """Sends the message and waits for its end; gives its data."""
    await send(run, conversation, content, files, mid)
    frame = await conversation.terminal_of(mid, 120)
    assert frame.event == "complete", frame
    return frame.data


async def send(run: LobuRun, conversation: Conversation, content: str, files: dict[str, bytes], mid: str) -> None:
    async with http(run) as client:
        parts = [("files", (name, data, "application/x-test")) for name, data in files.items()]
        answer = await client.post(
            f"{conversation.path}/messages", data={"content": content, "messageId": mid}, files=parts
        )
    assert answer.status_code == 200, answer.text


async def sha256_of(run: LobuRun, conversation: Conversation, file_id: str) -> str:
    digest = hashlib.sha256()
    async with http(run) as client, client.stream("GET", f"{conversation.path}/files/{file_id}") as answer:
        assert answer.status_code == 200
        async for data in answer.aiter_bytes():
            digest.update(data)
    return digest.hexdigest()


async def listed(run: LobuRun, conversation: Conversation) -> list[dict[str, Any]]:
    async with http(run) as client:
        answer = await client.get(f"{conversation.path}/files")
    assert answer.status_code == 200, answer.text
    files: list[dict[str, Any]] = answer.json()["files"]
    return files


@pytest.mark.slow
async def test_a_hundred_megabytes_in_and_out_of_a_conversation_that_moves(start_run: Start, database_url: str) -> None:
    """Up through one `lobu run`, which is killed with its worker; another takes over, runs it, and gives it out."""
    files = {name: os.urandom(FILE_BYTES) for name in ("one.bin", "two.bin")}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    several = {"LOBU_ALLOW_MULTI_HOST": "1"}
    first, second = [await start_run(config=CONFIG, environment=several) for _ in range(2)]
    for run in (first, second):  # what a first upload needs is loaded
        other = await client_of(run).open(thread=f"warm-{run.pid}")
        await upload(run, other, "copy", {"small": b"warm" * 100_000}, "warm")
    here = await client_of(first).open()
    there = here.through(client_of(second))

    async with watched(first, "100 MB in and to a worker, on the first run") as memory:
        await send(first, here, "copy-next-time", files, "m1")
        async with here.events(message_id="m1") as stream:
            await stream.next_of("output")
    assert memory.growth < GROWTH_BYTES, memory.growth
    held = "SELECT count(*) FROM run r JOIN turn t ON t.turn_id = ANY (r.turn_ids) WHERE message_id = 'm1'"
    assert admin(database_url, f"{held} AND r.status = 'live'") == [(1,)]
    await first.kill_all()

    async with watched(second, "100 MB to a worker and out, on the second run") as memory:
        frame = await there.terminal_of("m1", 120)
    assert memory.growth < GROWTH_BYTES, memory.growth
    assert frame.event == "complete", frame
    said = json.loads(frame.data["finalText"])
    assert (said["attempt"], said["sums"]) == (2, sums)
    assert [file["name"] for file in said["told"][0]] == ["one.bin", "two.bin"]
    assert [(file["name"], file["size"]) for file in frame.data["files"]] == [
        ("copy of one.bin", FILE_BYTES), ("copy of two.bin", FILE_BYTES),
    ]  # fmt: skip
    assert "filesRefused" not in frame.data
    assert admin(database_url, f"{held} AND r.status = 'completed'") == [(1,)]

    ids = {file["name"]: file["fileId"] for file in frame.data["files"]}
    async with watched(second, "100 MB down from the second run") as memory:
        for name, digest in sums.items():
            assert await sha256_of(second, there, ids[f"copy of {name}"]) == digest
    assert memory.growth < GROWTH_BYTES, memory.growth
    found = {file["name"]: file for file in await listed(second, there)}
    assert {(name, file["direction"]) for name, file in found.items()} == {
        ("one.bin", "in"), ("two.bin", "in"), ("copy of one.bin", "out"), ("copy of two.bin", "out"),
    }  # fmt: skip
    assert await sha256_of(second, there, found["one.bin"]["fileId"]) == sums["one.bin"]

    await first.start()
    back = here.through(client_of(first))
    async with watched(first, "100 MB down from the first run's successor") as memory:
        for name, digest in sums.items():
            assert await sha256_of(first, back, ids[f"copy of {name}"]) == digest
    assert memory.growth < GROWTH_BYTES, memory.growth


async def test_only_a_run_s_own_regular_files_go_out(start_run: Start, database_url: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not yours")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("not yours either")
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open()
    done = (await conversation.ask(f"tricks {secret}")).data
    assert {file["name"] for file in done["files"]} == {"honest.txt", "rtlgpj.[1m.html"}
    assert {refused["name"]: refused["reason"] for refused in done["filesRefused"]} == {
        "link": "it is a link",
        "folder-link": "it is a link",
        "dangling": "it is a link",
        "folder": "it is a folder",
        "pipe": "it is no regular file",
        "twin": "it has another name elsewhere (a hard link)",
        "large": f"more than {FILE_BYTES} bytes",
    }
    done = (await conversation.ask(f"away {tmp_path / 'elsewhere'}")).data
    assert "files" not in done
    assert [refused["name"] for refused in done["filesRefused"]] == ["output"]
    done = (await conversation.ask("many")).data
    assert [file["name"] for file in done["files"]] == [f"{number:02}" for number in range(10)]
    assert len(done["filesRefused"]) == 5
    assert (tmp_path / "elsewhere" / "file").read_text() == "not yours either"
    stored = admin(database_url, "SELECT name FROM file WHERE turn_id IS NULL")
    assert stored == []


async def test_the_end_of_a_conversation_is_the_end_of_its_files(start_run: Start, database_url: str) -> None:
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open()
    await upload(run, conversation, "copy", {"a": b"a", "../b/a": b"b"}, "m1")
    assert {file["name"] for file in await listed(run, conversation)} == {"a", "a-2", "copy of a", "copy of a-2"}
    async with http(run) as client:
        assert (await client.delete(conversation.path)).json()["closed"]
    assert await listed(run, conversation) == []
    assert admin(database_url, "SELECT count(*) FROM file WHERE turn_id IS NOT NULL OR expires_at > now()") == [(0,)]


async def test_what_an_edge_left_half_way_is_deleted_when_its_time_has_come(
    start_run: Start, database_url: str
) -> None:
    admin(
        database_url,
        "INSERT INTO file (organization_id, file_id, agent_id, conversation_id, direction, name, media_type, size,"
        " sha256, expires_at) SELECT 'local', 'old-' || n, 'files', 'c', 'in', 'a', 'x/y', 0, '',"
        " now() - interval '1 s' FROM generate_series(1, 12) n",
    )
    admin(database_url, "INSERT INTO file_chunk SELECT 'local', 'old-1', n, 'x' FROM generate_series(0, 9) n")
    await start_run(config=CONFIG)
    await until(lambda: admin(database_url, "SELECT count(*) FROM file") == [(0,)], "the files are deleted")
    assert admin(database_url, "SELECT count(*) FROM file_chunk") == [(0,)]


async def test_a_refused_message_reaches_no_worker(start_run: Start) -> None:
    rule = '[[agents.guardrails]]\nkind = "pattern"\npattern = "(?i)copy"\nmessage = "No copies."\n'
    run = await start_run(config=CONFIG + rule)
    conversation = await client_of(run).open()
    frame = await conversation.ask("COPY")
    assert (frame.event, frame.data["errorCode"], frame.data["error"]) == (
        "agent-error", "GUARDRAIL_REJECTED", "No copies.",
    )  # fmt: skip
    assert run.worker_pids() == []
    assert (await conversation.ask("hello")).event == "complete"
