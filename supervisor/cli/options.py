"""Options that several commands share, and how they print. Must not import what is slow to import."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def example(*lines: str) -> str:
    """An epilog that click leaves as it is."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def database_options(function: Function) -> Function:
    """--config, --data-dir, --database-url: which database a command works on."""
    for decorate in (
        click.option("--database-url", help="postgres://… or the folder of the embedded server."),
        click.option("--data-dir", type=click.Path(path_type=Path), help="Where .lobu is kept; default: here."),
        click.option("--config", type=click.Path(path_type=Path), help="Configuration file; default: lobu.toml."),
    ):
        function = decorate(function)
    return function


def gateway_options(function: Function) -> Function:
    """--gateway and --data-dir: which server a command talks to."""
    for decorate in (
        click.option("--data-dir", type=click.Path(path_type=Path), help="Where .lobu is kept; default: here."),
        gateway_option,
    ):
        function = decorate(function)
    return function


def gateway_option(function: Function) -> Function:
    return click.option("--gateway", metavar="URL", help="Address of the server; default: that of `lobu run` here.")(
        function
    )


def json_option(function: Function) -> Function:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def print_json(value: Any) -> None:
    """One JSON document on a line of its own."""
    click.echo(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def safe_for_terminal(text: str) -> str:
    """`text` without control characters other than line ends and tabs: a reply must not drive the terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(character) else character for character in text)


def _is_control(character: str) -> bool:
    code = ord(character)
    return (code < 32 and character not in "\n\t") or 127 <= code < 160
