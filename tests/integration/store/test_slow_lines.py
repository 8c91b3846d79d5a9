"""A slow line to the database is no dead one: what moves goes on, what stalls does not, and nothing takes for ever."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from urllib.parse import urlsplit

import pytest
import trio

from lobu_actors.store import driver
from lobu_actors.store.driver import Connection, Row, open_connection
from lobu_actors.store.errors import StoreUnavailable
from lobu_actors.store.moving import MOVED
from tests.fakes.proxy import Proxy

SECONDS = 3.0  # that a statement has; this process, which is both ends of the line, may have to wait for its turn
ANSWER = b"SELECT convert_to(repeat('x', %(size)s::int), 'UTF8')"
QUESTION = b"SELECT octet_length(%(data)s::bytea)"


@asynccontextmanager
async def connected(url: str, bytes_per_second: float) -> AsyncIterator[tuple[Proxy, Connection]]:
    async with trio.open_nursery() as nursery:
        parts = urlsplit(url)
        proxy = Proxy(parts.port or 0, receive_buffer_bytes=32 << 10)
        port = await nursery.start(proxy.run)
        proxy.bytes_per_second = bytes_per_second
        connection = await open_connection(url.replace(f":{parts.port}/", f":{port}/"), timeout_seconds=10)
        yield proxy, connection
        connection.close_now()
        nursery.cancel_scope.cancel()


async def read(connection: Connection, size: int) -> list[Row]:
    return await connection.fetch(ANSWER, {"size": size}, timeout_seconds=SECONDS, write=False, binary=True)


async def test_a_long_answer_is_read_to_its_end(tcp_url: str) -> None:
    async with connected(tcp_url, 300_000) as (_, connection):
        began = trio.current_time()
        assert await read(connection, 1_200_000) == [(b"x" * 1_200_000,)]
        assert trio.current_time() - began > SECONDS
        assert await read(connection, 3) == [(b"xxx",)], "the connection is whole"


async def test_who_waits_for_a_long_answer_is_told_that_it_moves(tcp_url: str) -> None:
    told: list[float] = []
    async with connected(tcp_url, 300_000) as (_, connection):
        token = MOVED.set(lambda: told.append(trio.current_time()))
        await read(connection, 1_200_000)
        MOVED.reset(token)
    assert told[-1] - told[0] > SECONDS
    assert max(later - sooner for sooner, later in pairwise(told)) < SECONDS


async def test_a_long_question_is_sent_to_its_end(tcp_url: str) -> None:
    async with connected(tcp_url, 5_000_000) as (_, connection):
        began = trio.current_time()
        data = b"x" * 20_000_000
        assert await connection.fetch(QUESTION, {"data": data}, timeout_seconds=SECONDS, write=True) == [(len(data),)]
        assert trio.current_time() - began > SECONDS


async def test_an_answer_that_stalls_half_way_is_given_up(tcp_url: str) -> None:
    async with connected(tcp_url, 300_000) as (proxy, connection), trio.open_nursery() as nursery:

        @nursery.start_soon
        async def stall() -> None:
            await trio.sleep(2)
            proxy.stall()

        with trio.fail_after(10), pytest.raises(StoreUnavailable, match="no answer"):
            await read(connection, 4_000_000)
        assert connection.closed


async def test_a_trickle_is_given_up_at_last(tcp_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "MOST_DEADLINES", 2)
    async with connected(tcp_url, 200_000) as (_, connection):
        began = trio.current_time()
        with trio.fail_after(20), pytest.raises(StoreUnavailable, match="no answer"):
            await read(connection, 4_000_000)
        assert trio.current_time() - began < 4 * SECONDS
