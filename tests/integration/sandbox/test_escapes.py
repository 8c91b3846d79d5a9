"""Every escape that is known here, tried from inside a real sandbox; as a user of its own (when this runs as root), and
as the supervisor's user. `python -m tests.sandbox_table` makes a page of the same attempts."""

from __future__ import annotations

import pytest

from tests.sandbox_table import in_order, sandboxed_world
from tests.sandbox_world import bwrap_missing

pytestmark = pytest.mark.skipif(bool(bwrap_missing()), reason=bwrap_missing())


@pytest.mark.parametrize("own_user", [None, False], ids=["own-user", "supervisors-user"])
async def test_no_attempt_gets_out(own_user: bool | None) -> None:
    escaped: dict[str, str] = {}
    async with sandboxed_world(own_user) as world:
        for _group, function, after in in_order():
            contained, told = await world.attempt(function.__name__, after)
            if not contained:
                escaped[function.__name__] = told
    assert escaped == {}


async def test_what_is_listed_is_reached() -> None:
    """Without this, a sandbox in which nothing works at all would pass."""
    async with sandboxed_world() as world:
        port = world.facts["allowed"]
        tunnel = await world.host.run(
            world.client,
            f"""
with socket.create_connection(PROXY, 5) as client:
    client.sendall(b"CONNECT allowed.test:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(client.recv(1000).split(b"\\r\\n")[0])
    client.sendall(b"through the tunnel\\r\\n\\r\\n")
    print(client.recv(1000).split(b"\\r\\n")[-1])
""",
        )
        assert tunnel == "b'HTTP/1.1 200 Connection established'\nb'hello from outside'"
        assert b"".join(world.received) == b"through the tunnel\r\n\r\n"
        world.received.clear()
        plain = await world.host.run(
            world.client,
            f"import urllib.request\n"
            f"print(urllib.request.urlopen('http://allowed.test:{port}/a?b', data=b'body', timeout=5).read())",
        )
        assert plain == "b'hello from outside'"
        assert b"".join(world.received).startswith(b"POST /a?b HTTP/1.1\r\n")
        assert b"".join(world.received).lower().count(b"host: ") == 1
