"""One message and its reply, as blocking calls: send, follow, answer, cancel. Each call is a trio run of its own.

So a person can be asked in between with plain `input`, line editing and all, and Ctrl-C there is an ordinary
KeyboardInterrupt. What has been received lives in a `Transcript`, and following goes on exactly where it stopped.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
import trio

from lobu_actors.client import Client, ClientError, ClientEvent, RequestRefused, Transcript
from lobu_actors.contract.ids import new_id
from supervisor.cli.display import Display
from supervisor.config.gateway import GatewayPlace

# After Ctrl-C: how long to wait for the server's word that the turn is cancelled.
CANCEL_SECONDS = 10.0

_Result = TypeVar("_Result")


class Interrupted(Exception):
    """Ctrl-C came while waiting."""


class Question(msgspec.Struct, frozen=True):
    """The agent asks; the turn stands still until somebody answers."""

    question_id: str
    prompt: str
    options: tuple[str, ...]


class Opening(msgspec.Struct, frozen=True):
    """Which conversation: `key` of one that is known, or what to open."""

    key: str | None = None
    agent: str | None = None
    user: str | None = None
    thread: str | None = None
    new: bool = False


class Exchange:
    """A message on its way. All methods raise ClientError and Interrupted; use it from one thread."""

    def __init__(self, place: GatewayPlace, opening: Opening) -> None:
        self._place = place
        self._opening = opening
        self._transcript = Transcript()
        self._accepted = False
        self.key = opening.key
        self.message_id = new_id()

    def send_and_follow(self, content: str, display: Display, on_open: Callable[[str], None]) -> ClientEvent | Question:
        """Until the terminal event or a question. `on_open` is told the conversation's key."""

        async def work(client: Client) -> ClientEvent | Question:
            if self.key is None:
                at = self._opening
                self.key = (await client.open(at.agent, user=at.user, thread=at.thread, new=at.new)).key
            on_open(self.key)
            await client.send(self.key, content, message_id=self.message_id)
            return await self._follow(client, display)

        return self._run(work)

    def follow(self, display: Display) -> ClientEvent | Question:
        """Go on behind a question."""

        async def work(client: Client) -> ClientEvent | Question:
            return await self._follow(client, display)

        return self._run(work)

    def answer(self, question: Question, answer: str) -> str | None:
        """None when it was taken, else why it came too late."""

        async def work(client: Client) -> str | None:
            assert self.key is not None
            try:
                await client.answer(self.key, question.question_id, answer)
            except RequestRefused as error:
                if error.status == 409:
                    return str(error)
                raise
            return None

        return self._run(work)

    def cancel(self, display: Display) -> ClientEvent | None:
        """Ask for the turn's end and wait for it, a bounded time. A second Ctrl-C ends the wait.

        Gives the event that ended it, which may have come before; None when it did not come in time.
        """
        if self.key is None:
            return None

        async def work(client: Client) -> ClientEvent | None:
            assert self.key is not None
            with trio.move_on_after(CANCEL_SECONDS):
                await client.cancel(self.key, self.message_id)
                while isinstance(event := await self._follow(client, display), Question):
                    pass
                return event
            return None

        return self._run(work)

    async def _follow(self, client: Client, display: Display) -> ClientEvent | Question:
        assert self.key is not None
        async with client.stream(self.key, message_id=self.message_id, transcript=self._transcript) as events:
            async for event in events:
                display.event(event)
                if event.message_id != self.message_id:
                    continue
                if event.terminal:
                    return event
                if event.type == "question":
                    return _question(event)
        raise ClientError("the conversation was ended before the reply came; open it again with `lobu chat --new`.")

    def _run(self, work: Callable[[Client], Awaitable[_Result]]) -> _Result:
        return trio.run(self._interruptible, work)

    async def _interruptible(self, work: Callable[[Client], Awaitable[_Result]]) -> _Result:
        """SIGINT cancels the work in an orderly way, in place of a KeyboardInterrupt wherever it happens to be."""
        results: list[_Result] = []
        errors: list[ClientError] = []
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    async for _ in signals:
                        nursery.cancel_scope.cancel()

                nursery.start_soon(watch)
                async with Client(self._place.url, self._place.key) as client:
                    try:
                        results.append(await work(client))
                    except ClientError as error:
                        errors.append(error)
                nursery.cancel_scope.cancel()
        if errors:
            raise errors[0]
        if not results:
            raise Interrupted
        return results[0]


def _question(event: ClientEvent) -> Question:
    options = event.data.get("options")
    return Question(
        question_id=str(event.data.get("questionId", "")),
        prompt=str(event.data.get("prompt", "")),
        options=tuple(str(option) for option in options) if isinstance(options, list) else (),
    )
