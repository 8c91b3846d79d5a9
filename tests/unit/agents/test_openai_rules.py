"""What a refusal means, how long is waited, which settings and which files of MCP servers are taken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lobu_actors.agents import mcp_servers as servers
from lobu_actors.agents import provider_errors as errors
from lobu_actors.agents.openai import settings
from lobu_actors.agents.openai.provider import wait_seconds
from lobu_actors.agents.openai.settings import Settings
from lobu_actors.worker import Fail

AUTH, QUOTA, DOWN, REFUSED = "PROVIDER_AUTH", "PROVIDER_QUOTA", "PROVIDER_UNAVAILABLE", "PROVIDER_REFUSED"


@pytest.mark.parametrize(
    ("status", "name", "code", "may_retry"),
    [
        (401, "x", AUTH, False), (403, "x", AUTH, False), (400, "invalid_api_key", AUTH, False),
        (402, "x", QUOTA, False), (429, "insufficient_quota", QUOTA, False), (429, "x", QUOTA, True),
        (408, "x", DOWN, True), (409, "x", DOWN, True), (500, "x", DOWN, True), (503, "x", DOWN, True),
        (529, "x", DOWN, True), (302, "x", REFUSED, False), (400, "x", REFUSED, False), (404, "x", REFUSED, False),
        (413, "x", REFUSED, False), (422, "x", REFUSED, False),
    ],
)  # fmt: skip
def test_a_status_has_its_code(status: int, name: str, code: str, may_retry: bool) -> None:
    error = errors.of_status(status, {"error": {"message": "said", "type": name}})
    assert (error.code, error.may_retry) == (code, may_retry)
    assert ("said" in error.message) == (code != AUTH), "what is said of a key stays in the log"


@pytest.mark.parametrize("body", [None, [], "x", {"error": "said"}, {"error": None}, {"error": {"message": 5}}, {}])
def test_any_body_of_a_refusal_is_taken(body: Any) -> None:
    assert errors.of_status(500, body).code == DOWN


@pytest.mark.parametrize(
    ("error", "code"),
    [({"code": 429}, QUOTA), ({"code": "invalid_api_key"}, AUTH), ({"type": "invalid_request_error"}, REFUSED),
     ({"message": "x"}, DOWN), ("overloaded", DOWN), (5, DOWN)],
)  # fmt: skip
def test_an_error_in_the_stream_has_its_code(error: Any, code: str) -> None:
    assert errors.of_event(error).code == code


def test_waits_double_are_bounded_and_follow_the_provider() -> None:
    found = Settings(retries=4, retry_seconds=1, retry_max_seconds=5)
    down = errors.of_status(503, None)
    assert [wait_seconds(down, n, found) for n in range(5)] == [1, 2, 4, 5, None]
    assert wait_seconds(errors.of_status(429, None, "3"), 0, found) == 3
    assert wait_seconds(errors.of_status(429, None, "0"), 1, found) == 2
    assert wait_seconds(errors.of_status(429, None, "6"), 0, found) is None, "longer than it is waited for"
    assert wait_seconds(errors.of_status(429, None, "Wed, 21 Oct 2026 07:28:00 GMT"), 0, found) == 1
    assert wait_seconds(errors.of_status(401, None), 0, found) is None


WRONG = {
    "system_prompt": 5, "parameters": [], "mcp": "tools", "max_steps": 0, "retries": -1, "retry_seconds": "1",
    "retry_max_seconds": float("inf"), "connect_seconds": True, "tool_start_seconds": None, "tool_result_chars": 1.5,
}  # fmt: skip


@pytest.mark.parametrize("name", vars(Settings()))
def test_every_setting_is_checked(name: str) -> None:
    with pytest.raises(Fail, match=f"`{name}`"):
        settings.read({name: WRONG[name]})


def test_settings_of_others_are_left_to_them() -> None:
    assert settings.read({"requires_model": True, "retries": 0, "mcp": []}) == Settings(retries=0, mcp=[])


@pytest.mark.parametrize(
    ("agent", "message", "found"),
    [("openai/gpt", None, ("openai", "gpt")), ("gpt", None, ("openai", "gpt")), ("a/b/c", None, ("a", "b/c")),
     ("a/b", "x/y", ("x", "y")), (None, "y", ("openai", "y")), ("a/", None, ("openai", "a/"))],
)  # fmt: skip
def test_the_model(agent: str | None, message: str | None, found: tuple[str, str]) -> None:
    assert settings.model_of({"model": agent}, [{"model": "first"} if message else {}, {"model": message}]) == found


def test_no_model() -> None:
    with pytest.raises(Fail, match="NO_MODEL_CONFIGURED"):
        settings.model_of({}, [{}])


def test_a_file_of_servers() -> None:
    text = '{"mcpServers": {"a": {"command": "x"}, "b": {"command": "y", "args": ["1"], "env": {"K": "v"}}}}'
    assert servers.parse(text) == {
        "a": servers.ServerCommand("x"), "b": servers.ServerCommand("y", ["1"], {"K": "v"}),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"), ("[]", "mcpServers"), ('{"mcpServers": 1}', "mcpServers"),
        ('{"mcpServers": {"a b": {"command": "x"}}}', "'a b'"),
        ('{"mcpServers": {"a": {"url": "http://x"}}}', "stdio"),
        ('{"mcpServers": {"a": {"command": "x", "args": "y"}}}', "args"),
        ('{"mcpServers": {"a": {"command": "x", "env": {"A": 1}}}}', "env"),
    ],
)  # fmt: skip
def test_a_file_of_servers_that_cannot_be_used(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        servers.parse(text)


def program(*arguments: str, **environment: str) -> tuple[int, str]:
    """How the worker type ends when nobody gave it a socket, and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "lobu_actors.agents.openai", *arguments],
        env={"PATH": os.defpath, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("missing", ["httpx_sse", "mcp"])
def test_a_package_that_is_missing_is_one_sentence(tmp_path: Path, missing: str) -> None:
    (tmp_path / f"{missing}.py").write_text(f"raise ModuleNotFoundError('gone', name={missing!r})")
    (tmp_path / "mcp.json").write_text('{"mcpServers": {"a": {"command": "x"}}}')
    code, said = program("--mcp", str(tmp_path / "mcp.json"), PYTHONPATH=str(tmp_path))
    assert (code, said.count("\n")) == (1, 1), said
    assert f"({missing}): pip install 'lobu-actors[openai]'" in said


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (["--mcp", "/nowhere.json"], {}, "cannot be read"),
        (["--mcp", "/dev/null"], {}, "/dev/null is no JSON"),
        ([], {"OPENAI_BASE_URL": "localhost:1"}, "must begin with https:// or http://"),
        ([], {}, "a supervisor starts it"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(arguments: list[str], environment: dict[str, str], words: str) -> None:
    code, said = program(*arguments, **environment)
    assert code != 0
    assert words in said
    assert said.count("\n") == 1, said
