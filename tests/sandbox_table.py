"""`python -m tests.sandbox_table [FILE]`: every escape of `tests/workers/escapes.py`, tried from inside a real sandbox,
as a table in Markdown; into docs/sandbox.md unless another file is named. Exit 1 when one succeeded.

The worker has a user of its own when this runs as root. `allowed.test` is a name on its list, `*.wild.test` too; names
are resolved by a resolver of this program, everything else is real.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import attrs
import psutil
import trio

from supervisor.sandbox.destinations import parse_destination
from supervisor.sandbox.proxy import Clocks
from supervisor.sandbox.self_test import own_address
from tests.integration.workers.conftest import Client
from tests.sandbox_world import ContainedHost, bwrap_missing, contained_host
from tests.system.lobu_process import until
from tests.workers import escapes

TABLE = Path(__file__).parents[1] / "docs" / "sandbox.md"
HEAD_SECONDS = 1.0
_ADD_KEY = 248  # of x86-64

_TOP = """# Escapes tried from inside a sandbox

Made by `python -m tests.sandbox_table`; the same attempts are tests. A real worker of a type with `sandbox = "bwrap"`
and a list of destinations made each of these {number} attempts. Why the sandbox is built so, and what it does not
protect from: [ADR 15](adr/0015-containment.md).
"""
_GROUPS = {
    "files": "Files",
    "kernel": "The kernel's interfaces",
    "processes": "Processes",
    "network": "Network",
    "proxy": "The proxy, its one way out",
}


@attrs.define
class World:
    """A sandboxed worker, what it is told of the host, and what the host saw of it."""

    host: ContainedHost
    client: Client
    facts: dict[str, Any]
    victim: Path
    received: list[bytes]
    lookups: list[str]

    async def attempt(self, name: str, after: str) -> tuple[bool, str]:
        """Whether it was contained, and what happened; `after` is a method of this."""
        self.received.clear()
        self.lookups.clear()
        said = await self.host.run(self.client, f"run({name!r}, {self.facts!r})")
        contained = bool(said) and escapes.ESCAPED not in said
        if after and contained:
            contained, said = await getattr(self, after)()
        return contained, " ".join(said.split())[:160]

    async def output_refused(self) -> tuple[bool, str]:
        workspace = self.host.workspaces.of(self.client.worker.request.ref)
        [entry] = [entry for entry in await workspace.list_output() if entry.name == "link"]
        return entry.unfit is not None, f"not delivered: {entry.unfit}"

    async def victim_is_there(self) -> tuple[bool, str]:
        workspace = self.host.workspaces.of(self.client.worker.request.ref)
        await workspace.prepare()
        return self.victim.exists(), "the link was replaced by a folder, the host's files are there"

    async def supervisor_lives(self) -> tuple[bool, str]:
        return psutil.pid_exists(self.facts["pid"]), "it reached processes of its own sandbox only"

    async def daemon_ends(self) -> tuple[bool, str]:
        """Ends the worker, too: for the last attempt of all."""
        pid = await _found(self.facts["nap"])
        self.client.worker.kill()
        await self.client.gone()
        await until(lambda: not psutil.pid_exists(pid), "the daemon ended")
        return True, "it ended with the sandbox, when its worker was killed"

    async def looked_up_once(self) -> tuple[bool, str]:
        return self.lookups == ["rebinding.test"], "looked up once; connected to the address that was checked"

    async def one_request_arrived(self) -> tuple[bool, str]:
        data = b"".join(self.received)
        return data.count(b" HTTP/1.1\r\n") == 1 and b"two" not in data, "the first arrived, the second did not"

    async def headers_are_clean(self) -> tuple[bool, str]:
        lines = b"".join(self.received).lower().split(b"\r\n")
        bad = [line for line in lines if line.startswith((b"transfer-", b"x-secret", b"proxy-", b" "))]
        return b"connection: close" in lines and not bad, "arrived on one line, without those of the connection"


async def _found(nap: str) -> int:
    """The pid of the daemon, from outside."""
    found: list[int] = []

    def look() -> bool:
        found[:] = [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", nap]]
        return bool(found)

    await until(look, "the daemon started")
    return found[0]


class Resolver(trio.abc.HostnameResolver):
    """Names of the test. `rebinding.test` leads elsewhere when it is asked for again."""

    def __init__(self, lookups: list[str]) -> None:
        self._lookups = lookups
        self._addresses = {
            "allowed.test": ["127.0.0.1"],
            "rebinding.test": ["127.0.0.1"],
            "loopback.wild.test": ["127.0.0.1"],
            "metadata.wild.test": ["169.254.169.254"],
            "mapped.wild.test": ["::ffff:127.0.0.1"],
            "mixed.wild.test": ["93.184.215.14", "127.0.0.1"],
        }

    async def getaddrinfo(
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        name = os.fsdecode(host)
        self._lookups.append(name)
        again = name == "rebinding.test" and self._lookups.count(name) > 1
        found = ["127.0.0.2"] if again else self._addresses.get(name)
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, type, proto, "", (a, port)) for a in found]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@asynccontextmanager
async def sandboxed_world(own_user: bool | None = None) -> AsyncIterator[World]:
    """The host with its baits, and a worker in a sandbox that knows `escapes`."""
    received: list[bytes] = []
    lookups: list[str] = []
    async with AsyncExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(dir=d))) for d in ("/tmp", "/dev/shm", "/tmp")]
        bait, shm, victim = (folder / "bait" for folder in folders)
        listener = stack.enter_context(closing(socket.create_server(("0.0.0.0", 0))))
        abstract = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
        mark = f"lobu-table-{os.getpid()}"
        abstract.bind(f"\0{mark}")
        abstract.listen()
        ctypes.CDLL(None).syscall(_ADD_KEY, b"user", mark.encode(), b"secret", 6, -3)
        for path in (bait, shm, victim):
            path.write_text("secret")
        for folder in folders:
            folder.chmod(0o755)
        trio.socket.set_custom_hostname_resolver(Resolver(lookups))
        stack.callback(trio.socket.set_custom_hostname_resolver, None)
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        allowed = await _serve(nursery, received)

        def make(host: ContainedHost) -> None:
            names = ("allowed.test", "rebinding.test")
            listed = [parse_destination(f"{name}:{allowed}", private=True) for name in names]
            network = (*listed, parse_destination(f"*.wild.test:{allowed}"))
            host.make("boxed", sandbox="bwrap", network=network, temporary_mb=16, own_user=own_user)

        host = await stack.enter_async_context(contained_host(make, clocks=Clocks(head=HEAD_SECONDS)))
        other = Path(host.workspaces.path) / "other"
        other.mkdir()
        (other / "secret").write_text("secret")
        (host.folder / "admin_key").write_text("secret")
        client = await host.ready("boxed")
        facts = {
            "state_dir": str(host.folder),
            "workspaces": host.workspaces.path,
            "other": str(other),
            "bait": str(bait),
            "shm": str(shm),
            "victims": str(victim.parent),
            "pid": os.getpid(),
            "port": listener.getsockname()[1],
            "address": own_address(),
            "abstract": mark,
            "allowed": allowed,
            "key": mark,
            "nap": f"9{os.getpid()}",
        }
        assert await host.run(client, inspect.getsource(escapes)) == ""
        yield World(host, client, facts, victim, received, lookups)


async def _serve(nursery: trio.Nursery, received: list[bytes]) -> int:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            while b"\r\n\r\n" not in b"".join(received):
                data = await stream.receive_some()
                if not data:
                    return
                received.append(bytes(data))
            await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello from outside")

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, answer, [listener])
    port: int = listener.socket.getsockname()[1]
    return port


def in_order() -> list[tuple[str, escapes.Attempt, str]]:
    """All attempts, the one that ends the worker last."""
    return sorted(escapes.ATTEMPTS, key=lambda attempt: attempt[2] == "daemon_ends")


async def table() -> tuple[list[str], list[str]]:
    """The lines of the page, and the attempts that were not contained."""
    rows: dict[str, list[str]] = {}
    escaped: list[str] = []
    async with sandboxed_world() as world:
        for group, function, after in in_order():
            contained, told = await world.attempt(function.__name__, after)
            if not contained:
                escaped.append(f"{function.__doc__}: {told}")
            for name, value in world.facts.items():  # what differs from run to run
                told = told.replace(str(value), f"`<{name}>`") if len(str(value)) > 3 else told
            said = told.replace("|", "\\|")
            row = f"| {function.__doc__} | {'no' if contained else '**YES**'} | {said} |"
            rows.setdefault(group, []).append(row)
    lines = [_TOP.format(number=len(escapes.ATTEMPTS))]
    for group, found in rows.items():
        lines += [f"## {_GROUPS[group]}", "", "| tried | got out | what happened |", "| --- | --- | --- |", *found, ""]
    return lines, escaped


def main() -> int:
    if problem := bwrap_missing():
        print(problem, file=sys.stderr)
        return 1
    lines, escaped = trio.run(table)
    (Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE).write_text("\n".join(lines))
    print("\n".join(escaped) if escaped else f"{len(escapes.ATTEMPTS)} attempts, none got out")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
