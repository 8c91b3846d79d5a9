"""A worker that says what it does: a tool, a piece of text, another tool, the rest.

The first tool ends by itself, or with `until found` in the message, once `found` was called.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lobu_actors.worker import BlockingTurn, serve

SEARCHING = "searching"


def reply(turn: BlockingTurn) -> Iterator[str]:
    searching = Path(os.environ["WORKSPACE_DIR"], SEARCHING)
    if "until found" in turn.content:
        searching.touch()
    turn.status("looks it up", phase="tool", tool="search")
    while searching.exists():
        turn.sleep(0.01)
    yield "found "
    turn.status("asks a person", phase="waiting")
    yield turn.ask("Go on?")


def found(folder: Path) -> None:
    """End the tool that a status has told of, in the folder of a `lobu run` in which it is the only one."""
    [searching] = folder.glob(f".lobu/workspaces/*/{SEARCHING}")
    searching.unlink()


if __name__ == "__main__":
    serve(reply, name="tools")
