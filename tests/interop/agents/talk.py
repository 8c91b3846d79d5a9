"""A conversation with an agent behind a real `lobu run`, followed live: for scenarios that look in while it replies."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from tests.system.lobu_process import until
from tests.system.sse_client import Client, Conversation, Frame, Transcript

YES = re.compile(r"yes|allow|approve", re.IGNORECASE)
NO = re.compile(r"no\b|reject|deny|don't", re.IGNORECASE)
SECONDS = 45.0  # for anything that an agent does, unless it is known to take longer


class Talk:
    def __init__(self, conversation: Conversation, patience_seconds: float | None = None) -> None:
        self.conversation = conversation
        self._patience = patience_seconds
        self.transcript = Transcript()
        self._over = False

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, client: Client, agent: str, *, patience_seconds: float | None = None, **fields: object
    ) -> AsyncIterator[Talk]:
        """Followed until the block ends; then nothing may have come that should not have."""
        talk = cls(await client.open(agentId=agent, **fields), patience_seconds)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.transcript.follow, talk.conversation, lambda: talk._over)
            await until(lambda: talk.transcript.connections, "the reader is connected")
            yield talk
            talk._over = True
            nursery.cancel_scope.cancel()
        assert talk.transcript.faults == []

    async def ask(self, content: str, seconds: float | None = None, **fields: object) -> Frame:
        """The message's terminal event."""
        return await self.end_of(await self.conversation.send(content, **fields), seconds)

    async def end_of(self, message_id: str, seconds: float | None = None) -> Frame:
        await self.sees(lambda: message_id in self.transcript.terminals, f"{message_id} ends", seconds)
        return self.transcript.terminals[message_id]

    async def sees(self, condition: Callable[[], object], what: str, seconds: float | None = None) -> None:
        seconds = self._patience if seconds is None else seconds
        with trio.move_on_after(seconds):
            while not condition():
                await self.transcript.changed()
            return
        last = [(frame.event, frame.data) for frame in self.transcript.frames[-5:]]
        raise AssertionError(f"not within {seconds:g} s: {what}; the last frames: {last}")

    async def text_of(self, message_id: str, words: str, seconds: float | None = None) -> None:
        """Until the reply has these words."""
        await self.sees(lambda: words in self.transcript.texts.get(message_id, ""), f"{words!r} is streamed", seconds)

    async def question(self, message_id: str, number: int = 0, seconds: float | None = None) -> Frame:
        """The question of that number which the message's turn asks."""

        def asked() -> list[Frame]:
            frames = self.transcript.frames
            return [frame for frame in frames if (frame.event, frame.data.get("messageId")) == ("question", message_id)]

        def is_there() -> bool:
            return len(asked()) > number or message_id in self.transcript.terminals

        await self.sees(is_there, "a question", seconds)
        assert len(asked()) > number, f"it ended without a question: {self.transcript.terminals[message_id]}"
        return asked()[number]

    async def answer(self, question: Frame, text: str) -> None:
        path = f"{self.conversation.path}/questions/{question.data['questionId']}/answer"
        reply = await self.conversation.client.call("POST", path, {"answer": text})
        assert reply.status == 200, reply

    async def consent(self, question: Frame, *, refuse: bool = False) -> None:
        """The first option that says yes, or no."""
        wanted = NO if refuse else YES
        await self.answer(question, next(option for option in question.data["options"] if wanted.match(option)))

    async def consent_until(self, message_id: str, condition: Callable[[], object], *, refuse: bool = False) -> None:
        """Answer whatever the message's turn asks, until the condition is met or the turn is over."""
        answered: set[str] = set()
        with trio.fail_after(self._patience):
            while not condition() and message_id not in self.transcript.terminals:
                for frame in list(self.transcript.frames):
                    if frame.event == "question" and frame.data["questionId"] not in answered:
                        answered.add(frame.data["questionId"])
                        if frame.data.get("messageId") == message_id:
                            await self.consent(frame, refuse=refuse)
                await trio.sleep(0.05)

    async def cancel(self, message_id: str) -> None:
        reply = await self.conversation.client.call(
            "POST", f"{self.conversation.path}/cancel", {"messageId": message_id}
        )
        assert reply.status == 202, reply

    def statuses(self, message_id: str) -> list[tuple[str, str | None]]:
        """What was said and the phase of it."""
        frames = self.transcript.frames
        return [
            (frame.data["status"], frame.data.get("phase"))
            for frame in frames
            if (frame.event, frame.data.get("messageId")) == ("status", message_id)
        ]
