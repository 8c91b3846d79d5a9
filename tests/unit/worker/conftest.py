"""A worker program on the SDK in a process of its own, and a plain blocking socket as its supervisor."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from lobu_actors.contract import frames
from lobu_actors.contract.frames import Complete, Delta, Fail, Frame, Hello, Ready, TurnFrame

PATIENCE_SECONDS = 20.0


class Program:
    """One running worker."""

    def __init__(self, source: str, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(PATIENCE_SECONDS)
        self.socket = ours
        self.lines = ours.makefile("rb")
        self.folder = folder
        self.session_file = folder / ".openclaw" / "session.jsonl"
        self._temporary = TemporaryDirectory(prefix="lobu-")  # short, since sockets may lie in it
        path = folder / "worker.py"
        path.write_text(source)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, str(path)],
                env={
                    "LOBU_WORKER_FD": str(theirs.fileno()),
                    "PATH": os.defpath,
                    "TMPDIR": self._temporary.name,
                },
                pass_fds=(theirs.fileno(),),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.runs = 0

    def say(self, frame: Frame) -> None:
        self.socket.sendall(frames.encode(frame))

    def hear(self) -> Frame:
        line = self.lines.readline()
        assert line, f"the worker ended: {self.output()}"
        return frames.decode_worker_frame(line)

    def greet(self, **deadlines: float) -> Ready:
        self.say(
            Hello(
                worker_id="w",
                organization_id="o",
                agent_id="a",
                conversation_id="c",
                workspace=str(self.folder),
                session_file=str(self.session_file),
                settings={"model": "openai/gpt", "colour": "blue"},
                deadlines=deadlines,
            )
        )
        ready = self.hear()
        assert isinstance(ready, Ready)
        return ready

    def turn(self, *texts: str, attempt: int = 1) -> str:
        self.runs += 1
        run_id = f"r{self.runs}"
        messages = [{"messageId": f"m{self.runs}-{n}", "content": text} for n, text in enumerate(texts)]
        self.say(TurnFrame(run_id=run_id, attempt=attempt, messages=messages, run_token="t"))
        return run_id

    def until(self, *kinds: type[Frame]) -> list[Frame]:
        found = [self.hear()]
        while not isinstance(found[-1], kinds):
            found.append(self.hear())
        return found

    def reply(self, *texts: str, **turn: Any) -> str:
        self.turn(*texts, **turn)
        found = self.until(Complete, Fail)
        assert isinstance(found[-1], Complete), found
        return "".join(frame.text for frame in found if isinstance(frame, Delta))

    def fail(self) -> Fail:
        last = self.until(Complete, Fail)[-1]
        assert isinstance(last, Fail), last
        return last

    def output(self) -> str:
        """All of stdout and stderr; ends the process."""
        self.socket.close()
        self.lines.close()
        return self.process.communicate(timeout=PATIENCE_SECONDS)[0]

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.socket.close()
        self.lines.close()
        self.process.wait(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._temporary.cleanup()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Start a worker whose source defines `reply`."""
    started: list[Program] = []

    def start(body: str, serve: str = "serve(reply)") -> Program:
        source = f"from lobu_actors.worker import BlockingTurn, Cancelled, Fail, Turn, serve\n{body}\n{serve}\n"
        started.append(Program(source, tmp_path))
        return started[-1]

    yield start
    for found in started:
        found.close()
