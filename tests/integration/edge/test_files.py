"""Files over real connections: what is stored, what is refused and how, and that nothing of what failed stays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio

from edge.routes.files import content_disposition
from edge.settings import EdgeSettings
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store.errors import StoreOutcomeUnknown
from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.records import FILE_CHUNK_BYTES, Agent, Direction, NewFile
from tests.fakes.edge_world import EdgeWorld
from tests.fakes.http_server import Running, running

PATH = "/api/v1/agents/echo_ann_acme"
SMALL = EdgeSettings(
    upload_max_files=3,
    upload_file_max_bytes=600_000,
    upload_total_max_bytes=1_000_000,
    max_message_bytes=4096,
    policy_cache_seconds=0.0,
)


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    world = await EdgeWorld.make(SMALL)
    await world.conversation()
    async with running(world) as server:
        yield server


def left(server: Running) -> int:
    return len(server.world.store.tables.files)


async def post(server: Running, *files: tuple[str, bytes, str], **fields: str) -> Any:
    async with server.client() as client:
        parts = [("files", file) for file in files] or [("none", (None, "x"))]
        return await client.post(f"{PATH}/messages", data={"content": "look", **fields}, files=parts)


async def listed(server: Running) -> list[dict[str, Any]]:
    async with server.client() as client:
        answer = await client.get(f"{PATH}/files")
    assert answer.status_code == 200
    files: list[dict[str, Any]] = answer.json()["files"]
    return files


async def test_files_come_with_their_message_and_go_out_as_they_came(server: Running) -> None:
    whole, odd = bytes(range(256)) * (2 * FILE_CHUNK_BYTES // 256), b"\r\n--x\r\n\r\n" * 30_000
    answer = await post(server, ("whole.bin", whole, "image/PNG; a=b"), ("odd.txt", odd, "text/plain"), messageId="m")
    assert answer.status_code == 200, answer.text
    turn = await server.world.store.find_turn(await server.world.conversation(), "m")
    told = turn.payload["files"]
    assert [(file["name"], file["mediaType"], file["size"]) for file in told] == [
        ("whole.bin", "image/png", len(whole)), ("odd.txt", "text/plain", len(odd)),
    ]  # fmt: skip
    assert turn.content == "look"
    found = await listed(server)
    assert {file["fileId"] for file in found} == {file["fileId"] for file in told}
    assert {(file["direction"], file["messageId"]) for file in found} == {("in", "m")}
    async with server.client() as client:
        for file, data in zip(told, (whole, odd), strict=True):
            got = await client.get(f"{PATH}/files/{file['fileId']}")
            assert hashlib.sha256(got.content).digest() == hashlib.sha256(data).digest()
            assert got.headers["Content-Type"] == file["mediaType"]
            assert got.headers["Content-Length"] == str(len(data))
            assert got.headers["Content-Disposition"].startswith("attachment;")
            assert got.headers["X-Content-Type-Options"] == "nosniff"
            head = await client.head(f"{PATH}/files/{file['fileId']}")
            assert (head.status_code, head.content) == (200, b"")


async def test_fields_and_payload(server: Running) -> None:
    payload = json.dumps({"content": "lost", "model": "a/b", "deep": {"n": 1}, "files": "forged"})
    assert (await post(server, payload=payload, messageId="m")).status_code == 200
    turn = await server.world.store.find_turn(await server.world.conversation(), "m")
    assert turn.content == "look"
    assert turn.payload == {"model": "a/b", "deep": {"n": 1}, "none": "x"}


async def test_empty_files_and_none(server: Running) -> None:
    assert (await post(server, ("empty", b"", "text/plain"))).status_code == 200
    [file] = await listed(server)
    assert file["size"] == 0
    async with server.client() as client:
        assert (await client.get(f"{PATH}/files/{file['fileId']}")).content == b""


async def test_the_same_message_again_brings_nothing_new(server: Running) -> None:
    first = await post(server, ("a.txt", b"one", "text/plain"), messageId="m")
    again = await post(server, ("a.txt", b"two", "text/plain"), messageId="m")
    assert again.json() == first.json()
    assert left(server) == 1
    [file] = await listed(server)
    assert file["size"] == 3


NAMES = [
    ("../../etc/passwd", "passwd"), ("C:\\dir\\a.txt", "a.txt"), ("..", "file"), (".", "file"), ("/", "file"),
    ("...", "file"), ("a\x1bb\u202egpj.exe", "abgpj.exe"), ("x" * 300 + ".tar", "x" * 196 + ".tar"), (".env", ".env"),
    ("ü" * 200, "ü" * 100), (" a. ", "a"), ("e\u0301.txt", "é.txt"), ("a/", "file"), ("dir/.. ", "file"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "kept"), NAMES)
async def test_names_are_made_safe(server: Running, given: str, kept: str) -> None:
    boundary = b"x"
    head = b'Content-Disposition: form-data; name="files"; filename="%s"'
    escaped = given.replace("\\", "\\\\").encode()
    body = form(part(b'name="content"', b"hi"), b"%s\r\n\r\ndata" % (head % escaped))
    answer = await raw(server, body, boundary)
    assert answer.status_code == 200, answer.text
    [file] = await listed(server)
    assert file["name"] == kept


async def test_names_are_unique_in_their_message(server: Running) -> None:
    await post(server, ("a.txt", b"1", "x/y"), ("b/A.TXT", b"2", "x/y"), ("a.txt", b"3", "x/y"))
    assert {file["name"] for file in await listed(server)} == {"a.txt", "A-2.TXT", "a-3.txt"}


def part(disposition: bytes, data: bytes, *, more: bytes = b"") -> bytes:
    return b"Content-Disposition: form-data; " + disposition + b"\r\n" + more + b"\r\n" + data


def form(*parts: bytes, end: bytes = b"--x--\r\n") -> bytes:
    return b"".join(b"--x\r\n" + one + b"\r\n" for one in parts) + end


async def raw(server: Running, body: bytes, boundary: bytes | None = b"x") -> Any:
    kind = b"multipart/form-data" + (b"" if boundary is None else b"; boundary=" + boundary)
    async with server.client() as client:
        return await client.post(f"{PATH}/messages", content=body, headers={b"Content-Type": kind})


CONTENT = part(b'name="content"', b"hi")
FILE = part(b'name="files"; filename="a"', b"data")
WRONG = {
    "no boundary": (form(CONTENT), None, 400, "INVALID_MULTIPART"),
    "too long a boundary": (form(CONTENT), b"x" * 71, 400, "INVALID_MULTIPART"),
    "another boundary": (form(CONTENT, FILE), b"y", 400, "INVALID_MULTIPART"),
    "no form at all": (b"hello", b"x", 400, "INVALID_MULTIPART"),
    "nothing": (b"", b"x", 400, "INVALID_MULTIPART"),
    "cut in a file": (form(CONTENT, FILE, end=b"")[:-6], b"x", 400, "INVALID_MULTIPART"),
    "cut before the end": (form(CONTENT, FILE, end=b""), b"x", 400, "INVALID_MULTIPART"),
    "no disposition": (form(b"\r\nhi"), b"x", 400, "INVALID_MULTIPART"),
    "no name": (form(b"Content-Disposition: form-data\r\n\r\nhi"), b"x", 400, "INVALID_MULTIPART"),
    "files is a text": (form(CONTENT, part(b'name="files"', b"x")), b"x", 400, "INVALID_MULTIPART"),
    "a file elsewhere": (form(part(b'name="content"; filename="a"', b"x")), b"x", 400, "INVALID_MULTIPART"),
    "a file without name": (form(CONTENT, part(b'name="files"; filename=""', b"x")), b"x", 400, "INVALID_MULTIPART"),
    "twice": (form(CONTENT, CONTENT), b"x", 400, "INVALID_MULTIPART"),
    "endless head": (form(b"A: " + b"b" * 300_000), b"x", 400, "INVALID_MULTIPART"),
    "not UTF-8": (form(FILE, part(b'name="content"', b"\xff")), b"x", 400, "INVALID_TEXT"),
    "NUL": (form(FILE, part(b'name="content"', b"a\0b")), b"x", 400, "INVALID_TEXT"),
    "no content": (form(FILE), b"x", 400, "INVALID_FIELD"),
    "payload is no JSON": (form(CONTENT, part(b'name="payload"', b"{")), b"x", 400, "INVALID_JSON"),
    "bad messageId": (form(FILE, CONTENT, part(b'name="messageId"', b"a b")), b"x", 400, "INVALID_FIELD"),
    "long field": (form(FILE, part(b'name="content"', b"x" * 5000)), b"x", 413, "BODY_TOO_LARGE"),
    "a large file": (form(CONTENT, part(b'name="files"; filename="a"', b"x" * 600_001)), b"x", 413, "BODY_TOO_LARGE"),
    "too much": (
        form(CONTENT, *[part(b'name="files"; filename="a"', b"x" * 500_001)] * 2), b"x", 413, "BODY_TOO_LARGE",
    ),
    "far too much": (form(CONTENT, *[part(b'name="files"; filename="a"', b"x" * 600_000)] * 3), b"x", 413, None),
    "too many": (form(CONTENT, *[FILE] * 4), b"x", 413, "BODY_TOO_LARGE"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_form_is_refused_with_a_sentence_and_leaves_nothing(server: Running, name: str) -> None:
    body, boundary, status, code = WRONG[name]
    answer = await raw(server, body, boundary)
    assert (answer.status_code, answer.json()["code"]) == (status, code or "BODY_TOO_LARGE"), answer.text
    assert answer.json()["error"].endswith(".")
    assert left(server) == 0
    assert server.world.gateway.hints == []


async def test_an_empty_choice_of_a_browser_is_no_file(server: Running) -> None:
    answer = await raw(server, form(CONTENT, part(b'name="files"; filename=""', b"", more=b"Content-Type: x/y\r\n")))
    assert answer.status_code == 200, answer.text
    assert left(server) == 0


async def half(server: Running, body: bytes, announced: int) -> trio.SocketStream:
    stream = await server.connect()
    head = (
        f"POST {PATH}/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.world.admin_key}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {announced}\r\n\r\n"
    )
    await stream.send_all(head.encode() + body)
    return stream


async def until(condition: Any) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_a_client_that_goes_away_half_way_leaves_nothing(server: Running) -> None:
    body = form(CONTENT, part(b'name="files"; filename="a"', b"x" * 400_000))
    stream = await half(server, body[:300_000], len(body))
    await until(lambda: any(row.chunks for row in server.world.store.tables.files.values()))
    await stream.aclose()
    await until(lambda: left(server) == 0)
    assert server.world.gateway.hints == []


async def test_a_client_that_stops_half_way_is_told_and_leaves_nothing() -> None:
    world = await EdgeWorld.make(attrs.evolve(SMALL, body_seconds=0.5))
    await world.conversation()
    async with running(world) as server:
        body = form(CONTENT, part(b'name="files"; filename="a"', b"x" * 400_000))
        stream = await half(server, body[:300_000], len(body))
        with trio.fail_after(10):
            assert b" 408 " in await stream.receive_some()
        await stream.aclose()
        assert left(server) == 0


class AwayStore(MemoryStore):
    chunks = 0

    async def append_chunk(self, *args: Any) -> bool:
        await super().append_chunk(*args)
        self.chunks += 1
        if self.chunks == 1:
            raise StoreOutcomeUnknown("it happened, but who knows")
        return True

    async def accept_turn(self, *args: Any, **options: Any) -> Any:
        raise StoreOutcomeUnknown("away")


async def test_a_store_that_is_away_in_the_end_keeps_no_files() -> None:
    settings = attrs.evolve(SMALL, accept_seconds=3.0)
    world = await EdgeWorld.make(settings, AwayStore())
    await world.conversation()
    async with running(world) as server:
        answer = await post(server, ("a", b"x" * 300_000, "x/y"), messageId="m")
        assert answer.status_code == 503
        assert answer.json()["details"] == {"messageId": "m"}
        assert left(server) == 0
    assert world.store.chunks == 3


async def test_a_refused_message_keeps_no_files(server: Running) -> None:
    rule = {"kind": "pattern", "pattern": "look"}
    await server.world.store.apply_agents("acme", [Agent("acme", "echo", "echo", policy={"guardrails": [rule]})])
    assert (await post(server, ("a", b"x", "x/y"), messageId="m")).status_code == 200
    assert server.world.gateway.hints[0].verdict is not None
    assert left(server) == 0


async def test_uploads_at_a_time_are_bounded() -> None:
    world = await EdgeWorld.make(attrs.evolve(SMALL, max_uploads=1))
    await world.conversation()
    async with running(world) as server:
        body = form(CONTENT, part(b'name="files"; filename="a"', b"x" * 400_000))
        stream = await half(server, body[:300_000], len(body))
        await until(lambda: left(server) == 1)
        refused = await post(server, ("a", b"x", "x/y"))
        assert (refused.status_code, refused.json()["code"]) == (429, "TOO_MANY_UPLOADS")
        await stream.send_all(body[300_000:])
        with trio.fail_after(10):
            assert b" 200 " in await stream.receive_some()
        await stream.aclose()
        assert (await post(server, ("a", b"x", "x/y"))).status_code == 200


async def test_other_tenants_users_and_conversations_see_nothing(server: Running) -> None:
    world = server.world
    await post(server, ("a", b"secret", "x/y"))
    [file] = await listed(server)
    theirs = await world.conversation(user="bob")
    await world.store.open_conversation(ConversationRef("rival", "echo", "echo_root_rival"), "root")
    cases = [
        (world.other_key, PATH, 404), (world.other_key, "/api/v1/agents/echo_root_rival", 404), (None, PATH, 401),
        (world.admin_key, f"/api/v1/agents/{theirs.conversation_id}", 404), (world.user_key, PATH, 200),
    ]  # fmt: skip
    for key, path, status in cases:
        async with server.client(key) as client:
            if key is None:
                del client.headers["Authorization"]
            got = await client.get(f"{path}/files/{file['fileId']}")
            assert got.status_code == status, (path, got.text)
            assert (b"secret" in got.content) == (status == 200)
    async with server.client(world.other_key) as client:
        assert (await client.get(f"{PATH}/files")).status_code == 404
        unbound = NewFile(await world.conversation(), "unbound", Direction.IN, "a", "x/y", 60)
        await world.store.begin_file(unbound)
    async with server.client() as client:
        for name in ("unbound", "unknown", "%00", "x" * 500):
            got = await client.get(f"{PATH}/files/{name}")
            assert (got.status_code, got.json()["code"]) == (404, "FILE_NOT_FOUND")
        assert (await client.get(f"{PATH}/files?limit=0")).status_code == 400


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a b.txt", "attachment; filename=\"a b.txt\"; filename*=UTF-8''a%20b.txt"),
        ('ü"\\%.txt', "attachment; filename=\"____.txt\"; filename*=UTF-8''%C3%BC%22%5C%25.txt"),
    ],
)
def test_a_name_cannot_break_its_header(name: str, header: str) -> None:
    assert content_disposition(name) == header
