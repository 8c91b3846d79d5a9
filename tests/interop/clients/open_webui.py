"""Open WebUI as an operator runs it, for `make interop-clients`: installed below `.interop/open-webui`, told of lobu.

Owns how it is installed (Python 3.11 or 3.12), its environment, and its process. What a person does in its page is
`drivers/open_webui.py`.
"""

# ruff: noqa: ASYNC220, ASYNC240 - a process of its own group, and small local files

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio

from tests.interop.clients.world import ROOT, World
from tests.system.lobu_process import free_port

HERE = Path(__file__).parent
INSTALLED = ROOT / ".interop" / "open-webui"
REQUIREMENTS = HERE / "open-webui.txt"
START_SECONDS = 240.0
STOP_SECONDS = 20.0
# Nothing that would have it ask anybody but lobu, and nobody to sign in.
ENVIRONMENT = {
    "OFFLINE_MODE": "true", "HF_HUB_OFFLINE": "1", "WEBUI_AUTH": "false", "ENABLE_OLLAMA_API": "false",
    "RAG_EMBEDDING_ENGINE": "openai", "ENABLE_VERSION_UPDATE_CHECK": "false", "DO_NOT_TRACK": "true",
    "ANONYMIZED_TELEMETRY": "false", "ENABLE_FORWARD_USER_INFO_HEADERS": "true",
    # Titles, tags and further questions would be messages in the conversation.
    "ENABLE_TITLE_GENERATION": "false", "ENABLE_TAGS_GENERATION": "false",
    "ENABLE_FOLLOW_UP_GENERATION": "false", "ENABLE_AUTOCOMPLETE_GENERATION": "false",
}  # fmt: skip


def install() -> None:
    """What is there and pinned the same is left as it is."""
    stamp, pins = INSTALLED / "installed", REQUIREMENTS.read_text()
    if stamp.exists() and stamp.read_text() == pins:
        return
    subprocess.run([sys.executable, "-m", "venv", INSTALLED], check=True)
    pip = [INSTALLED / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", REQUIREMENTS], check=True)
    stamp.write_text(pins)


def version() -> str:
    return next(line for line in REQUIREMENTS.read_text().split() if line.startswith("open-webui==")).rpartition("=")[2]


@asynccontextmanager
async def serving(place: World) -> AsyncIterator[str]:
    """Its address, once its page and its list of models are there."""
    folder, port = Path(tempfile.mkdtemp(prefix="open-webui-")), free_port()
    own = {"OPENAI_API_BASE_URL": f"{place.run.url}/v1", "OPENAI_API_KEY": place.run.admin_key, "DATA_DIR": str(folder)}
    command = [str(INSTALLED / "bin" / "open-webui"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, **ENVIRONMENT, **own}, cwd=folder, stdout=log, stderr=log, process_group=0
        )
    try:
        url = f"http://127.0.0.1:{port}"
        await _ready(process, url, folder / "log")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def _ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    with trio.move_on_after(START_SECONDS):
        async with httpx.AsyncClient(base_url=url, timeout=5) as http:
            while process.poll() is None:
                try:
                    if (await http.get("/health")).status_code == 200:
                        return
                except httpx.HTTPError:
                    pass
                await trio.sleep(0.5)
    raise SystemExit(f"Open WebUI did not come up within {START_SECONDS:g} s:\n{log.read_text()[-3000:]}")
