"""A turn with pi: the message in, pi's events out as text, statuses and questions, until pi has settled.

Owns pi from turn to turn. pi is started when a turn first needs it, and again when the session file is not as pi left
it: after a turn that failed or was cancelled, whose entries are in pi's memory and no longer in the file, and after a
reset. Nobody reads pi between turns, where it has nothing to say.
"""

import asyncio
import os
import time
from collections.abc import Sequence

from lobu_actors.agents import provider_errors
from lobu_actors.agents.briefing import briefed
from lobu_actors.agents.pi import session
from lobu_actors.agents.pi.events import Note, Question, Read, Reading, Settled, Show, Stop, Text, answer
from lobu_actors.agents.pi.settings import Settings, model_of, read
from lobu_actors.agents.program import NOT_STARTED, Json, Program
from lobu_actors.contract.errors import TurnError
from lobu_actors.worker import Fail, Steer, Turn

REFUSED = "AGENT_REFUSED"
STATUS_SECONDS = 1.0  # between two equal ones
_Model = tuple[str | None, str | None]


class Agent:
    """What lives as long as the worker."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._pi: Program | None = None
        self._model: _Model = (None, None)
        self._mark: tuple[int, int, int] | None = None
        self._instructions = ""  # of the client, as pi was told them

    async def reply(self, turn: Turn) -> None:
        settings = read(turn.settings)
        pi = await self._get(turn, settings, model_of(turn.settings, turn.messages))
        self._mark = None  # unless it ends well
        text = turn.content
        if not text.startswith("/"):  # which may be a command of pi's
            instructions = "" if turn.instructions == self._instructions else turn.instructions
            text = briefed(text, history=turn.carried(), summary=turn.summary, instructions=instructions)
            self._instructions = turn.instructions
        await _Conversation(turn, pi, text).run()
        self._mark = session.mark(turn.session_file)

    async def _get(self, turn: Turn, settings: Settings, model: _Model) -> Program:
        found = session.mark(turn.session_file)
        if self._pi is not None and (found is None or found != self._mark or model != self._model):
            pi, self._pi = self._pi, None
            await pi.close()
        if self._pi is None:
            self._instructions = ""
            session.prepare(turn.session_file, turn.workspace, trim=os.environ.get("LOBU_SESSION_STORE") == "file")
            self._pi = await self._start(turn, settings, model)
            self._model = model
        return self._pi

    async def _start(self, turn: Turn, settings: Settings, model: _Model) -> Program:
        options = ["--mode", "rpc", "--session", turn.session_file, "--no-approve", *settings.options()]
        for option, value in zip(("--provider", "--model"), model, strict=True):
            options += [option, value] if value else []
        pi = await Program.start("pi", [*self._command, *options], {}, turn.workspace)
        try:
            async with asyncio.timeout(settings.start_seconds):
                await pi.send({"id": "start", "type": "get_state"})
                while (await pi.receive()).get("id") != "start":
                    pass
        except TimeoutError:
            await pi.close()
            raise Fail(NOT_STARTED, f"pi was not ready within {settings.start_seconds:g} s.") from None
        except BaseException:
            await pi.close()
            raise
        pi.has_started()
        return pi


class _Conversation:
    """One turn of it."""

    def __init__(self, turn: Turn, pi: Program, text: str) -> None:
        self._turn = turn
        self._pi = pi
        self._text = text
        self._reading = Reading()
        self._steers: list[Steer] = []  # pi has them, and the model not yet
        self._questions: dict[str, tuple[Question, asyncio.Task[None]]] = {}  # that are open
        self._status: tuple[Show, float] | None = None
        self._stopped = False

    async def run(self) -> None:
        """Raises Fail."""
        turn = self._turn
        await self._pi.send({"id": "prompt", "type": "prompt", "message": self._text})
        failure: Fail | None = None
        async with asyncio.TaskGroup() as tasks:
            steering = tasks.create_task(self._steer())
            try:
                failure = await self._read(tasks)
            except asyncio.CancelledError:
                await self._abort()
                raise
            finally:
                steering.cancel()
                for _, asking in self._questions.values():
                    asking.cancel()
        await self._take_back()
        turn.usage = self._reading.usage
        if failure is None:
            failure = self._failure()
        if failure is not None:
            raise failure

    async def _read(self, tasks: asyncio.TaskGroup) -> Fail | None:
        """Until pi has settled."""
        while True:
            event = await self._pi.receive()
            if event.get("type") == "response":
                if event.get("id") == "prompt" and event.get("success") is not True:
                    return _refusal(str(event.get("error") or ""))
                if event.get("id") == "prompt" and self._text.startswith("/"):
                    await self._pi.send({"id": "state", "type": "get_state"})  # it may have been a command of pi's
                if event.get("id") == "state" and not self._reading.began and not _is_streaming(event):
                    return None
                continue
            for action in self._reading.take(event):
                match action:
                    case Text(text):
                        self._turn.write(text)
                    case Show():
                        self._show(action)
                    case Note(text):
                        self._turn.ephemeral(text)
                    case Question():
                        self._questions[action.request_id] = action, tasks.create_task(self._ask(action))
                    case Read(text):
                        self._is_read(text)
                    case Stop():
                        self._stopped = True
                        await self._pi.send({"type": "abort"})
                    case Settled():
                        return None

    async def _steer(self) -> None:
        while True:
            for steer in await self._turn.steered():
                self._steers.append(steer)
                await self._pi.send({"type": "steer", "message": steer.content})

    async def _ask(self, question: Question) -> None:
        text = await self._turn.ask(question.prompt, question.options)
        del self._questions[question.request_id]
        await self._pi.send(answer(question, text))

    async def _abort(self) -> None:
        """Cancelled: have pi and its tools stop. That it does not within the grace is for the supervisor to see."""
        for request_id in self._questions:  # while an extension waits for an answer, pi does not stop
            await self._pi.send({"type": "extension_ui_response", "id": request_id, "cancelled": True})
        for command in ("clear_queue", "abort"):
            await self._pi.send({"id": command, "type": command})
        while (await self._pi.receive()).get("id") != "abort":
            pass

    async def _take_back(self) -> None:
        """What pi still holds of what the user added would come with the next turn; it is a message of its own."""
        if not self._steers:
            return
        await self._pi.send({"id": "rest", "type": "clear_queue"})
        while (event := await self._pi.receive()).get("id") != "rest":
            for action in self._reading.take(event):
                if isinstance(action, Read):
                    self._is_read(action.text)
        for steer in self._steers:
            self._turn.put_back(steer)

    def _is_read(self, text: str) -> None:
        for steer in self._steers:
            if steer.content == text:
                self._steers.remove(steer)
                return

    def _show(self, show: Show) -> None:
        """Progress is told once a second at most, unless it is news."""
        now = time.monotonic()
        if self._status is None or self._status[0] != show or now - self._status[1] >= STATUS_SECONDS:
            self._status = show, now
            self._turn.status(show.status, phase=show.phase, tool=show.tool, code=show.code)

    def _failure(self) -> Fail | None:
        reading = self._reading
        if self._stopped or reading.stop_reason == "error":
            error = provider_errors.of_text(reading.error)
            print(f"pi reports: {reading.error[:2000]}", flush=True)
            return Fail(error.code, error.message, retryable=error.may_retry)
        if reading.stop_reason == "aborted":
            return Fail(TurnError.WORKER_FAILED, "pi was aborted.")
        return None


def _refusal(error: str) -> Fail:
    """pi takes no prompt without a model and a key for it; it says so in words only."""
    print(f"pi refused the message: {error[:2000]}", flush=True)
    if "api key" in error.lower():
        return Fail(TurnError.PROVIDER_AUTH, provider_errors.of_text(error).message)
    if "model" in error.lower():
        return Fail(TurnError.NO_MODEL_CONFIGURED, error[:500])
    return Fail(REFUSED, error[:500])


def _is_streaming(event: Json) -> bool:
    data = event.get("data")
    return isinstance(data, dict) and data.get("isStreaming") is True
