"""Two hundred readers that take nothing: others do not notice, memory is bounded, and the stop is on time."""

from __future__ import annotations

import socket
import statistics
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import psutil
import trio

from tests.system.conftest import Start, client_of
from tests.system.lobu_process import ECHO, LobuRun
from tests.system.sse_client import Conversation

STALLED = 200
PATIENT_SECONDS = 600  # or who has stalled for 20 s, on a busy machine, were cut before it is looked at
CONFIG = f"""
[limits]
streams_per_conversation = 300
[edge]
stalled_reader_seconds = {PATIENT_SECONDS}
{ECHO}"""
BIG = "x" * 400_000
BIG_TURNS = 6  # 2.4 MB of replies, as text and as finalText: many times what a connection's buffers hold
MAX_BYTES_PER_READER = 1_500_000
STOP_SECONDS = 15.0  # the edge gives connections 5 s


async def test_stalled_readers_hurt_nobody_but_themselves(start_run: Start) -> None:
    run = await start_run(config=CONFIG)
    busy, other = await client_of(run).open(), await client_of(run).open()
    with ExitStack() as stalled:
        before = await _latency(other)
        resident = psutil.Process(run.pid).memory_info().rss
        for _ in range(STALLED):
            stalled.enter_context(_stall(run, busy))
        for _ in range(BIG_TURNS):
            assert (await busy.ask(BIG)).event == "complete"
        grown = psutil.Process(run.pid).memory_info().rss - resident
        assert grown < STALLED * MAX_BYTES_PER_READER, f"{grown >> 20} MiB"
        assert await _latency(other) < 10 * before + 0.5, "other conversations"
        assert await _latency(busy) < 10 * before + 0.5, "other readers of the same conversation"
        began = time.monotonic()
        assert await run.stop() == 0
        assert time.monotonic() - began < STOP_SECONDS
        assert f"connections={STALLED}" in run.errors(), "all of them had stalled, and were cut"
    assert run.processes() == []


async def test_strangers_take_no_turn_the_files_it_needs(start_run: Start) -> None:
    """Of as many as a shell lets it have at first, which is made as many as it may have."""
    run = await start_run(config=CONFIG, prefix=("prlimit", "--nofile=64:4096"))
    conversation = await client_of(run).open()
    address = urlsplit(run.url)
    with ExitStack() as strangers:
        for _ in range(2 * 64):
            strangers.enter_context(socket.create_connection((address.hostname, address.port)))
        assert (await conversation.ask("hello")).event == "complete"


async def test_a_reader_that_was_stalled_can_come_back(start_run: Start) -> None:
    """It may lose text in between, never an event: what ended is all there."""
    run = await start_run(config=CONFIG)
    conversation = await client_of(run).open()
    with _stall(run, conversation) as reader:
        sent = [await conversation.send(f"{BIG} {number}") for number in range(BIG_TURNS)]
        for message_id in sent:
            assert (await conversation.terminal_of(message_id)).event == "complete"
        reader.settimeout(30)
        received = await trio.to_thread.run_sync(_drain_until, reader, sent[-1].encode() + b'"]', b"event: complete")
    for message_id in sent:
        assert received.count(b'"processedMessageIds":["%b"]' % message_id.encode()) == 1


def _stall(run: LobuRun, conversation: Conversation) -> socket.socket:
    """A reader that asks for the stream and then takes nothing, with as little room as the kernel allows."""
    place = urlsplit(run.url)
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect((place.hostname, place.port))
    head = f"GET {conversation.path}/events HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {run.admin_key}\r\n\r\n"
    reader.sendall(head.encode())
    return reader


def _drain_until(reader: socket.socket, message_id: bytes, event: bytes) -> bytes:
    """Everything up to that message's end."""
    received = b""
    while not (event in received and b'"processedMessageIds":["' + message_id in received):
        piece = reader.recv(1 << 20)
        assert piece, "the stream ended first"
        received += piece
    return received


async def _latency(conversation: Conversation, turns: int = 15) -> float:
    """Median seconds from a message to its terminal event at a reader."""
    taken = []
    for _ in range(turns):
        began = time.monotonic()
        assert (await conversation.ask("hello")).event == "complete"
        taken.append(time.monotonic() - began)
    return statistics.median(taken)
