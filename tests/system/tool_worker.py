"""A worker that says what it does: a tool, a piece of text, another tool, the rest."""

from __future__ import annotations

from collections.abc import Iterator

from lobu_actors.worker import BlockingTurn, serve


def reply(turn: BlockingTurn) -> Iterator[str]:
    turn.status("looks it up", phase="tool", tool="search")
    turn.sleep(0.05)
    yield "found "
    turn.status("asks a person", phase="waiting")
    yield turn.ask("Go on?")


if __name__ == "__main__":
    serve(reply, name="tools")
