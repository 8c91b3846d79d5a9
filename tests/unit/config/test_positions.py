"""The position finder gives each key's line, whatever form of TOML it stands in."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.config.positions import Path, Positions

DOCUMENT = """\
# [not.a.table]
title = "a = 1 # no comment" # key = 2
[server]
host = 'x[y]'
port = 80

[workers.echo]
command = [
    "python",  # with "quotes" ] in a comment
    "-m",
]
[workers."a b.c"]
warm = 1
[[agents]]
id = "one"
deadlines = { turn_seconds = 1, tool_seconds = 2 }
failure.crash = "fail"
guardrails = [
    { kind = "pattern", pattern = "}" },

    { kind = "pattern", pattern = "x" },
]
[[agents]]
id = \"\"\"
[[agents]]
bad = "x"
\"\"\"
[agents.settings]
deep.er = 1979-05-27 07:32:00
[[agents.guardrails]]
kind = "pattern"
[[agents.guardrails]]
kind = 'other'
"""


def test_document_is_toml() -> None:
    assert len(tomllib.loads(DOCUMENT)["agents"]) == 2


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("title",), 2),
        (("server",), 3),
        (("server", "host"), 4),
        (("server", "port"), 5),
        (("workers", "echo"), 7),
        (("workers", "echo", "command"), 8),
        (("workers", "echo", "command", 1), 10),
        (("workers", "a b.c", "warm"), 13),
        (("agents", 0), 14),
        (("agents", 0, "id"), 15),
        (("agents", 0, "deadlines", "tool_seconds"), 16),
        (("agents", 0, "failure", "crash"), 17),
        (("agents", 0, "guardrails", 1), 21),
        (("agents", 0, "guardrails", 1, "pattern"), 21),
        (("agents", 1), 23),
        (("agents", 1, "id"), 24),
        (("agents", 1, "settings"), 28),
        (("agents", 1, "settings", "deep", "er"), 29),
        (("agents", 1, "guardrails", 0, "kind"), 31),
        (("agents", 1, "guardrails", 1, "kind"), 33),
    ],
)
def test_lines(path: Path, line: int) -> None:
    assert Positions(DOCUMENT).line(path) == line


def test_falls_back_to_the_table() -> None:
    positions = Positions(DOCUMENT)
    assert positions.line(("server", "absent")) == 3
    assert positions.line(("agents", 1, "absent", "deeper")) == 23
    assert positions.line(("absent",)) is None
    assert positions.line(()) is None


def test_windows_line_ends() -> None:
    assert Positions(DOCUMENT.replace("\n", "\r\n")).line(("agents", 1, "settings", "deep")) == 29


def test_escapes_in_keys_and_strings() -> None:
    text = '"a\\u0062\\"" = "\\\\"\nb = """x\\""""" \nc = \'\'\'\'q\'\'\'\'\nd = 1\n'
    assert list(tomllib.loads(text)) == ['ab"', "b", "c", "d"]
    assert [Positions(text).line((key,)) for key in ('ab"', "b", "c", "d")] == [1, 2, 3, 4]


@given(st.text(alphabet="[]{}=.,\"'\\#\n ab1", max_size=40))
def test_any_text_ends_and_accepted_text_is_found(text: str) -> None:
    positions = Positions(text)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    for path in _paths(document):
        assert positions.line(path) == positions.line(path[:1]) or positions.line(path) is not None


def _paths(value: Any, path: Path = ()) -> list[Path]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += _paths(item, (*path, key))
    return found
