"""A real `lobu run` on a fixed port, with agents for every scenario, and the stand-in for a provider behind it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import attrs

from tests.fakes.model_provider import KEY, ModelProvider
from tests.system.lobu_process import LobuRun, free_port, lobu_run

ROOT = Path(__file__).parents[3]
CONFIG = f"""
[limits]
drain_grace_seconds = 0.5
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
[workers.openai]
command = ["python", "-m", "lobu_actors.agents.openai"]
[workers.tools]
command = ["{sys.executable}", "{ROOT / "tests" / "workers" / "client_tools.py"}"]
[[agents]]
id = "echo"
worker = "echo"
default = true
[[agents]]
id = "model"
worker = "openai"
model = "openai/test-model"
settings = {{ retries = 0 }}
[[agents]]
id = "impatient"
worker = "openai"
model = "openai/test-model"
deadlines = {{ first_output_seconds = 30, progress_seconds = 3 }}
[[agents]]
id = "tools"
worker = "tools"
"""


@attrs.frozen
class World:
    """`webui`: the address of an Open WebUI in front of it, if there is one."""

    run: LobuRun
    webui: str = ""

    async def kill_workers(self) -> None:
        for found in self.run.processes():
            if "agents.echo" in found.command:
                with suppress(ProcessLookupError):
                    os.kill(found.pid, signal.SIGKILL)

    async def restart(self) -> None:
        """As an operator does it: it drains, and starts again."""
        await self.run.stop()
        await self.run.start()

    async def kill(self) -> None:
        await self.run.kill_main()
        await self.run.start()


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    """On an embedded server of its own."""
    provider = ModelProvider(titles=False)
    async with (
        provider.serving(),
        lobu_run(
            config=CONFIG, arguments=("--port", str(free_port())), environment=environment_of(provider.url)
        ) as run,
    ):
        yield World(run)


def environment_of(provider_url: str) -> dict[str, str]:
    return {"WORKER_ENV_OPENAI_BASE_URL": provider_url, "WORKER_ENV_OPENAI_API_KEY": KEY}
