"""Resource limits of a worker type: what a worker does beyond them, and that its neighbours do not notice."""

from __future__ import annotations

import os
import signal

import pytest

from lobu_actors.contract.frames import Complete
from tests.integration.workers.conftest import text_of
from tests.sandbox_world import ContainedHost, bwrap_missing, contained_host

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a worker a user of its own")
NEEDS_BWRAP = pytest.mark.skipif(bool(bwrap_missing()), reason=bwrap_missing())


def _small(host: ContainedHost) -> None:
    host.make("small", memory_mb=128, open_files=64, file_size_mb=1, processes=24)


async def test_memory_is_bounded_and_reserved_address_space_is_not_counted() -> None:
    async with contained_host(_small) as host:
        client = await host.ready("small")
        reserved = "import mmap\nm = mmap.mmap(-1, 4 << 30, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)\nprint(len(m))"
        assert await host.run(client, reserved) == str(4 << 30)
        assert (await host.run(client, "print(len(bytearray(256 << 20)))")).startswith("MemoryError")


async def test_open_files_and_the_size_of_a_file_are_bounded() -> None:
    async with contained_host(_small) as host:
        client = await host.ready("small")
        assert "Too many open files" in await host.run(client, "files = [open('/dev/null') for _ in range(100)]")
        assert "File too large" in await host.run(client, "open('big', 'wb').write(bytes(2 << 20))")
        assert await host.run(client, "import os\nprint(os.path.getsize('big'))") == str(1 << 20)
        limit = "import resource\nprint(resource.getrlimit(resource.RLIMIT_CORE))"
        assert await host.run(client, limit) == "(0, 0)"


async def test_cpu_time_is_bounded_and_says_so() -> None:
    async with contained_host(lambda host: host.make("brief", cpu_seconds=1)) as host:
        client = await host.ready("brief")
        client.turn("while True: pass")
        gone = await client.gone()
        assert gone.signal == signal.SIGXCPU


@pytest.mark.parametrize("sandbox", ["none", pytest.param("bwrap", marks=NEEDS_BWRAP)])
@NEEDS_ROOT
async def test_a_fork_bomb_is_bounded_and_a_neighbour_works_on(sandbox: str) -> None:
    bomb = """
import os
count = 0
try:
    while True:
        if os.fork() == 0:
            import time
            time.sleep(1000)
        count += 1
except OSError as error:
    print(count, error.strerror)
"""
    async with contained_host(lambda host: host.make("small", processes=24, sandbox=sandbox)) as host:
        client, neighbour = await host.ready("small"), await host.ready("small")
        client.turn(bomb)
        count, _, reason = text_of(await client.frames_until(Complete)).partition(" ")
        assert reason.strip() == "Resource temporarily unavailable"
        assert 10 < int(count) < 24
        assert await host.run(neighbour, "import os\nprint(os.system('true'))") == "0"
        client.worker.kill()
        await client.gone()


@NEEDS_BWRAP
async def test_exits_come_through_a_sandbox() -> None:
    async with contained_host(lambda host: host.make("boxed", sandbox="bwrap")) as host:
        for code, expected in (
            ("import os; os._exit(124)", 124),
            ("import os; os._exit(3)", 3),
            ("import os; os.kill(os.getpid(), 9)", 128 + signal.SIGKILL),
        ):
            client = await host.ready("boxed")
            client.turn(code)
            gone = await client.gone()
            assert (gone.exit_code, gone.signal) == (expected, None)
        client = await host.ready("boxed")
        client.worker.kill()
        assert (await client.gone()).reason == "exited"


async def test_a_program_that_vanished_is_told_with_limits_too() -> None:
    async with contained_host(lambda host: host.make("absent", command=("/no/such",), own_user=False)) as host:
        client = host.start("absent")
        assert (await client.gone()).detail == "The program '/no/such' was not found."
