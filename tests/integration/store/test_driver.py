"""The driver against a real server: deadlines, cancellation, broken sessions, and what the caller is told."""

import psycopg
import pytest
import trio

from lobu_actors.store import driver
from lobu_actors.store.driver import open_connection, store_error
from lobu_actors.store.errors import (
    InvalidDatabaseUrl,
    StoreDuplicate,
    StoreOutcomeUnknown,
    StoreRejected,
    StoreUnavailable,
)

SLEEP = b"SELECT pg_sleep(30)"


@pytest.fixture
async def connection(database_url):
    connection = await open_connection(database_url, timeout_seconds=10, application_name="lobu test")
    yield connection
    connection.close_now()


async def fetch(connection, statement, params=None, *, write=False, seconds=10.0):
    return await connection.fetch(statement, params, timeout_seconds=seconds, write=write)


async def backends(url, like):
    """How many other sessions are busy with a statement like this."""
    watcher = await open_connection(url, timeout_seconds=10)
    try:
        statement = (
            b"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
            b" AND datname = current_database() AND query LIKE %(like)s"
        )
        return (await fetch(watcher, statement, {"like": like}))[0][0]
    finally:
        watcher.close_now()


async def until(condition):
    with trio.fail_after(60):
        while not await condition():
            await trio.lowlevel.checkpoint()


async def test_a_session_is_prepared(connection):
    statement = (
        b"SELECT current_setting('TimeZone'), current_setting('jit'), current_setting('application_name'),"
        b" current_setting('synchronous_commit')"
    )
    assert await fetch(connection, statement) == [("UTC", "off", "lobu test", "on")]
    assert connection.autocommit


async def test_values_come_and_go(connection):
    statement = b"SELECT %(i)s::bigint, %(t)s::text, %(j)s::jsonb, %(b)s::bytea, %(n)s::text, %(a)s::text[]"
    params = {"i": 2**40, "t": "a'%s", "j": '{"x": [1]}', "b": b"\x00\xff", "n": None, "a": ["x", 'y"{,']}
    assert await fetch(connection, statement, params) == [(2**40, "a'%s", {"x": [1]}, b"\x00\xff", None, ["x", 'y"{,'])]
    [row] = await connection.fetch(b"SELECT %(b)s::bytea", params, timeout_seconds=5, write=False, binary=True)
    assert row == (b"\x00\xff",)


async def test_lists_of_any_text(connection):
    texts = ["", "NULL", None, "a,b", '"', "\\", "{}", " x ", "\n\t", "ä\U0001f600", '\\\\"']
    assert await fetch(connection, b"SELECT %(a)s::text[], %(b)s::text[]", {"a": texts, "b": []}) == [(texts, [])]


async def test_statements_are_prepared_once_for_every_size_of_number(connection):
    for number in (1, 70_000, 2**40):
        for _ in range(3):
            assert await fetch(connection, b"SELECT %(n)s + 0", {"n": number}) == [(number,)]
    [(count,)] = await fetch(connection, b"SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%+ 0'")
    assert count == 1


async def test_a_session_holds_no_more_than_it_may(connection, monkeypatch):
    monkeypatch.setattr(driver, "PREPARED_MAX", 2)
    for number in range(5):
        for _ in range(2):
            assert await fetch(connection, b"SELECT %%(n)s + %d" % number, {"n": 1}) == [(1 + number,)]
    assert await fetch(connection, b"SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == [(2,)]


async def test_an_error_does_not_quote_the_row_that_was_refused(connection):
    await fetch(connection, b"CREATE TABLE t (content text, n int CHECK (n > 0))", write=True)
    with pytest.raises(StoreRejected, match="violates check constraint") as caught:
        await fetch(connection, b"INSERT INTO t VALUES ('what people wrote', 0)", write=True)
    assert "what people wrote" not in str(caught.value)


async def test_a_large_statement_is_sent_and_read_at_the_same_time(connection):
    blob = bytes(range(256)) * 40_000
    [(echoed,)] = await fetch(connection, b"SELECT %(b)s::bytea", {"b": blob})
    assert echoed == blob


@pytest.mark.parametrize(("write", "error"), [(False, StoreUnavailable), (True, StoreOutcomeUnknown)])
async def test_a_deadline_closes_the_connection_and_drops_the_statement(connection, database_url, write, error):
    with pytest.raises(StoreUnavailable, match="no answer") as caught:
        await fetch(connection, SLEEP, write=write, seconds=0.05)
    assert type(caught.value) is error
    assert connection.closed

    async def gone() -> bool:
        return await backends(database_url, "%pg_sleep%") == 0

    await until(gone)


async def test_cancellation_closes_the_connection_and_drops_the_statement(connection, database_url):
    async def asleep() -> bool:
        return await backends(database_url, "%pg_sleep(30)%") == 1

    async def gone() -> bool:
        return await backends(database_url, "%pg_sleep%") == 0

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, connection, SLEEP)
            await until(asleep)
            nursery.cancel_scope.cancel()
    assert connection.closed
    await until(gone)


async def test_a_cancelled_write_may_have_happened_only_before_the_answer(connection, database_url):
    """Cancelled while it waits for a lock: the server drops it, so it did not happen."""
    await fetch(connection, b"CREATE TABLE t (x int); INSERT INTO t VALUES (1)", write=True)
    blocker = await open_connection(database_url, timeout_seconds=10)
    await fetch(blocker, b"BEGIN", write=True)
    await fetch(blocker, b"UPDATE t SET x = 2", write=True)
    with pytest.raises(StoreOutcomeUnknown):
        await fetch(connection, b"UPDATE t SET x = 3", write=True, seconds=0.05)

    async def dropped() -> bool:
        return await backends(database_url, "UPDATE t SET x = 3") == 0

    await until(dropped)
    await fetch(blocker, b"COMMIT", write=True)
    assert await fetch(blocker, b"SELECT x FROM t") == [(2,)]
    blocker.close_now()


@pytest.mark.parametrize(("write", "error"), [(False, StoreUnavailable), (True, StoreOutcomeUnknown)])
async def test_the_server_ends_the_session_in_the_middle(connection, database_url, write, error):
    other = await open_connection(database_url, timeout_seconds=10)
    pid = connection.info.backend_pid
    caught = []

    async def query() -> None:
        with pytest.raises(StoreUnavailable) as info:
            await fetch(connection, SLEEP, write=write)
        caught.append(info.type)

    async def asleep() -> bool:
        return await backends(database_url, "%pg_sleep(30)%") == 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(query)
        await until(asleep)
        await fetch(other, b"SELECT pg_terminate_backend(%(pid)s::int)", {"pid": pid})
    assert caught == [error]
    assert connection.closed
    other.close_now()


async def test_closing_under_a_statement_wakes_it(connection, database_url):
    async def query() -> None:
        with pytest.raises(StoreOutcomeUnknown):
            await fetch(connection, SLEEP, write=True)

    async def asleep() -> bool:
        return await backends(database_url, "%pg_sleep(30)%") == 1

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(query)
            await until(asleep)
            connection.close_now()


async def test_a_refused_statement_leaves_the_connection_usable(connection):
    with pytest.raises(StoreRejected, match="42601"):
        await fetch(connection, b"SELEKT", write=True)
    await fetch(connection, b"CREATE TABLE t (x int PRIMARY KEY)", write=True)
    await fetch(connection, b"INSERT INTO t VALUES (1)", write=True)
    with pytest.raises(StoreDuplicate):
        await fetch(connection, b"INSERT INTO t VALUES (1)", write=True)
    assert await fetch(connection, b"SELECT x FROM t") == [(1,)]


async def test_what_the_server_rolled_back_may_be_tried_again(connection):
    await fetch(connection, b"SET statement_timeout = 20", write=True)
    with pytest.raises(StoreUnavailable) as caught:
        await fetch(connection, SLEEP, write=True)
    assert not isinstance(caught.value, StoreOutcomeUnknown)
    assert not connection.closed


@pytest.mark.parametrize(
    ("error", "read", "write"),
    [
        (psycopg.errors.SerializationFailure, StoreUnavailable, StoreUnavailable),
        (psycopg.errors.DeadlockDetected, StoreUnavailable, StoreUnavailable),
        (psycopg.errors.LockNotAvailable, StoreUnavailable, StoreUnavailable),
        (psycopg.errors.CannotConnectNow, StoreUnavailable, StoreUnavailable),
        (psycopg.errors.TooManyConnections, StoreUnavailable, StoreUnavailable),
        (psycopg.errors.DiskFull, StoreUnavailable, StoreUnavailable),
        (psycopg.errors.ReadOnlySqlTransaction, StoreUnavailable, StoreUnavailable),
        (psycopg.errors.AdminShutdown, StoreUnavailable, StoreOutcomeUnknown),
        (psycopg.errors.CrashShutdown, StoreUnavailable, StoreOutcomeUnknown),
        (psycopg.OperationalError, StoreUnavailable, StoreOutcomeUnknown),
        (psycopg.errors.UniqueViolation, StoreDuplicate, StoreDuplicate),
        (psycopg.errors.UndefinedTable, StoreRejected, StoreRejected),
        (psycopg.DataError, StoreRejected, StoreRejected),
    ],
)
def test_errors_are_split_by_what_to_do(error, read, write):
    assert type(store_error(error("x"), write=False)) is read
    assert type(store_error(error("x"), write=True)) is write


async def test_a_connection_is_for_one_task(connection, database_url):
    async with trio.open_nursery() as nursery:

        async def asleep() -> bool:
            return await backends(database_url, "%pg_sleep(30)%") == 1

        async def first() -> None:
            with pytest.raises(StoreUnavailable):
                await fetch(connection, SLEEP)

        nursery.start_soon(first)
        await until(asleep)
        with pytest.raises(RuntimeError, match="two tasks"):
            await fetch(connection, b"SELECT 1")


async def test_connecting_fails_in_time_and_says_why(tmp_path, database_url):
    with pytest.raises(StoreUnavailable, match="No such file"):
        await open_connection(f"postgresql://u@/db?host={tmp_path}", timeout_seconds=5)
    with pytest.raises(StoreUnavailable, match="does not exist"):
        await open_connection(database_url.replace("lobu_test", "nothing_lobu_test"), timeout_seconds=5)
    with pytest.raises(InvalidDatabaseUrl):
        await open_connection("postgresql://u@/db?nonsense=1", timeout_seconds=5)


async def test_connecting_to_a_silent_server_has_a_deadline():
    listener = trio.socket.socket()
    await listener.bind(("127.0.0.1", 0))
    listener.listen()
    port = listener.getsockname()[1]
    with trio.fail_after(10), pytest.raises(StoreUnavailable, match=r"within 0\.1 s"):
        await open_connection(f"postgresql://u@localhost:{port}/db", timeout_seconds=0.1)
    listener.close()


async def test_the_next_host_is_tried(database_url, tmp_path):
    socket_dir = database_url.partition("host=")[2]
    several = database_url.replace(f"host={socket_dir}", f"host={tmp_path},{socket_dir}")
    connection = await open_connection(several, timeout_seconds=10)
    assert await fetch(connection, b"SELECT 1") == [(1,)]
    connection.close_now()
