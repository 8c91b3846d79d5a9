"""What a worker finds in its environment, and that nothing of the supervisor's is in reach of it.

Workers are told to look everywhere: their environment, their memory, /proc, their descriptors. What they found is
searched for every secret that the supervisor was given or made, and for every other worker's token.
"""

# ruff: noqa: ASYNC240 - small and local files
from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import lobu_actors
from supervisor.spawner import confine
from supervisor.workers.environment import LANG, PATH
from tests.sandbox_world import PYTHON
from tests.system.conftest import client_of
from tests.system.lobu_process import LobuRun, lobu_run, until

PROGRAM = Path(__file__).parent.parent / "workers" / "looks_around.py"
PASSWORD = "pass-of-the-database"
JWT_SECRET = "secret-that-signs-tokens-0123456789ab"
ENVIRONMENT = {
    "LOBU_JWT_KEYS": f"one:{JWT_SECRET},two:{JWT_SECRET[::-1]}",
    "PROVIDER_API_KEY": "key-of-a-provider",
    "UNRELATED": "what-the-host-has",
    "WORKER_ENV_GIVEN": "meant for workers",
    "WORKER_ENV_LOBU_SESSION_STORE": "file",
}
SECRETS = [PASSWORD, JWT_SECRET, JWT_SECRET[::-1], "key-of-a-provider", "what-the-host-has"]
LISTED = {
    "LOBU_WORKER_FD", "WORKSPACE_DIR", "DISPATCHER_URL", "WORKER_TOKEN",  # the protocol's
    "GIVEN", "PYTHONPATH",  # WORKER_ENV_*
    "PATH", "LANG", "HOME", "LOBU_WORKER_ID",
}  # fmt: skip
FIXED = {"PATH": PATH, "LANG": LANG, "LOBU_WORKER_FD": "3", "GIVEN": "meant for workers"}
TYPES = ("executed", "forked")


def _config(program: Path) -> str:
    return "".join(
        f'[workers.{name}]\ncommand = ["{PYTHON}", "{program}"]\nzygote = {str(name == "forked").lower()}\n'
        f'[[agents]]\nid = "{name}"\nworker = "{name}"\n'
        for name in TYPES
    )


@pytest.fixture(params=["secrets in the environment", "keys in files"])
async def run(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[LobuRun]:
    """In a folder that other users can pass, with a program that they can read."""
    url = database_url.replace("@/", f":{PASSWORD}@/", 1)
    assert PASSWORD in url
    with tempfile.TemporaryDirectory() as name:
        library, program = Path(name), Path(name) / PROGRAM.name
        library.chmod(0o755)
        shutil.copytree(Path(lobu_actors.__file__).parent / "worker", library / "lobu_actors" / "worker")
        shutil.copy(PROGRAM, program)
        environment = {**ENVIRONMENT, "WORKER_ENV_PYTHONPATH": name}
        if request.param == "keys in files":
            environment |= {"LOBU_JWT_KEYS": "", "LOBU_ADMIN_KEY": ""}
        async with lobu_run(config=_config(program), database_url=url, environment=environment, start=False) as found:
            found.folder.chmod(0o711)
            await found.start()
            if request.param == "keys in files":
                found.admin_key = (found.folder / ".lobu" / "admin_key").read_text().strip()
            yield found


async def test_no_secret_is_in_reach_of_a_worker(run: LobuRun) -> None:
    found = {}
    for kind in TYPES:
        if kind == "forked":
            await until(lambda: _zygotes(run), "a zygote waits for orders")
        for number in range(2):
            found[f"{kind} {number}"] = await _look_around(run, kind)
    stored = [path.read_text().strip() for path in (run.folder / ".lobu").glob("*_key*")]
    secrets = [*SECRETS, run.admin_key, *stored]
    for name, (told, memory) in found.items():
        tokens = [other["environ"]["WORKER_TOKEN"] for key, (other, _) in found.items() if key != name]
        text = json.dumps(told).encode()
        for secret in [*secrets, *tokens]:
            assert secret.encode() not in text, f"{name} found {secret}"
            assert secret.encode() not in memory, f"{name} has {secret} in its memory"
        assert told["environ"]["WORKER_TOKEN"].encode() in memory, "its memory was read"
        assert told["forked"] == name.startswith("forked"), name
        _check_environment(name, told)
        assert told["niceness"] == min(os.nice(0) + confine.NICENESS, 19)
        assert told["oom score"].strip() == str(confine.OOM_SCORE)
        assert all(content is None for content in told["key files"].values()), told["key files"]
    uids = [told["uid"] for told, _ in found.values()]
    if os.geteuid() == 0:
        assert 0 not in uids, run.log()
        assert len(set(uids)) == len(uids)


def _check_environment(name: str, told: dict[str, Any]) -> None:
    environ = told["environ"]
    assert set(environ) == LISTED, name
    assert {key: environ[key] for key in FIXED} == FIXED
    assert environ["HOME"] == environ["WORKSPACE_DIR"]
    block = dict(entry.partition("=")[::2] for entry in told["environ block"].rstrip("\0").split("\0"))
    assert block == environ, name
    descriptors = dict(told["descriptors"])
    assert sorted(descriptors) == ["0", "1", "2", "3"], descriptors
    assert (descriptors["0"], descriptors["3"][:7]) == ("/dev/null", "socket:")


async def _look_around(run: LobuRun, kind: str) -> tuple[dict[str, Any], bytes]:
    conversation = await client_of(run).open(agentId=kind)
    frame = await conversation.ask("look")
    assert frame.event == "complete", (frame, run.log())
    workspace = Path(frame.data["finalText"])
    return json.loads((workspace / "found.json").read_text()), (workspace / "memory").read_bytes()


def _zygotes(run: LobuRun) -> bool:
    """Whether one has forked who waits for the next order."""
    children = psutil.Process(run.spawner_pid()).children(recursive=True)
    return sum(b"LOBU_ZYGOTE_FD" in _environ(child.pid) for child in children) > 1


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
