"""The pool against a real server: its bound, reuse, and what happens to it when the server goes."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from lobu_actors.store import pool as pool_module
from lobu_actors.store.errors import StoreRejected, StoreUnavailable
from lobu_actors.store.pool import Pool

PID = b"SELECT pg_backend_pid()"


@pytest.fixture
async def pool(database_url):
    pool = Pool(database_url, size=2, call_timeout_seconds=10)
    yield pool
    pool.close()


async def pid(pool):
    return (await pool.fetch(PID, write=False))[0][0]


async def test_it_opens_lazily_and_uses_the_latest_again(pool):
    assert (pool.idle_count, pool.busy_count) == (0, 0)
    first = await pid(pool)
    assert await pid(pool) == first
    assert (pool.idle_count, pool.busy_count) == (1, 0)


async def test_it_never_opens_more_than_its_size(pool):
    seen = set()

    async def one() -> None:
        [(found, _)] = await pool.fetch(b"SELECT pg_backend_pid(), pg_sleep(0.01)", write=False)
        seen.add(found)

    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(one)
    assert len(seen) == 2
    assert pool.idle_count == 2


async def test_waiting_for_a_connection_has_a_deadline(database_url):
    pool = Pool(database_url, size=1, call_timeout_seconds=2)
    await pid(pool)
    pool._permits.acquire_nowait()
    with trio.fail_after(10), pytest.raises(StoreUnavailable, match="no free database connection"):
        await pid(pool)
    pool._permits.release()
    await pid(pool)
    pool.close()


async def test_a_refused_statement_keeps_the_connection(pool):
    first = await pid(pool)
    with pytest.raises(StoreRejected):
        await pool.fetch(b"SELEKT", write=False)
    assert await pid(pool) == first


async def test_a_cancelled_statement_does_not_come_back(pool):
    first = await pid(pool)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: pool.fetch(b"SELECT pg_sleep(30)", write=False))
        await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert pool.idle_count == 0
    assert await pid(pool) != first


async def test_a_session_that_was_ended_while_idle_is_not_used(pool, database_url):
    first = await pid(pool)
    async with pool.connection() as other:
        await other.fetch(b"SELECT pg_terminate_backend(%(pid)s::int)", {"pid": first}, timeout_seconds=10, write=False)
    [connection] = pool._idle
    with trio.fail_after(10):
        await trio.lowlevel.wait_readable(connection.fileno())
    # Even a write goes through: nothing had been sent on the dead one.
    [(second,)] = await pool.fetch(PID, write=True)
    assert second != first


async def test_when_one_breaks_the_idle_ones_go_too(pool):
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(lambda: pool.fetch(b"SELECT pg_sleep(0.01)", write=False))
    assert pool.idle_count == 2
    with pytest.raises(StoreUnavailable):
        await pool.fetch(b"SELECT pg_terminate_backend(pg_backend_pid())", write=False)
    assert pool.idle_count == 0
    await pid(pool)


@pytest.mark.parametrize(("silent_seconds", "left"), [(60.0, 1), (0.0, 0)])
async def test_who_hangs_up_at_once_takes_no_idle_one_along(pool, monkeypatch, silent_seconds, left):
    """A reader that closes its stream says nothing of the server. Who has waited for long may have found it dead."""
    monkeypatch.setattr(pool_module, "SILENT_SECONDS", silent_seconds)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(lambda: pool.fetch(b"SELECT pg_sleep(0.01)", write=False))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: pool.fetch(b"SELECT pg_sleep(30)", write=False))
        await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert pool.idle_count == left


async def test_closing(pool):
    await pid(pool)
    failed = []

    async def sleep() -> None:
        with pytest.raises(StoreUnavailable):
            await pool.fetch(b"SELECT pg_sleep(30)", write=False)
        failed.append(True)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sleep)
            await wait_all_tasks_blocked(0.01)
            pool.close()
    assert failed == [True]
    assert (pool.idle_count, pool.busy_count) == (0, 0)
    with pytest.raises(StoreUnavailable, match="closed"):
        await pid(pool)
    pool.close()


async def test_a_connection_of_ones_own_is_outside_the_bound(pool):
    async with pool.connection() as mine:
        assert await mine.fetch(b"SELECT 1", None, timeout_seconds=10, write=False) == [(1,)]
        assert pool.busy_count == 0
    assert mine.closed
