"""The one driver file: psycopg 3's C core waiting on trio. Owns connections, deadlines and the mapping of errors.

Knows no table and no query, save what it says once to a new session.

Model: a connection runs one statement at a time, in autocommit. `fetch` is the only way to use it, always under a
deadline, which moves on while bytes do, to a bound: a session of many megabytes over a slow line is no dead server. A
statement that does not come to its own end (cancelled, out of time, server gone) leaves the protocol in the
middle of a message, so the connection is closed for good: the server is asked, within a bound, to drop the statement,
and nothing is read any more. A statement that ends with an ERROR was rolled back by the server, and the connection
stays usable.

What the caller learns: StoreUnavailable only when nothing can have happened (it never left, it only read, or the
server says that it rolled back); StoreOutcomeUnknown for a write that was sent and has no answer. Rejected: to read on
after the cancel request in order to learn the outcome. It would take a second wait, and callers have keys to ask by.
"""

from __future__ import annotations

import contextlib
import math
import select
from collections.abc import Generator
from types import TracebackType
from typing import Any, TypeVar, cast

import msgspec
import psycopg
import trio
from psycopg import generators, pq, sql
from psycopg.adapt import Dumper, PyFormat, Transformer
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import set_json_loads
from psycopg.types.numeric import Int8Dumper
from psycopg.waiting import Ready, Wait

from lobu_actors.store.errors import (
    InvalidDatabaseUrl,
    StoreDuplicate,
    StoreError,
    StoreOutcomeUnknown,
    StoreRejected,
    StoreUnavailable,
)
from lobu_actors.store.moving import MOVED
from lobu_actors.store.queries import positional, query

T = TypeVar("T")
Row = tuple[Any, ...]

MOST_DEADLINES = 12  # that a statement may take in all while what is sent or received goes on; by default two minutes
CANCEL_SECONDS = 1.0  # how long a dead statement may keep its caller for asking the server to drop it
PREPARED_MAX = 300  # more than there are queries, times the types that a NULL may change

# SQLSTATE classes and codes after which the statement was certainly rolled back and may succeed later.
_READ_ONLY = "25006"  # this session may stay so for ever, while another one would not be, on this server or another
_TRY_AGAIN = frozenset({"40001", "40P01", "40000", "55P03", "57014", "57P03", _READ_ONLY})
_TRY_AGAIN_CLASSES = frozenset({"53", "58"})
# The server ends the session: whether it had committed is not said.
_SESSION_ENDED = frozenset({"57P01", "57P02", "57P04", "57P05", "25P03", "25P04"})

_DEFAULTS: dict[str, str | int] = {
    "application_name": "lobu",
    "gssencmode": "disable",
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_TIMEOUTS = ("keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")


class TextsDumper(Dumper):
    """Lists, which are of texts wherever a statement takes one; psycopg looks at each element for what it is."""

    oid = psycopg.adapters.types["text"].array_oid

    def dump(self, obj: list[str | None]) -> bytes:
        return b"{%b}" % ",".join("NULL" if text is None else _quoted(text) for text in obj).encode()


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _OneUser:
    """In place of psycopg's lock. The pool gives a connection to one task, so waiting here would hide a bug."""

    def __init__(self) -> None:
        self._taken = False

    async def __aenter__(self) -> None:
        if self._taken:
            raise RuntimeError("two tasks use one database connection")
        self._taken = True

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._taken = False


async def _ready(fd: int, state: Wait) -> Ready:
    if state == Wait.R:
        await trio.lowlevel.wait_readable(fd)
        return Ready.R
    if state == Wait.W:
        await trio.lowlevel.wait_writable(fd)
        return Ready.W
    ready = 0

    async def wait_for(kind: Ready) -> None:
        nonlocal ready
        await (trio.lowlevel.wait_readable if kind == Ready.R else trio.lowlevel.wait_writable)(fd)
        ready |= kind
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for, Ready.R)
        nursery.start_soon(wait_for, Ready.W)
    return Ready(ready)


async def _drive(generator: Generator[tuple[int, Wait], Ready, T]) -> T:
    """Drive a generator of psycopg's that names the descriptor itself (it changes while connecting)."""
    try:
        fd, state = next(generator)
        while True:
            fd, state = generator.send(await _ready(fd, state))
    except StopIteration as stop:
        return cast(T, stop.value)
    finally:
        generator.close()


class Connection(psycopg.AsyncConnection[Row]):
    """One session, in autocommit. Made by `open_connection`."""

    def __init__(self, pgconn: Any, row_factory: Any = psycopg.rows.tuple_row) -> None:
        super().__init__(pgconn, row_factory)
        self.lock = cast(Any, _OneUser())
        self._transformer = Transformer(self)  # one, since it looks for the way of each type once
        self._names: dict[tuple[bytes, tuple[int, ...]], bytes] = {}  # of what is prepared, by statement and types
        self._poll = select.poll()
        self._poll.register(self.pgconn.socket, select.POLLIN)
        self._allowed = trio.CancelScope()
        self._allowed_seconds = 0.0
        self._latest = math.inf

    async def wait(self, gen: Any, interval: float = 0, timeout: float | None = None) -> Any:
        """psycopg's hook: drive one operation to its end. Deadlines are those of `fetch`."""
        fd = self.pgconn.socket
        try:
            state = next(gen)
            while True:
                if state == Wait.R:  # nearly always
                    await trio.lowlevel.wait_readable(fd)
                    state = gen.send(Ready.R)
                else:
                    state = gen.send(await _ready(fd, state))
                self._moved()
        except StopIteration as stop:
            return stop.value

    def _moved(self) -> None:
        """Something was sent or received, and that was not all."""
        allowed, until = self._allowed, trio.current_time() + self._allowed_seconds
        allowed.deadline = max(allowed.deadline, min(until, self._latest))
        if (tell := MOVED.get()) is not None:
            tell()

    async def fetch(
        self,
        statement: bytes,
        params: dict[str, Any] | None,
        *,
        timeout_seconds: float,
        write: bool,
        binary: bool = False,
    ) -> list[Row]:
        """Run one statement and give its rows. `params` None: not prepared, so fit for any session and for a script.

        `timeout_seconds` without a byte sent or received end it, as do `MOST_DEADLINES` times as many in all.

        Raises StoreUnavailable, StoreOutcomeUnknown (only with `write`) or StoreRejected. After any other ending than
        rows or a server's ERROR the connection is closed; and after the one that says that it only reads.
        """
        settled = False
        self._allowed_seconds, self._latest = timeout_seconds, trio.current_time() + MOST_DEADLINES * timeout_seconds
        try:
            with trio.CancelScope(relative_deadline=timeout_seconds) as self._allowed:
                rows = await (self._run_once(statement) if params is None else self._run(statement, params, binary))
                settled = True
                return rows
        except psycopg.Error as error:
            settled = not self.closed and error.sqlstate != _READ_ONLY
            raise store_error(error, write=write) from error
        except trio.ClosedResourceError:
            raise _broken("the connection was closed under a statement", write) from None
        finally:
            if not settled:
                await self.discard()
        raise _broken(f"no answer from the database within {timeout_seconds:g} s", write)

    async def _run(self, statement: bytes, params: dict[str, Any], binary: bool) -> list[Row]:
        """As a prepared statement of this session, and below psycopg's cursors, which cost more than all the rest."""
        text, names = positional(statement)
        async with self.lock:
            transformer = self._transformer
            values = transformer.dump_sequence([params[name] for name in names], [PyFormat.AUTO] * len(names))
            types = transformer.types or ()
            name = self._names.get((statement, types))
            if name is None:
                # What comes when the session holds as many as it may is prepared without a name, each time anew.
                name = b"lobu_%d" % len(self._names) if len(self._names) < PREPARED_MAX else b""
                self.pgconn.send_prepare(name, text, types)
                await self._result()
                if name:
                    self._names[statement, types] = name
            form = pq.Format.BINARY if binary else pq.Format.TEXT
            self.pgconn.send_query_prepared(name, values, transformer.formats, form)
            result = await self._result()
            if result.status != pq.ExecStatus.TUPLES_OK:
                return []
            transformer.set_pgresult(result)
            rows = transformer.load_rows(0, result.ntuples, tuple)
            transformer.set_pgresult(None)  # which it would keep
            return rows

    async def _result(self) -> Any:
        """Of what was sent. Raises psycopg.Error."""
        [result] = await self.wait(generators.execute(self.pgconn))
        if result.status not in (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK):
            raise psycopg.errors.error_from_result(result)
        return result

    async def _run_once(self, statement: bytes) -> list[Row]:
        cursor = await self.execute(statement, prepare=False)
        if cursor.pgresult is not None and cursor.pgresult.status == pq.ExecStatus.TUPLES_OK:
            return await cursor.fetchall()
        return []

    async def listen(self, channel: str, *, timeout_seconds: float) -> None:
        """Hear a channel from now on: see `heard`. Raises as `fetch`."""
        statement = sql.SQL(cast(Any, query("listen").decode())).format(channel=sql.Identifier(channel))
        await self.fetch(statement.as_bytes(self), None, timeout_seconds=timeout_seconds, write=False)

    def heard(self) -> list[str]:
        """The payloads that have come on channels that are listened to. Raises StoreUnavailable."""
        try:
            self.pgconn.consume_input()
        except psycopg.Error as error:
            self.close_now()
            raise _broken(str(error).strip(), write=False) from error
        payloads: list[str] = []
        while (notice := self.pgconn.notifies()) is not None:
            payloads.append(notice.extra.decode(errors="replace"))
        return payloads

    async def wait_readable(self) -> None:
        """Until the server says something, unasked. Raises StoreUnavailable when the connection is closed meanwhile."""
        try:
            await trio.lowlevel.wait_readable(self.pgconn.socket)
        except (trio.ClosedResourceError, psycopg.Error):
            raise _broken("the connection was closed", write=False) from None

    @property
    def quiet(self) -> bool:
        """False once the server has said something unasked or hung up. Costs one system call, sends nothing."""
        return not self.closed and not self._poll.poll(0)

    async def discard(self) -> None:
        """Close for good; when a statement is under way, ask the server to drop it first. Bounded; never raises."""
        if not self.closed and self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            with trio.move_on_after(CANCEL_SECONDS, shield=True):
                # When it is gone already, closing is all that is left.
                with contextlib.suppress(psycopg.Error, OSError):
                    await _drive(cast(Any, self._cancel_gen()))
        self.close_now()

    def close_now(self) -> None:
        """Close without asking anyone. A task that waits on this connection gets an error."""
        if not self.closed:
            trio.lowlevel.notify_closing(self.pgconn.socket)
        self._closed = True
        self.pgconn.finish()


def _broken(message: str, write: bool) -> StoreError:
    return StoreOutcomeUnknown(message) if write else StoreUnavailable(message)


def store_error(error: psycopg.Error, *, write: bool) -> StoreError:
    """Our error for psycopg's, for a statement that was sent."""
    state = error.sqlstate
    # Without the server's DETAIL, which quotes the row that was refused: what people wrote is in it.
    message = error.diag.message_primary or str(error).strip() or type(error).__name__
    if state is None:
        known = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))
        return _broken(message, write) if known else StoreRejected(message)
    if state in _SESSION_ENDED or state.startswith("08"):
        return _broken(message, write)
    if state in _TRY_AGAIN or state[:2] in _TRY_AGAIN_CLASSES:
        return StoreUnavailable(message)
    if state == "23505":
        return StoreDuplicate(message)
    return StoreRejected(f"{message} ({state})")


async def _attempts(url: str) -> list[dict[str, Any]]:
    """The hosts of a URL, one connection attempt each, with names resolved: libpq itself would block on DNS. Of several
    hosts the one is wanted that takes writes, unless the URL says otherwise."""
    try:
        given = {**_DEFAULTS, **conninfo_to_dict(url)}
    except psycopg.ProgrammingError as error:
        raise InvalidDatabaseUrl(f"the database URL cannot be read: {str(error).strip()}") from None
    hosts = str(given.get("host") or "").split(",")
    ports = str(given.get("port") or "").split(",")
    if len(hosts) > 1:
        given.setdefault("target_session_attrs", "read-write")
    if given.get("hostaddr") or len(ports) not in (1, len(hosts)):
        return [given]
    attempts: list[dict[str, Any]] = []
    for number, host in enumerate(hosts):
        port = ports[number if len(ports) > 1 else 0]
        one = {**given, "host": host, "port": port}
        if not host or host.startswith(("/", "@")):
            attempts.append(one)
            continue
        try:
            found = await trio.socket.getaddrinfo(host, port or 5432, type=trio.socket.SOCK_STREAM)
        except OSError:
            continue
        attempts.extend({**one, "hostaddr": address} for address in dict.fromkeys(str(info[4][0]) for info in found))
    return attempts


async def open_connection(url: str, *, timeout_seconds: float, application_name: str | None = None) -> Connection:
    """A fresh session in autocommit, prepared. `application_name` wins over the URL's.

    Raises StoreUnavailable when no host answers in time, InvalidDatabaseUrl when the URL cannot be read.
    """
    failures: list[str] = []
    with trio.move_on_after(timeout_seconds):
        for attempt in await _attempts(url):
            if application_name is not None:
                attempt["application_name"] = application_name
            try:
                return await _open_one(attempt)
            except psycopg.Error as error:
                failures.append(str(error).strip())
        raise StoreUnavailable("; ".join(failures) or "the database host's name cannot be resolved")
    raise StoreUnavailable("; ".join([*failures, f"no database connection within {timeout_seconds:g} s"]))


async def _open_one(attempt: dict[str, Any]) -> Connection:
    values = {key: value for key, value in attempt.items() if value not in ("", None)}
    connection = await _drive(cast(Any, Connection._connect_gen(make_conninfo("", **values))))
    try:
        connection._autocommit = True
        # Every int as int8: psycopg's choice by magnitude would prepare one statement once per size.
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.adapters.register_dumper(list, TextsDumper)
        set_json_loads(msgspec.json.decode, connection)
        await connection.execute(query("prepare_session"), prepare=False)
        timeouts = {name: str(values.get(name, "0")) for name in _TIMEOUTS}
        if timeouts != {name: str(_DEFAULTS[name]) for name in _TIMEOUTS}:
            await connection.execute(query("set_server_timeouts"), timeouts, prepare=False)
    except BaseException:
        connection.close_now()
        raise
    return cast(Connection, connection)


__all__ = ["Connection", "Row", "open_connection", "store_error"]
