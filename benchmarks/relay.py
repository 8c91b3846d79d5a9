"""A cable that can be pulled: a process that passes bytes on, and stops doing so when it is stopped (SIGSTOP).

`python -m benchmarks.relay TARGET…` listens once for each target, a TCP port or the path of a unix socket, and prints
the ports. Who is connected through a stopped relay is told nothing, as when a network is gone.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import attrs

PIECE = 65536


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(PIECE):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _serve(target: str, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
    try:
        if target.isdigit():
            far, there = await asyncio.open_connection("127.0.0.1", int(target))
        else:
            far, there = await asyncio.open_unix_connection(target)
    except OSError:
        back.close()
        return
    async with asyncio.TaskGroup() as group:
        group.create_task(_pass(near, there))
        group.create_task(_pass(far, back))


async def main(targets: Sequence[str]) -> None:
    servers = []
    for target in targets:

        async def serve(near: asyncio.StreamReader, back: asyncio.StreamWriter, target: str = target) -> None:
            await _serve(target, near, back)

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


@attrs.frozen
class Relay:
    ports: tuple[int, ...]
    process: subprocess.Popen[str]

    def cut(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def heal(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextmanager
def relay(*targets: str) -> Iterator[Relay]:
    command = [sys.executable, "-m", "benchmarks.relay", *targets]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Relay(tuple(int(port) for port in process.stdout.readline().split()), process)
        finally:
            process.kill()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1:]))
