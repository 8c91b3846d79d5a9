"""`lobu run` as an ordinary user: its own database, workers, a sandbox, kills and adoption, and nothing left behind.

Where these tests run as root, it is started as `nobody`; else as whoever runs them.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from tests.sandbox_world import bwrap_missing
from tests.system.audit import broken_promises, turn_of
from tests.system.conftest import client_of
from tests.system.lobu_process import ECHO, LOBU, LobuRun, lobu_run, until
from tests.system.sse_client import Transcript

USER = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
REPOSITORY = Path(__file__).parents[2]
NEEDED = {os.path.realpath(path) for path in (sys.base_prefix, sys.prefix, REPOSITORY)}
CONFIG = f"""
{ECHO}[workers.boxed]
command = ["python", "-m", "lobu_actors.agents.echo"]
sandbox = "bwrap"
[workers.forked]
command = ["python", "-m", "lobu_actors.agents.echo"]
zygote = true
[workers.demanding]
command = ["sleep", "1000"]
own_user = true
[[agents]]
id = "boxed"
worker = "boxed"
[[agents]]
id = "forked"
worker = "forked"
[[agents]]
id = "demanding"
worker = "demanding"
"""


def _closed() -> dict[str, list[str]]:
    """Folders that an ordinary user cannot pass, and what is needed beneath them: the interpreter may be root's own."""
    found: dict[str, list[str]] = {}
    for path in sorted(NEEDED):
        for folder in reversed(Path(path).parents):
            if not folder.stat().st_mode & 0o001:
                found.setdefault(str(folder), []).append(path)
                break
    return found


def _as_user() -> tuple[str, ...]:
    """What goes before a command, and becomes it: with what is closed opened for this process tree alone."""
    if os.geteuid() != 0:
        return ()
    steps = []
    for folder, paths in _closed().items():
        names = [shlex.quote(path) for path in paths]
        steps += ["aside=$(mktemp -d)", "mount -t tmpfs -o mode=755 aside $aside"]
        steps += [f"mkdir $aside/{n} && mount --bind {name} $aside/{n}" for n, name in enumerate(names)]
        steps += [f"mount -t tmpfs -o mode=755 opened {shlex.quote(folder)}"]
        steps += [f"mkdir -p {name} && mount --bind $aside/{n} {name}" for n, name in enumerate(names)]
        steps += ["umount --lazy $aside", "rmdir $aside"]
    steps.append(f'exec setpriv --reuid={USER.pw_uid} --regid={USER.pw_gid} --clear-groups --no-new-privs "$@"')
    return ("unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(steps), "sh")


def _run_as_user(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_as_user(), *command], capture_output=True, text=True, timeout=60, **options)


@pytest.fixture
async def run() -> AsyncIterator[LobuRun]:
    tried = _run_as_user(sys.executable, "-c", "")
    if tried.returncode != 0:
        pytest.skip(f"nothing can be run as {USER.pw_name} here: {tried.stderr.strip()}")
    async with lobu_run(config=CONFIG, prefix=_as_user(), start=False) as made:
        for path in (made.folder, *made.folder.rglob("*")):
            os.chown(path, USER.pw_uid, USER.pw_gid)
        await made.start()
        yield made


def _users(run: LobuRun) -> set[int]:
    users: set[int] = set()
    for found in run.processes():
        with suppress(psutil.NoSuchProcess):  # as the database's own come and go
            users.update(psutil.Process(found.pid).uids())
    return users


async def test_everything_is_that_user_s_and_works(run: LobuRun) -> None:
    client = client_of(run)
    for agent in ("echo", "forked"):
        assert (await (await client.open(agentId=agent)).ask("hello there")).data["finalText"] == "hello there"
    conversation = await client.open()
    for content, code in (
        ("crash", "WORKER_CRASHED"),
        ("close", "WORKER_CRASHED"),
        ("garbage", "WORKER_PROTOCOL_ERROR"),
    ):
        assert (await conversation.ask(content)).data["errorCode"] == code
    grandchild = int((await conversation.ask("spawn session")).data["finalText"])
    assert _users(run) == {USER.pw_uid}
    assert psutil.pid_exists(grandchild)
    answer = await client.call("DELETE", conversation.path)
    assert answer.body["closed"] is True
    await until(lambda: not psutil.pid_exists(grandchild), "what its worker had started is ended")
    # A user of its own is root's to give: who demands one is told so.
    refused = (await (await client.open(agentId="demanding")).ask("hello")).data
    assert refused["errorCode"] == "WORKER_STARTUP_FAILED"
    assert "own_user = true" in run.errors()
    audit = _run_as_user(sys.executable, *LOBU, "audit", cwd=run.folder, env=run.environment)
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert await run.stop() == 0
    assert run.processes() == []
    assert list((run.folder / "tmp").iterdir()) == []


@pytest.mark.skipif(bool(bwrap_missing()), reason=bwrap_missing())
async def test_a_sandbox_needs_no_root(run: LobuRun) -> None:
    conversation = await client_of(run).open(agentId="boxed")
    frame = await conversation.ask("hello there")
    if frame.event != "complete" and not _makes_namespaces():
        assert frame.data["errorCode"] == "WORKER_STARTUP_FAILED", "closed, where no sandbox can be made"
        return
    assert frame.data["finalText"] == "hello there", run.errors()
    spawned = await conversation.ask("spawn session")
    assert int(spawned.data["finalText"]) < 1000, "a process number of its own"
    assert await run.stop() == 0
    assert run.processes() == []


async def test_a_killed_supervisor_s_turn_goes_on_and_a_killed_machine_s_again(run: LobuRun) -> None:
    conversation, transcript = await client_of(run).open(), Transcript()
    message_id = await conversation.send("stream 300 20")
    with trio.fail_after(30):
        await transcript.follow(conversation, lambda: transcript.texts.get(message_id))
    worker = run.worker_pids()
    await run.kill_main()
    await run.start()
    assert run.worker_pids() == worker
    with trio.fail_after(30):
        await transcript.follow(conversation.through(client_of(run)), lambda: message_id in transcript.terminals)
    assert transcript.faults == []
    assert turn_of(run.database_url, message_id) == ("completed", 1, 0)
    again = await conversation.through(client_of(run)).send("stream 100 20")
    await until(lambda: run.worker_pids(), "it runs")
    await run.kill_all()
    await run.start()
    assert (await conversation.through(client_of(run)).terminal_of(again)).event == "complete"
    os.kill(run.postmaster_pid(), signal.SIGQUIT)
    last = conversation.through(client_of(run))
    with trio.fail_after(60):
        while (answer := await last.post("after a crash of the database", "after")).status != 200:  # noqa: ASYNC110
            await trio.sleep(0.1)
    assert (await last.terminal_of(answer.body["messageId"])).event == "complete"
    assert _users(run) == {USER.pw_uid}
    assert broken_promises(run.database_url) == []
    assert await run.stop() == 0
    assert run.processes() == []


def _makes_namespaces() -> bool:
    """Whether an ordinary user may make a sandbox here at all."""
    bwrap = shutil.which("bwrap")
    assert bwrap is not None
    return _run_as_user(bwrap, "--unshare-all", "--ro-bind", "/", "/", "true").returncode == 0
