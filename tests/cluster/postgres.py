"""The one Postgres of a cluster, in a network namespace of its own: our embedded server, listening on an address.

`python -m tests.cluster.postgres FOLDER ADDRESS` is the process that runs there: it starts the server, says so, obeys
`restart` on its standard input, and ends with it. `Database` is the handle on such a process.
"""

from __future__ import annotations

import ipaddress
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from lobu_actors.store.embedded import DATABASE, ROLE, EmbeddedServer, running_url
from lobu_actors.store.migrate import migrate
from tests.cluster.network import Network
from tests.conftest import make_folder

NAME = "db"
PORT = 5432
START_SECONDS = 90.0
SETTINGS = {"max_connections": "200", "fsync": "off", "full_page_writes": "off"}  # processes are killed, not machines


class Database:
    """Made by `database`. `url` is what hosts use; `local_url` is a unix socket that no cut reaches."""

    def __init__(self, process: trio.Process, folder: Path, address: str) -> None:
        self.address = address
        self.url = f"postgresql://{ROLE}@{address}:{PORT}/{DATABASE}"
        self._process = process
        self._folder = folder

    @property
    def local_url(self) -> str:
        url = running_url(self._folder)
        assert url is not None, "the database is not running"
        return url

    async def restart(self) -> None:
        """A crash: all sessions end at once, and the server recovers. It takes connections when this returns."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(b"restart\n")
        await self.hear("restarted")

    async def hear(self, word: str) -> None:
        assert self._process.stdout is not None
        said = b""
        with trio.fail_after(START_SECONDS):
            while not said.endswith(b"\n"):
                more = await self._process.stdout.receive_some(4096)
                assert more, "the database ended"
                said += more
        assert said.decode().split() == [word], f"the database said {said!r}, not {word}"


@asynccontextmanager
async def database(network: Network) -> AsyncIterator[Database]:
    """Migrated and empty."""
    folder, address = make_folder(), network.add(NAME)
    command = [*network.inside(NAME), sys.executable, "-m", "tests.cluster.postgres", str(folder), address]
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        made = Database(process, folder, address)
        await made.hear("ready")
        await migrate(made.local_url)
        yield made
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + START_SECONDS):
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdin.aclose()
            await process.wait()
            await process.stdout.aclose()
        shutil.rmtree(folder, ignore_errors=True)


async def serve(folder: Path, address: str) -> None:
    hba = folder / "pg_hba.conf"
    hba.write_text(f"local all all trust\nhost all all {ipaddress.ip_interface(f'{address}/24').network} trust\n")
    hba.chmod(0o644)
    server = EmbeddedServer(folder, settings={**SETTINGS, "listen_addresses": address, "hba_file": str(hba)})
    await server.start()
    try:
        print("ready", flush=True)
        orders = trio.lowlevel.FdStream(sys.stdin.fileno())
        while await orders.receive_some(64):
            await server.restart("immediate")
            print("restarted", flush=True)
    finally:
        with trio.CancelScope(shield=True):  # bounded: it kills in the end
            await server.stop("immediate")


if __name__ == "__main__":
    trio.run(serve, Path(sys.argv[1]), sys.argv[2])
