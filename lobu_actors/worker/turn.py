"""The turn that a handler is given, and the exceptions between them.

Owns a run's state as the worker sees it: the text sent so far, the questions asked, whether it is cancelled. `Run` is
shared by the thread that reads the socket and the handler; `BlockingTurn` and `Turn` are what the handler sees of it.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from lobu_actors.worker.channel import Channel, Wire
from lobu_actors.worker.session import SessionFile, text_of

if TYPE_CHECKING:
    import asyncio

CRASH_STATUS = 70  # of a process that `crash` ended
PIECE_CHARS = 256 * 1024  # of text in one frame, where each may take up to 12 bytes


def _check(what: str, value: object) -> None:
    """A frame with anything else in its place would end the worker, and its author would not be told where."""
    if not isinstance(value, str):
        raise TypeError(f"{what} is a str, not {type(value).__name__}")


class Fail(Exception):
    """Raise it to fail the turn with a code of your own (capital letters, digits, `_`); the worker lives on."""

    def __init__(
        self, code: str, message: str = "", retryable: bool | None = None, context: dict[str, Any] | None = None
    ) -> None:
        _check("a code", code)
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.message = str(message)  # often it is another error
        self.retryable = retryable
        self.context = context


def crash(reason: str) -> NoReturn:
    """End this process, which is of no more use, as when a program that it drives has died. Call it from any thread.

    Nothing is said to the supervisor: a turn ends as one whose worker crashed, by the agent's rules for that, and
    whatever this process has started ends too. The reason is for the log.
    """
    print(f"this worker ends: {reason}", file=sys.stderr, flush=True)
    os._exit(CRASH_STATUS)


class Steer(NamedTuple):
    """What the user added to the turn while it ran."""

    message_id: str
    content: str


class Cancelled(BaseException):
    """The turn was cancelled while it waited here. Not an Exception, so that `except Exception` lets it through."""


class Run:
    """One run. The channel's lock guards `text` and `terminal`, so that what is sent again is what was sent."""

    def __init__(self, channel: Channel, frame: Wire, hello: Wire, session: SessionFile | None) -> None:
        self.run_id: str = frame["runId"]
        self.frame = frame
        self.hello = hello
        self.session = session  # None: somebody else writes the file
        self.text: list[str] = []
        self.recorded: list[Wire] = []  # messages for the session file, which stand for the text up to `recorded_chars`
        self.recorded_chars = 0
        self.kept: list[tuple[str, Any]] = []
        self.begun = 0  # messages that the session file got when the run began
        self.terminal: Wire | None = None
        self.cancel_reason: str | None = None
        self.changed = threading.Condition()
        self.on_change: Callable[[], object] | None = None  # set by the asynchronous driver
        self.answers: dict[str, str] = {}
        self.steers: list[Steer] = []
        self.processed: list[str] = [message["messageId"] for message in frame["messages"] if "messageId" in message]
        self._open: dict[str, Wire] = {}
        self._channel = channel

    # --- handler's side

    def send_text(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"a reply is made of str, not of {type(text).__name__}")
        if not text:
            return
        with self._channel.lock:
            self.text.append(text)
            for at in range(0, len(text), PIECE_CHARS):
                self.send({"type": "delta", "runId": self.run_id, "text": text[at : at + PIECE_CHARS]})

    def send(self, frame: Wire) -> None:
        self._channel.send(frame)

    def record(self, message: Wire) -> None:
        self.recorded.append(message)
        self.recorded_chars = sum(map(len, self.text))

    def end(self, frame: Wire) -> None:
        with self._channel.lock:
            self.terminal = frame
            self.send(frame)

    def ask(self, prompt: str, options: Sequence[str] | None) -> str:
        _check("a prompt", prompt)
        for option in options or ():
            _check("an option", option)
        question_id = os.urandom(8).hex()
        frame: Wire = {"type": "ask", "runId": self.run_id, "questionId": question_id, "prompt": prompt}
        if options is not None:
            frame["options"] = list(options)
        with self._channel.lock:
            self._open[question_id] = frame
            self.send(frame)
        return question_id

    def take_answer(self, question_id: str) -> str | None:
        answer = self.answers.pop(question_id, None)
        if answer is not None:
            self._open.pop(question_id, None)
        return answer

    def take_steers(self) -> list[Steer]:
        with self.changed:
            taken, self.steers = self.steers, []
            self.processed += [steer.message_id for steer in taken]
        return taken

    def put_back(self, steer: Steer) -> None:
        with self.changed:
            self.processed.remove(steer.message_id)

    # --- reader's side

    def cancel(self, reason: str) -> None:
        self.cancel_reason = reason
        self._notify()

    def answer(self, question_id: str, answer: str) -> None:
        self.answers[question_id] = answer
        self._notify()

    def steer(self, message_id: str, content: str) -> None:
        with self.changed:
            self.steers.append(Steer(message_id, content))
        self._notify()

    def send_again(self, offset: int) -> None:
        """For a new supervisor: the text from `offset` (in code points), the open questions, the end if it came.

        Each piece says where it begins, the first one even when it is empty: what was written before it may still be on
        its way, and so may a `reattach` of yet another supervisor.
        """
        with self._channel.lock:
            text = "".join(self.text)
            for at in range(offset, max(len(text), offset + 1), PIECE_CHARS):
                piece = text[at : at + PIECE_CHARS]
                self.send({"type": "delta", "runId": self.run_id, "text": piece, "textOffset": at})
            for frame in (*self._open.values(), *((self.terminal,) if self.terminal else ())):
                self.send(frame)

    def _notify(self) -> None:
        with self.changed:
            self.changed.notify_all()
        on_change = self.on_change  # once: the driver takes it back when the run ends
        if on_change is not None:
            on_change()


class _BaseTurn:
    """What both kinds of turn have in common. Nothing here waits, but for a supervisor that does not read."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.usage: dict[str, Any] | None = None  # set it to report token counts with the reply
        self.tool_calls: list[dict[str, str]] = []  # `{id, name, arguments}` for the client to carry out, see `tools`
        self.messages: list[dict[str, Any]] = list(run.frame["messages"])
        self.attempt: int = run.frame["attempt"]
        self.run_id = run.run_id
        self.settings: dict[str, Any] = run.hello["settings"]
        self.workspace: str = run.hello["workspace"]
        self.session_file: str = run.hello["sessionFile"]

    @property
    def content(self) -> str:
        """The text of all messages of this turn, with an empty line between two."""
        return "\n\n".join(text_of(message.get("content")) for message in self.messages)

    @property
    def summary(self) -> str | None:
        """What was said in the session before this one, as long as this one has nothing of its own."""
        summary = self._run.frame.get("summary")
        return summary if isinstance(summary, str) else None

    @property
    def instructions(self) -> str:
        """What the client says of how to reply, beside the agent's own; empty when it says nothing."""
        found = self._newest("instructions")
        return found if isinstance(found, str) else ""

    @property
    def tools(self) -> list[dict[str, Any]]:
        """What the client can carry out: `{name, description?, parameters?}`. Its next message brings the results."""
        return objects(self._newest("tools"))

    @property
    def tool_choice(self) -> str | dict[str, Any]:
        """Whether one of `tools` is to be called: `auto`, `none`, `required`, or `{name}` for a certain one."""
        found = self._newest("toolChoice")
        return found if isinstance(found, (str, dict)) else "auto"

    @property
    def parameters(self) -> dict[str, Any]:
        """What else the client would have its model asked with, by the names of chat completions."""
        found = self._newest("parameters")
        return found if isinstance(found, dict) else {}

    @property
    def tool_results(self) -> list[dict[str, Any]]:
        """What came of the calls of the turn before: `{toolCallId, content}`."""
        return objects(self._newest("toolResults"))

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context of this run, to hang one's own spans below or to send on; None: there is none."""
        traceparent = self._run.frame.get("traceparent")
        return traceparent if isinstance(traceparent, str) else None

    @property
    def _session(self) -> SessionFile:
        if self._run.session is None:
            raise RuntimeError("the session file is not the SDK's: this worker serves with `writes_session`")
        return self._run.session

    @property
    def cancelled(self) -> bool:
        return self._run.cancel_reason is not None

    def _newest(self, field: str) -> Any:
        """What the newest message says in a field."""
        return self.messages[-1].get(field) if self.messages else None

    def history(self) -> list[dict[str, Any]]:
        """The conversation's messages before this turn, from the session file, oldest first."""
        messages = self._session.history()
        return messages[: len(messages) - self._run.begun]

    def transcript(self) -> list[dict[str, Any]]:
        """The history, and behind it this turn: results of calls that the client made, and the user's messages."""
        return self._session.history()

    def carried(self) -> list[dict[str, Any]]:
        """What was said before the conversation came here, as the client tells it; only with its first message.

        Each has `role` and `content`, maybe `toolCalls` or `toolCallId`. Where there is a `history()`, it has them too.
        """
        return objects(self.messages[0].get("history")) if self.messages else []

    def kept(self, kind: str) -> list[Any]:
        """What earlier turns kept under this name, oldest first."""
        return self._session.kept(kind)

    def keep(self, kind: str, data: Any) -> None:
        """Note something of yours for later turns, as JSON; the session file gets it if the turn succeeds."""
        self._run.kept.append((kind, data))

    def write(self, text: str) -> None:
        """Add to the reply, as a generator's `yield` does."""
        self._run.send_text(text)

    def record(self, message: dict[str, Any]) -> None:
        """Note a message, with its `role` and `content`, for the session file, which gets it if the turn succeeds.

        It stands for all text that was sent before it: the file's last message of the assistant has what came after.
        """
        self._run.record(message)

    def status(self, status: str, phase: str | None = None, tool: str | None = None, code: str | None = None) -> None:
        """Tell what is being done; `phase` is `model`, `tool` or `waiting`.

        `code`: a failure of the provider that the worker may yet get over; if it does not in time, it is the turn's.
        """
        _check("a status", status)
        frame: Wire = {"type": "status", "runId": self.run_id, "status": status}
        for name, value in (("phase", phase), ("tool", tool), ("code", code)):
            if value is not None:
                _check(f"a {name}", value)
                frame[name] = value
        self._run.send(frame)

    def ephemeral(self, text: str) -> None:
        """Show a text that is no part of the reply."""
        _check("a text", text)
        self._run.send({"type": "ephemeral", "runId": self.run_id, "text": text})

    def log(self, message: str, level: str = "info", **fields: Any) -> None:
        """A line for the supervisor's log."""
        _check("a message", message)
        _check("a level", level)
        self._run.send({"type": "log", "level": level, "message": message, "fields": fields})

    def take_steers(self) -> list[Steer]:
        """What the user added since the turn began or since the last call; for workers that serve with `steer`.

        Each counts as read from here on. What nobody took when the turn completes is a message of its own afterwards.
        """
        return self._run.take_steers()

    def put_back(self, steer: Steer) -> None:
        """Something that was taken was not read after all: it becomes a message of its own when the turn completes."""
        self._run.put_back(steer)


def objects(found: Any) -> list[dict[str, Any]]:
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


class BlockingTurn(_BaseTurn):
    """A turn for plain functions and generators. What waits here raises Cancelled when the turn is cancelled."""

    def ask(self, prompt: str, options: Sequence[str] | None = None) -> str:
        """Ask the person and wait for the answer."""
        run = self._run
        question_id = run.ask(prompt, options)
        with run.changed:
            while (answer := run.take_answer(question_id)) is None:
                if run.cancel_reason is not None:
                    raise Cancelled
                run.changed.wait()
        return answer

    def sleep(self, seconds: float) -> None:
        """Wait; wakes and raises Cancelled when the turn is cancelled."""
        with self._run.changed:
            if self._run.changed.wait_for(lambda: self._run.cancel_reason is not None, seconds):
                raise Cancelled


class Turn(_BaseTurn):
    """A turn for asynchronous handlers, whose task is cancelled with the turn."""

    def __init__(self, run: Run, changed: "asyncio.Event") -> None:
        super().__init__(run)
        self._changed = changed

    async def steered(self) -> list[Steer]:
        """Wait until the user adds something, and take it."""
        while not (steers := self._run.take_steers()):
            self._changed.clear()
            await self._changed.wait()
        return steers

    async def ask(self, prompt: str, options: Sequence[str] | None = None) -> str:
        """Ask the person and wait for the answer. Several tasks may ask at a time."""
        question_id = self._run.ask(prompt, options)
        while (answer := self._run.take_answer(question_id)) is None:
            self._changed.clear()
            await self._changed.wait()
        return answer
