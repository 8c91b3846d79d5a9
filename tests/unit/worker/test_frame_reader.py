"""Splitting a worker's bytes into lines and frames, however they are cut."""

from __future__ import annotations

import socket

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from lobu_actors.contract.frames import Delta, FrameError, encode
from supervisor.workers.frame_reader import EndOfFrames, FrameReader, LineSplitter, LineTooLong, Pace
from supervisor.workers.frame_writer import BufferFull, FrameWriter

chunks = st.lists(st.binary(max_size=12) | st.sampled_from([b"\n", b"\n\n", b"a\nb"]), max_size=30)


@given(chunks)
def test_lines_do_not_depend_on_how_the_bytes_were_cut(parts: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for part in parts for line in splitter.feed(part)]
    assert lines == b"".join(parts).split(b"\n")[:-1]


@given(chunks, st.integers(min_value=1, max_value=20))
def test_a_line_over_the_limit_is_found_after_the_lines_before_it(parts: list[bytes], limit: int) -> None:
    splitter = LineSplitter(limit)
    whole = b"".join(parts).split(b"\n")
    fitting = next((index for index, line in enumerate(whole) if len(line) > limit), None)
    lines: list[bytes] = []
    too_long = False
    for part in parts:
        try:
            lines += splitter.feed(part)
        except LineTooLong as error:
            lines += error.complete
            too_long = True
            break
    assert too_long == (fitting is not None)
    assert lines == (whole[:-1] if fitting is None else whole[:fitting])


async def test_one_read_is_one_batch_and_a_broken_line_comes_after_what_preceded_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        reader = FrameReader(ours, "w", 1000)
        deltas = tuple(Delta(run_id="r", text=str(number)) for number in range(3))
        theirs.sendall(b"".join(map(encode, deltas)) + b'{"type":"dance"}\nno frame\n' + encode(deltas[0]))
        assert await reader.read() == deltas
        with pytest.raises(FrameError) as caught:
            await reader.read()
        assert caught.value.shown == b"no frame"
        with pytest.raises(FrameError):
            await reader.read()


async def test_an_unfinished_line_at_the_end_is_no_frame() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        with theirs:
            theirs.sendall(encode(Delta(run_id="r", text="a"))[:-1])
        with pytest.raises(EndOfFrames):
            await FrameReader(ours, "w", 1000).read()


def test_a_line_of_8_mib_costs_no_quadratic_work() -> None:
    splitter = LineSplitter()
    data = b"x" * 4096
    for _ in range(2048):
        assert splitter.feed(data) == []
    (line,) = splitter.feed(b"\n")
    assert len(line) == 8 * 1024 * 1024


def test_a_worker_may_say_much_at_once_and_then_as_much_as_others_can_bear() -> None:
    pace = Pace(per_second=100, at_once=50)
    pace.take(50, now=1000.0)
    assert pace.resumes_at == pytest.approx(1000.0)
    pace.take(10, now=1000.0)
    assert pace.resumes_at == pytest.approx(1000.1)
    pace.take(50, now=1100.0)
    assert pace.resumes_at == pytest.approx(1100.0), "a pause is no credit beyond that"


async def test_a_flood_is_read_at_that_pace() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        lines = b'{"type":"heartbeat"}\n' * 100
        reader = FrameReader(ours, "w", 1000)
        begun, read = trio.current_time(), 0
        while read < 1600:
            theirs.sendall(lines)
            read += len(await reader.read())
        assert 0.1 < trio.current_time() - begun < 5


async def test_the_writer_holds_sends_keeps_and_refuses() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        writer = FrameWriter(limit_bytes=1_000_000)
        assert writer.write(b"held") is False
        assert writer.open(ours) is False
        assert theirs.recv(100) == b"held"
        assert writer.write(b"y" * 900_000) is True
        kept = writer.pending_bytes
        assert 0 < kept < 900_000
        with pytest.raises(BufferFull):
            writer.write(b"z" * 1_000_000)
        assert writer.pending_bytes == 0


async def test_the_writer_does_not_mind_a_closed_end() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        writer = FrameWriter(limit_bytes=1000)
        writer.open(ours)
        theirs.close()
        assert writer.write(b"to nobody") is False
        await writer.flush()
