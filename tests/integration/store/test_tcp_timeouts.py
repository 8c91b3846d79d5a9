"""What notices that the other end of a connection is gone: read back from real sockets and from the server."""

from __future__ import annotations

import socket

import pytest

from lobu_actors.store.database_url import TcpTimeouts, with_timeouts
from lobu_actors.store.driver import Connection
from lobu_actors.store.pool import Pool

ON_SERVER = (
    b"SELECT current_setting('tcp_keepalives_idle'), current_setting('tcp_keepalives_interval'),"
    b" current_setting('tcp_keepalives_count'), current_setting('tcp_user_timeout')"
)


def on_client(connection: Connection) -> tuple[int, ...]:
    """Keepalive on, its idle, interval and count; user timeout in milliseconds."""
    with socket.socket(fileno=socket.dup(connection.pgconn.socket)) as own:  # type: ignore[attr-defined]
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        return (
            own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            *(own.getsockopt(socket.IPPROTO_TCP, option) for option in options),
        )


@pytest.mark.parametrize(
    ("timeouts", "client", "server"),
    [
        (TcpTimeouts(), (1, 15, 5, 3, 30_000), ("15", "5", "3", "30000")),
        (TcpTimeouts(20, 6, 4, 40), (1, 20, 6, 4, 40_000), ("20", "6", "4", "40000")),
        (TcpTimeouts(user_timeout_seconds=9), (1, 15, 5, 3, 9_000), ("15", "5", "3", "9000")),
    ],
)
async def test_every_connection_of_a_pool_has_them(
    tcp_url: str, timeouts: TcpTimeouts, client: tuple[int, ...], server: tuple[str, ...]
) -> None:
    pool = Pool(with_timeouts(tcp_url, timeouts))
    try:
        assert await pool.fetch(ON_SERVER, write=False) == [server]
        assert [on_client(connection) for connection in pool._idle] == [client]
        async with pool.connection() as own:
            assert on_client(own) == client
    finally:
        pool.close()


def test_what_the_url_says_stays() -> None:
    url = with_timeouts("postgresql://a@b/c?tcp_user_timeout=5&x=1", TcpTimeouts(20, None, None, 40))
    assert url == "postgresql://a@b/c?tcp_user_timeout=5&x=1&keepalives_idle=20"
    assert with_timeouts("postgresql://a@b/c", TcpTimeouts(20)) == "postgresql://a@b/c?keepalives_idle=20"
    assert with_timeouts("postgresql://a@b/c", TcpTimeouts()) == "postgresql://a@b/c"
