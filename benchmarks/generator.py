"""The caller's side of the load generator, and of the bare server that gives it its floor."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

Json = dict[str, Any]


def generate(
    url: str, key: str, plan: str, on_said: Callable[[str], None] = lambda word: None, **settings: Any
) -> Json:
    """Run a plan of `benchmarks.load` in a process of its own; `on_said` is called with `begin` and `end` while nothing
    is sent. Gives what it found; ClickException with its last words when it fails."""
    command = [sys.executable, "-m", "benchmarks.load"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(json.dumps({"plan": plan, "url": url, "key": key, **settings}) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                told = json.loads(line)
                if "found" in told:
                    found: Json = told["found"]
                    return found
                on_said(told["said"])
                process.stdin.write("\n")
                process.stdin.flush()
            problem = process.stderr.read().strip()
            raise click.ClickException(f"the load generator failed in `{plan}`:\n{problem[-2000:]}")
        finally:
            process.kill()


@contextmanager
def bare_server() -> Iterator[str]:
    """Its URL."""
    command = [sys.executable, "-m", "benchmarks.bare"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()
