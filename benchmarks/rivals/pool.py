"""One worker process for each conversation, spoken to through its pipes. For the rivals that are Python services.

A worker is started by its conversation's first turn and stays. A turn of a conversation waits for the one before.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

WORKER = Path(__file__).with_name("worker.py")


class WorkerDied(Exception):
    """In the middle of a turn. The next turn gets a new one."""


class Pool:
    def __init__(self) -> None:
        self._workers: dict[str, asyncio.subprocess.Process] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def turn(self, conversation: str, text: str, on_delta: Callable[[str], None]) -> str:
        """The reply. Raises WorkerDied."""
        async with self._locks.setdefault(conversation, asyncio.Lock()):
            worker = await self._worker(conversation)
            assert worker.stdin is not None
            assert worker.stdout is not None
            pieces: list[str] = []
            try:
                worker.stdin.write(json.dumps({"text": text}).encode() + b"\n")
                while line := await worker.stdout.readline():
                    said = json.loads(line)
                    if "done" in said:
                        return "".join(pieces)
                    pieces.append(said["delta"])
                    on_delta(said["delta"])
            except ConnectionError:
                pass
            del self._workers[conversation]
            raise WorkerDied(f"the worker ended with status {await worker.wait()}")

    async def _worker(self, conversation: str) -> asyncio.subprocess.Process:
        found = self._workers.get(conversation)
        if found is None or found.returncode is not None:
            found = await asyncio.create_subprocess_exec(
                sys.executable, "-S", "-E", str(WORKER), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            self._workers[conversation] = found
        return found
