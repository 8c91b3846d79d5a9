"""How a chat looks: text for people, or one JSON object a line. Knows events, not where they come from."""

from __future__ import annotations

import sys
from typing import Protocol

import click

from lobu_actors.client import ClientEvent
from supervisor.cli.options import print_json, safe_for_terminal


class Display(Protocol):
    def event(self, event: ClientEvent) -> None:
        """Show one event of the stream, in order."""
        ...

    def pause(self) -> None:
        """Something else is about to be written, and more of the reply may follow."""
        ...

    def stop(self) -> None:
        """Nothing follows what has been written of the reply: end its line."""
        ...


class JsonDisplay:
    """Every event as `{"event", "id", "data"}` on a line of its own."""

    def event(self, event: ClientEvent) -> None:
        print_json({"event": event.type, "id": event.id, "data": event.data})
        sys.stdout.flush()

    def pause(self) -> None:
        pass

    def stop(self) -> None:
        pass


class TextDisplay:
    """The reply of one message on stdout, as it comes; everything else on stderr, the end of its line before it, too.

    What stdout got in the end is the reply exactly, unless an attempt was started over or deltas were lost: then the
    whole reply follows once more on a new line.
    """

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._shown: list[str] = []
        self._in_line = False
        self._terminal = sys.stdout.isatty()

    def event(self, event: ClientEvent) -> None:
        if event.message_id not in (self._message_id, None):
            return
        match event.type:
            case "output":
                self._shown.append(event.content)
                self._write(event.content)
            case "restart":
                self.stop()
                click.echo(f"(starting over: {event.data.get('reason', 'the worker was lost')})", err=True)
            case "ephemeral":
                self.pause()
                click.echo(safe_for_terminal(f"({event.content})"), err=True)
            case "complete":
                self._finish(event.final_text)
            case "agent-error" | "cancelled":
                self.stop()

    def pause(self) -> None:
        if self._in_line:
            click.echo(err=True)
        self._in_line = False

    def stop(self) -> None:
        if self._in_line:
            self._write("\n")
        self._shown.clear()

    def _finish(self, final_text: str) -> None:
        shown = "".join(self._shown)
        if shown and not final_text.startswith(shown):
            self.stop()
            shown = ""
        self._write(final_text[len(shown) :])
        if not final_text.endswith("\n"):
            self._write("\n")
        self._shown.clear()

    def _write(self, text: str) -> None:
        if text:
            self._in_line = not text.endswith("\n")
        sys.stdout.write(safe_for_terminal(text) if self._terminal else text)
        sys.stdout.flush()
