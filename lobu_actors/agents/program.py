"""Another program that this worker drives by JSON lines on its stdin and stdout: started, read, written to, ended.

Owns the process. A worker whose program dies is of no more use, and what the program started may be left behind: so
this worker then ends too, at once, and with it all that came of it; a spawner sees to that. It does not know what the
lines mean. What the program says on stderr is in the worker's log.
"""

import asyncio
import json
import os
from asyncio.subprocess import PIPE, SubprocessStreamProtocol
from collections.abc import Mapping, Sequence
from typing import Any

from lobu_actors.worker import Fail, crash

Json = dict[str, Any]
NOT_STARTED = "AGENT_NOT_STARTED"
MAX_LINE_BYTES = 64 * 1024 * 1024  # files and pictures travel in one line
END_SECONDS = 5.0
_OURS = frozenset({"LOBU_WORKER_FD", "LOBU_ZYGOTE_FD", "WORKER_TOKEN", "DISPATCHER_URL"})
_SHOWN_CHARS = 300


class Program:
    """One running program."""

    def __init__(self, name: str, transport: asyncio.SubprocessTransport, protocol: "_Protocol") -> None:
        assert protocol.stdin is not None
        assert protocol.stdout is not None
        self.name = name
        self._transport = transport
        self._exited = protocol.exited
        self._stdin = protocol.stdin
        self._stdout = protocol.stdout
        self._is_ending = False
        self._has_started = False
        self._watch = asyncio.get_running_loop().create_task(self._await_end())

    @classmethod
    async def start(cls, name: str, command: Sequence[str], environment: Mapping[str, str], folder: str) -> "Program":
        """`environment` is added to the worker's own, without what is the worker's alone. Raises Fail."""
        inherited = {key: value for key, value in os.environ.items() if key not in _OURS}
        environment = inherited | dict(environment)
        try:
            transport, protocol = await asyncio.get_running_loop().subprocess_exec(
                _Protocol, *command, stdin=PIPE, stdout=PIPE, stderr=None, env=environment, cwd=folder
            )
        except OSError as error:
            raise Fail(NOT_STARTED, f"The program {name} ({command[0]}) cannot be started: {error.strerror}.") from None
        return cls(name, transport, protocol)

    def has_started(self) -> None:
        """It said something that makes sense. From here on its end is this worker's end."""
        self._has_started = True

    async def send(self, message: Json) -> None:
        """One line. Waits while the program does not read."""
        self._stdin.write(json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n")
        try:
            await self._stdin.drain()
        except ConnectionError:
            await self._ended()

    async def receive(self) -> Json:
        """The next line that is a JSON object; others are passed over, as programs print what they should not.

        Raises Fail when the program ends before it has started; does not return when it ends later.
        """
        while True:
            try:
                line = await self._stdout.readline()
            except ValueError:
                crash(f"{self.name} wrote a line of more than {MAX_LINE_BYTES} bytes")
            if not line.endswith(b"\n"):
                await self._ended()
            try:
                message = json.loads(line)
            except (ValueError, RecursionError):
                message = None
            if isinstance(message, dict):
                return message
            if line.strip():
                print(f"{self.name} said: {line.decode(errors='replace').strip()[:_SHOWN_CHARS]}", flush=True)

    async def close(self) -> None:
        """Close its stdin, and kill it if that does not end it within 5 s."""
        self._is_ending = True
        self._stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._exited.wait()
        except TimeoutError:
            self._transport.kill()
            await self._exited.wait()
        await self._watch
        self._transport.close()

    async def _ended(self) -> None:
        """Its stdout or stdin is closed: a program without them is as good as dead."""
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._exited.wait()
        except TimeoutError:
            crash(f"{self.name} closed its stdout")
        if self._has_started and not self._is_ending:
            crash(f"{self.name} ended with {self._status()}")
        raise Fail(
            NOT_STARTED, f"The program {self.name} ended with {self._status()} before it was ready; see the log."
        )

    async def _await_end(self) -> None:
        await self._exited.wait()
        if self._has_started and not self._is_ending:
            crash(f"{self.name} ended with {self._status()}")

    def _status(self) -> str:
        code = self._transport.get_returncode()
        return f"signal {-code}" if code is not None and code < 0 else f"exit {code}"


class _Protocol(SubprocessStreamProtocol):
    """Tells that the process ended even while what it started holds its pipes open, for which `Process.wait` waits."""

    def __init__(self) -> None:
        super().__init__(limit=MAX_LINE_BYTES, loop=asyncio.get_running_loop())
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()
