"""The real agents: where `make interop-agents` installs them, how each is started and pointed at the stand-in.

Owns versions (with `package.json` and `requirements.txt` beside this file), command lines, configuration files, and
what the scenarios have to know of each. Everything is below `.interop/agents` in the project's folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from importlib import metadata
from pathlib import Path

import attrs

from tests.interop.agents.scenarios import Agent

HERE = Path(__file__).parent
INSTALLED = HERE.parents[2] / ".interop" / "agents"
MODULES = INSTALLED / "node_modules"
NODE = MODULES / "node" / "bin" / "node"
PYTHON = INSTALLED / "python" / "bin"
PATIENCE_SECONDS = 150.0  # some take half a minute to start on a busy machine
KEY, KEY_NAME = "sk-test-0123456789", "STAND_IN_KEY"  # the variable of workers that can be told which


@attrs.frozen
class Program:
    """One agent. `files`: what it is configured with, in the folder that {home} stands for; {url} is the provider's."""

    agent: Agent
    worker: tuple[str, ...]  # the worker type's command, with {home}
    environment: Mapping[str, str] = attrs.field(factory=dict)
    files: Mapping[str, str] = attrs.field(factory=dict)
    settings: str = ""
    model: str = ""

    def configuration(self, home: Path, url: str) -> str:
        """Its part of lobu.toml; its own files are written below `home`."""
        for name, text in self.files.items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._filled(text, home, url))
        command = [self._filled(part, home, url) for part in self.worker]
        variables = [f"{name}={self._filled(value, home, url)}" for name, value in self.environment.items()]
        if variables:
            at = command.index("--") + 1
            command = [*command[:at], "/usr/bin/env", *variables, *command[at:]]
        name = self.agent.name
        model = f"model = {json.dumps(self.model)}\n" if self.model else ""
        quick = "first_output_seconds = 25, progress_seconds = 25, startup_seconds = 60"
        return (
            f"[workers.{name}]\ncommand = {json.dumps(command)}\nzygote = true\n"
            f'[[agents]]\nid = "{name}"\nworker = "{name}"\n{model}{self.settings}'
            "deadlines = { startup_seconds = 60 }\n"
            f'[[agents]]\nid = "{name}-quick"\nworker = "{name}"\n{model}{self.settings}deadlines = {{ {quick} }}\n'
        )

    @staticmethod
    def _filled(text: str, home: Path, url: str) -> str:
        return text.replace("{home}", str(home)).replace("{url}", url).replace("{base}", url.removesuffix("/v1"))


def _acp(*command: str) -> tuple[str, ...]:
    return ("python", "-m", "lobu_actors.agents.acp", "--", *command)


def _script(package: str, file: str) -> tuple[str, str]:
    return str(NODE), str(MODULES / package / file)


def version_of(package: str) -> str:
    return str(json.loads((HERE / "package.json").read_text())["dependencies"][package])


def _bin(package: str) -> str:
    found = json.loads((MODULES / package / "package.json").read_text())["bin"]
    return str(next(iter(found.values())) if isinstance(found, dict) else found)


def _openai() -> Program:
    server = {"command": sys.executable, "args": [str(HERE.parents[1] / "workers" / "mcp_tools.py")]}
    return Program(
        Agent(
            "openai", f"{metadata.version('lobu-actors')}, mcp {metadata.version('mcp')}", "openai-quick",
            tool="!tool shell__bash {\"command\": {command}}", asks=False, drives=False,
        ),
        ("python", "-m", "lobu_actors.agents.openai", "--mcp", "{home}/mcp.json", "--base-url", "{url}",
         "--key-env", KEY_NAME),
        files={"mcp.json": json.dumps({"mcpServers": {"shell": server}})},
        model="openai/test-model",
    )  # fmt: skip


def _pi() -> Program:
    package = "@earendil-works/pi-coding-agent"
    models = {
        "providers": {
            "local": {
                "baseUrl": "{url}", "api": "openai-completions", "apiKey": "$LOCAL_KEY",
                "models": [{"id": "test-model"}],
            }
        }
    }  # fmt: skip
    return Program(
        Agent("pi", version_of(package), "pi-quick", patience_seconds=PATIENCE_SECONDS),
        ("python", "-m", "lobu_actors.agents.pi", "--", *_script(package, _bin(package)), "-e", str(HERE / "gate.ts")),
        {"PI_CODING_AGENT_DIR": "{home}", "PI_OFFLINE": "1", "LOCAL_KEY": KEY},
        {"models.json": json.dumps(models), "settings.json": '{"retry": {"baseDelayMs": 200}}'},
        model="local/test-model",
    )


def _opencode() -> Program:
    package = "opencode-ai"
    config = {
        "provider": {
            "local": {
                "npm": "@ai-sdk/openai-compatible", "name": "Local",
                "options": {"baseURL": "{url}", "apiKey": KEY}, "models": {"test-model": {"name": "Test"}},
            }
        },
        "model": "local/test-model", "small_model": "local/test-model", "autoupdate": False, "share": "disabled",
        "permission": {"bash": "ask"},
    }  # fmt: skip
    return Program(
        Agent(
            "opencode", version_of(package), "opencode-quick",
            tool='!tool bash {"command": {command}, "description": "a test"}',
            patience_seconds=PATIENCE_SECONDS, remembers_killed=True,
        ),
        _acp(str(MODULES / ".bin" / "opencode"), "acp"),
        {"OPENCODE_CONFIG": "{home}/opencode.json", "OPENCODE_DISABLE_AUTOUPDATE": "1",
         "OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1"},
        {"opencode.json": json.dumps(config)},
    )  # fmt: skip


def _qwen() -> Program:
    package = "@qwen-code/qwen-code"
    return Program(
        Agent(
            "qwen-code", version_of(package), "qwen-code-quick",
            tool='!tool run_shell_command {"command": {command}, "is_background": false}',
            patience_seconds=PATIENCE_SECONDS, remembers_killed=True, goes_on=True,
            provider_codes=("FIRST_OUTPUT_TIMEOUT",), is_silent=True,  # at a 429, for minutes
        ),
        _acp(*_script(package, _bin(package)), "--acp"),
        {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "{url}", "OPENAI_MODEL": "test-model", "NO_PROXY": "127.0.0.1"},
        settings='settings = { auth_method = "openai" }\n',
    )  # fmt: skip


def _claude() -> Program:
    package = "@agentclientprotocol/claude-agent-acp"
    return Program(
        Agent(
            "claude-agent-acp", version_of(package), "claude-agent-acp-quick",
            tool='!tool Bash {"command": {command}, "description": "a test"}',
            patience_seconds=PATIENCE_SECONDS, remembers_killed=True,
            provider_codes=("FIRST_OUTPUT_TIMEOUT", "NO_PROGRESS"), is_silent=True,
        ),
        _acp(*_script(package, _bin(package))),
        {"ANTHROPIC_BASE_URL": "{base}", "ANTHROPIC_API_KEY": KEY, "ANTHROPIC_MODEL": "test-model",
         "DISABLE_TELEMETRY": "1", "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
         "IS_SANDBOX": "1"},
    )  # fmt: skip


def _codex() -> Program:
    package = "@agentclientprotocol/codex-acp"
    config = (
        'model = "test-model"\nmodel_provider = "local"\napproval_policy = "on-request"\napprovals_reviewer = "user"\n'
        'sandbox_mode = "read-only"\n'
        '[model_providers.local]\nname = "Local"\nbase_url = "{url}"\nenv_key = "LOCAL_KEY"\nwire_api = "responses"\n'
        "request_max_retries = 1\nstream_max_retries = 1\n"
    )
    return Program(
        Agent(
            "codex-acp", version_of(package), "codex-acp-quick",
            tool='!tool exec_command {"cmd": {command}, "sandbox_permissions": "require_escalated", '
            '"justification": "a test"}',
            patience_seconds=PATIENCE_SECONDS,
            remembers_killed=True,
        ),
        _acp(*_script(package, _bin(package))),
        {"CODEX_HOME": "{home}", "LOCAL_KEY": KEY, "OPENAI_API_KEY": KEY},
        {"config.toml": config},
        settings='settings = { mode = "read-only", failure_pattern = "stream disconnected before completion" }\n',
    )  # fmt: skip


def _fast_agent() -> Program:
    requirements = (HERE / "requirements.txt").read_text()
    return Program(
        Agent(
            "fast-agent-mcp", requirements.strip().rpartition("==")[2], "fast-agent-mcp-quick",
            tool='!tool bash {"command": {command}}', asks=False,
            patience_seconds=PATIENCE_SECONDS, remembers_killed=True,
            provider_codes=("PROVIDER_REFUSED",),  # of a cut it tells no more than that it is one
        ),
        _acp(str(PYTHON / "fast-agent-acp"), "--shell", "--model", "generic.test-model"),
        {"GENERIC_API_KEY": KEY, "GENERIC_BASE_URL": "{url}", "ENVIRONMENT_DIR": "{home}"},
    )  # fmt: skip


PROGRAMS: dict[str, Callable[[], Program]] = {
    "openai": _openai,
    "pi": _pi,
    "opencode": _opencode,
    "qwen-code": _qwen,
    "claude-agent-acp": _claude,
    "codex-acp": _codex,
    "fast-agent-mcp": _fast_agent,
}


def install(names: Collection[str]) -> None:
    """What these need and is not there in the pinned versions. Raises SystemExit with a sentence."""
    INSTALLED.mkdir(parents=True, exist_ok=True)
    if set(names) - {"openai", "fast-agent-mcp"}:
        _install_from_npm()
    if "fast-agent-mcp" in names:
        _install_fast_agent()


def _install_from_npm() -> None:
    pinned = (HERE / "package.json").read_text()
    stamp = INSTALLED / "installed.json"
    if not stamp.exists() or stamp.read_text() != pinned:
        if shutil.which("npm") is None:
            raise SystemExit("npm is needed to install the agents: apt-get install npm, or Node with it.")
        (INSTALLED / "package.json").write_text(pinned)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=INSTALLED, check=True)
        stamp.write_text(pinned)


def _install_fast_agent() -> None:
    requirements = (HERE / "requirements.txt").read_text()
    stamp = INSTALLED / "installed.txt"
    python = _python_for_fast_agent()
    if python is not None and (not stamp.exists() or stamp.read_text() != requirements):
        subprocess.run([*python, "-m", "venv", str(INSTALLED / "python")], check=True)
        pip = [str(PYTHON / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(HERE / "requirements.txt")], check=True)
        stamp.write_text(requirements)


def why_missing(name: str) -> str | None:
    if name == "fast-agent-mcp" and not (PYTHON / "fast-agent-acp").exists():
        return "it needs Python 3.13 (`python3.13` on the PATH, or PYTHON313 naming one)"
    return None


def _python_for_fast_agent() -> list[str] | None:
    candidates = [os.environ.get("PYTHON313"), "python3.13", sys.executable]
    versions = Path.home() / ".pyenv" / "versions"
    candidates += [str(path / "bin" / "python") for path in sorted(versions.glob("3.13.*"))]
    for candidate in candidates:
        if candidate is None or shutil.which(candidate) is None:
            continue
        asked = subprocess.run(
            [candidate, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True
        )
        if asked.stdout.strip() == "(3, 13)":
            return [candidate]
    return None
