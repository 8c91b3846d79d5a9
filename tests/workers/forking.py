"""What tests of zygotes ask of workers and of /proc. The programs reply with what a Python expression is worth."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

PATIENCE = 60.0
# `born` is where its module was loaded.
PROGRAM = """
import ctypes, json, os, random, signal, subprocess, sys, threading, time
born = os.getpid()
{body}
from lobu_actors.worker import Fail, serve
def look(turn):
    if turn.content.startswith("!"):
        exec(turn.content[1:], globals())
        return "done"
    return json.dumps(eval(turn.content, globals()))
if __name__ == "__main__":
    serve(look)
"""


async def until(holds: Callable[[], Any]) -> None:
    """Look again and again, for what no event tells of."""
    with trio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110
            await trio.sleep(0.02)


def children_of(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def environ_of(pid: int) -> dict[str, str]:
    """Empty for a process that is gone."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if entry)
    return {name: value for name, _, value in pairs}


def zygotes_of(host: Any) -> list[int]:
    return [pid for pid in _loaded(host) if _session_of(pid) == pid]


def waiting_of(host: Any) -> list[int]:
    """Workers that are forked and wait for their order."""
    return [pid for pid in _loaded(host) if _session_of(pid) not in (pid, None)]


def _session_of(pid: int) -> int | None:
    """None for a process that is gone."""
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


async def the_waiting(host: Any) -> int:
    """The one that waits; it is forked when its predecessor has been given away."""
    await until(lambda: waiting_of(host))
    (waiting,) = waiting_of(host)
    return waiting


def _loaded(host: Any) -> list[int]:
    return [pid for pid in children_of(host.link.pid) if "LOBU_ZYGOTE_FD" in environ_of(pid)]


async def value(client: Any, expression: str) -> Any:
    return json.loads(await client.reply(expression))


async def is_forked(client: Any) -> bool:
    return bool(await value(client, "born") != client.pid)


async def forked(host: Any, name: str = "zygote") -> Any:
    """A worker that was forked; executed ones before it, while there is no zygote, are ended."""
    with trio.fail_after(PATIENCE):
        while True:
            client = await host.ready(name)
            if await is_forked(client):
                return client
            client.worker.kill()
            await client.gone()
