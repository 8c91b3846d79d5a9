"""`lobu chat`: one message and its reply, or a session at the terminal with questions answered inline."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path

import click
from msgspec.structs import replace

from lobu_actors.client import ClientError, ClientEvent
from lobu_actors.contract.text import is_storable
from supervisor.cli.display import Display, JsonDisplay, TextDisplay
from supervisor.cli.exchange import Exchange, Interrupted, Opening, Question
from supervisor.cli.main import INTERRUPTED
from supervisor.cli.options import example, gateway_options, safe_for_terminal
from supervisor.config.errors import ConfigError
from supervisor.config.gateway import GatewayPlace, find_gateway, last_chat, remember_chat

MAX_INPUT_CHARACTERS = 64 * 1024 * 1024
QUIT_WORDS = ("/quit", "/exit")


@click.command(
    "chat", epilog=example('lobu chat "What is an actor?"', "lobu chat --continue", "lobu chat < letter.txt")
)
@click.argument("text", nargs=-1)
@click.option("--agent", help="The agent; default: the organization's default agent.")
@click.option("--user", help="Act for this user; default: the key's own.")
@click.option("--thread", help="Name of a conversation of its own.")
@click.option("--new", is_flag=True, help="A fresh conversation.")
@click.option("--continue", "resume", is_flag=True, help="The conversation that the last chat here used.")
@click.option("--json", "as_json", is_flag=True, help="Print every event as JSON, one a line.")
@gateway_options
def command(
    text: tuple[str, ...],
    agent: str | None,
    user: str | None,
    thread: str | None,
    new: bool,
    resume: bool,
    as_json: bool,
    gateway: str | None,
    data_dir: Path | None,
) -> int:
    """Send TEXT and print the reply as it comes; without TEXT, talk line by line.

    Exit code 0 when the reply is complete, 1 on an error, 130 on Ctrl-C, which cancels the turn first.
    At the prompt, /new starts afresh and /quit or Ctrl-D leaves.
    """
    if resume and (new or agent or thread or user):
        raise click.UsageError(
            "--continue goes on with a known conversation; leave out --new, --agent, --thread, --user."
        )
    if new and thread:
        raise click.UsageError("--new names its conversation itself; leave out --thread.")
    opening = Opening(agent=agent, user=user, thread=thread, new=new)
    if resume:
        key = last_chat(data_dir)
        if key is None:
            raise click.ClickException("there is no earlier chat in this folder; leave out --continue.")
        opening = Opening(key=key)
    chat = Chat(find_gateway(gateway, data_dir), opening, data_dir, as_json)
    if not text and sys.stdin.isatty():
        return chat.talk()
    content = " ".join(text) if text else _piped_text()
    if not content.strip():
        raise click.UsageError('nothing to send; give a text, as in: lobu chat "Hello"')
    return chat.say(content)


def _piped_text() -> str:
    try:
        return sys.stdin.read(MAX_INPUT_CHARACTERS).strip()
    except UnicodeDecodeError:
        raise click.UsageError("what was piped in is not UTF-8 text.") from None


class Chat:
    """Messages to one conversation."""

    def __init__(self, place: GatewayPlace, opening: Opening, data_dir: Path | None, as_json: bool) -> None:
        self._place = place
        self._opening = opening
        self._data_dir = data_dir
        self._as_json = as_json

    def talk(self) -> int:
        """A session at the terminal, until its end of input. A failed turn does not end it."""
        with contextlib.suppress(ImportError):
            importlib.import_module("readline")  # gives `input` line editing and a memory
        while True:
            try:
                line = input("you> ").strip()
            except (EOFError, KeyboardInterrupt) as end:
                click.echo()
                return 0 if isinstance(end, EOFError) else INTERRUPTED
            if line in QUIT_WORDS:
                return 0
            if line == "/new":
                # A conversation of its own: what was said in the old one stays there.
                self._opening = replace(self._opening, key=None, thread=None, new=True)
                click.echo("(starting fresh)", err=True)
            elif line:
                self._say_in_session(line)

    def _say_in_session(self, line: str) -> None:
        from supervisor.cli.failures import sentences

        try:
            self.say(line)
        except (ClientError, click.ClickException) as error:
            for sentence in sentences(error):
                click.echo(f"lobu: {sentence}", err=True)

    def say(self, content: str) -> int:
        """Send, show, ask; gives the exit code. Raises ClientError, UsageError."""
        if not is_storable(content):
            raise click.UsageError("the text holds NUL or is not UTF-8; it cannot be sent.")
        exchange = Exchange(self._place, self._opening)
        display: Display = JsonDisplay() if self._as_json else TextDisplay(exchange.message_id)
        try:
            outcome = exchange.send_and_follow(content, display, self._opened)
            while isinstance(outcome, Question):
                display.pause()
                self._ask(exchange, outcome)
                outcome = exchange.follow(display)
        except (Interrupted, KeyboardInterrupt, click.Abort):
            display.stop()
            with contextlib.suppress(Interrupted, ClientError, KeyboardInterrupt):
                exchange.cancel(display)
            click.echo("(cancelled)", err=True)
            return INTERRUPTED
        except NobodyAnswers as error:
            end = None
            with contextlib.suppress(Interrupted, ClientError):
                end = exchange.cancel(display)
            if end is None or end.type == "cancelled":
                raise click.ClickException(str(error)) from None
            outcome = end  # while the question was shown
        return _exit_code(outcome)

    def _opened(self, key: str) -> None:
        """Later messages go to the same conversation; a folder that cannot be written to does not stop a chat."""
        if self._opening.key == key:
            return
        self._opening = replace(self._opening, key=key)
        with contextlib.suppress(ConfigError):
            remember_chat(key, self._data_dir)

    def _ask(self, exchange: Exchange, question: Question) -> None:
        if (refusal := exchange.answer(question, _read_answer(question))) is not None:
            click.echo(f"({refusal})", err=True)


class NobodyAnswers(Exception):
    """A question, and no more input to answer it from."""


def _read_answer(question: Question) -> str:
    """Ask on stderr, read a line from stdin; an option by its number or its text."""
    click.echo(safe_for_terminal(question.prompt), err=True)
    for number, option in enumerate(question.options, start=1):
        click.echo(safe_for_terminal(f"  {number}) {option}"), err=True)
    while True:
        click.echo("answer> ", nl=False, err=True)
        try:
            line = input().strip()
        except EOFError:
            raise NobodyAnswers(
                "the agent asked a question and there is nobody to answer it; run `lobu chat` at a terminal."
            ) from None
        if line in question.options:
            return line
        if line.isascii() and line.isdigit() and 1 <= int(line) <= len(question.options):
            return question.options[int(line) - 1]
        if line and not question.options:
            return line
        if question.options:
            click.echo(f"(a number from 1 to {len(question.options)})", err=True)


def _exit_code(event: ClientEvent) -> int:
    if event.type == "complete":
        return 0
    if event.type == "cancelled":
        click.echo("lobu: the turn was cancelled; send the message again if it is still wanted.", err=True)
        return 1
    code, sentence = event.data.get("errorCode", "UNKNOWN"), event.data.get("error", "the turn failed")
    context = event.data.get("errorContext")
    detail = context.get("detail") if isinstance(context, dict) else None
    click.echo(safe_for_terminal(f"lobu: {code}: {sentence}{f' ({detail})' if detail else ''}"), err=True)
    return 1
