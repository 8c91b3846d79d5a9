"""Clients that do everything: each talk is one user with one conversation at a time, who writes to any host and reads
at any, over event streams and WebSockets, and notes whatever is not as promised."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import attrs
import httpx
import trio

from tests.overlap.sockets import Refused, ask, opened, words_of
from tests.system.lobu_process import LobuRun
from tests.system.sse_client import Answer, Broken, Client, Conversation, Frame, Transcript

NOT_NOW = (429, 502, 503, 504)
RETRY_SECONDS = 0.1
OWED_AT_MOST = 5
LONG_WORDS, LONG_MILLISECONDS = 80, 100  # a reply of eight seconds, which is there to be cancelled
DONE_IN_VAIN_SECONDS = 4.0
OUR_DOING = "The supervisor killed the worker."


@attrs.define(eq=False)
class Sent:
    """A message, and what its reply has to be if it completes by itself; None: not known."""

    message_id: str
    content: str
    text: str | None = None
    accepted_at: float | None = None
    turn_id: str | None = None
    cancelled_at: float | None = None  # when a wish to cancel was accepted


class Life:
    """One conversation from its opening to its deletion."""

    def __init__(self, conversation: Conversation) -> None:
        self.conversation = conversation
        self.transcript = Transcript()
        self.sent: dict[str, Sent] = {}
        self.closed = False  # its readers were told so
        self.deleting = False
        self.ended_at: dict[str, float] = {}
        self.answers: dict[str, list[str]] = {}  # of each question: what was taken

    @property
    def accepted(self) -> dict[str, Sent]:
        return {name: sent for name, sent in self.sent.items() if sent.accepted_at is not None}

    @property
    def owed(self) -> list[Sent]:
        return [sent for name, sent in self.accepted.items() if name not in self.transcript.terminals]


class Talk:
    def __init__(self, hosts: Sequence[LobuRun], user: str, agent: str, seed: str, nursery: trio.Nursery) -> None:
        self.hosts = hosts
        self.user = user
        self.agent = agent
        self.random = random.Random(seed)
        self.faults: list[str] = []
        self.lives: list[Life] = []
        self.retries = 0
        self.doing = ""
        self._numbers = 0
        self._nursery = nursery

    # --- what it does

    async def go(self, over: Callable[[], bool]) -> None:
        """Until `over()`; may be called again, and goes on then."""
        while not over():
            if not self.lives or self.lives[-1].deleting:
                self.lives.append(Life(await self._opened()))
                self._nursery.start_soon(self._read, self.lives[-1])
            await self._act(self.lives[-1])
            await trio.sleep(self.random.expovariate(3))

    async def _opened(self) -> Conversation:
        while True:
            client = self._client()
            with suppress(Broken, trio.TooSlowError):
                answer = await client.call(
                    "POST", "/api/v1/agents", {"agentId": self.agent, "userId": self.user, "forceNew": True}
                )
                if answer.status == 201:
                    return Conversation(client, answer.body["agentId"])
                self._expect(answer, NOT_NOW, "opening")
            await self._again()

    async def _act(self, life: Life) -> None:
        if len(life.owed) >= OWED_AT_MOST:
            if self.random.random() < 0.05:
                await self._cancel(life, None if self.random.random() < 0.3 else self.random.choice(life.owed))
            return
        chance = self.random.random()
        if chance < 0.62:
            await self._send(life, *self._words())
        elif chance < 0.70:  # several at once, so that there is something to join, interrupt and refuse
            async with trio.open_nursery() as nursery:
                for _ in range(self.random.randint(2, 4)):
                    nursery.start_soon(self._send, life, *self._words())
        elif chance < 0.76:
            sent = await self._send(life, f"stream {LONG_WORDS} {LONG_MILLISECONDS}", _stream(LONG_WORDS))
            await trio.sleep(self.random.uniform(0, 2))
            if sent is not None:
                await self._cancel(life, sent)
        elif chance < 0.81:
            await self._send(life, "/new", None)
        elif chance < 0.84:
            await self._call(life, "POST", "/reset", {"messageId": self._id()}, (200, 202, 409))
        elif chance < 0.90:
            await self._upload(life)
        elif chance < 0.93:
            await self._cancel(life, self.random.choice(life.owed) if life.owed else None)
        elif chance < 0.985:
            path = self.random.choice(("", "/session/messages", "/session/stats", "/files"))
            await self._call(life, "GET", path, None, (200, 404, 409))
        else:
            life.deleting = True
            while (await self._call(life, "DELETE", "", None, (200,))) is None:
                await self._again()

    def _words(self) -> tuple[str, str | None]:
        """A message's content and its reply."""
        one = self.random
        word = f"w{one.getrandbits(32):x}"
        number, delay = one.randint(1, 60), one.randint(0, 40)
        nap = f"{one.uniform(0, 2):.2f}"
        return one.choice(
            (
                (f"say {word} again", f"say {word} again"),
                (f"say {word} äöü \U0001f600", f"say {word} äöü \U0001f600"),
                (f"stream {number} {delay}", _stream(number)),
                (f"stream {number} {delay}", _stream(number)),
                (f"stream {number} {delay}", _stream(number)),
                (f"sleep {nap}", f"slept {nap}"),
                ("ask once more?", None),
                ("ask once more?", None),
                ("history", None),
                ("history", None),
                ("crash", None),
                ("crash mid", None),
                ("crash 124", None),
                ("crash mid 124", None),
                ("exit0", None),
                ("close", None),
                ("garbage", None),
                ("hang", None),
                ("freeze", None),
                ("fail MY_CODE asked", None),
                ("spawn session", None),
                ("forge", "forged"),
            )
        )

    async def _send(self, life: Life, content: str, text: str | None) -> Sent | None:
        """Until it is known whether it was taken, at both hosts at once now and then."""
        text = None if self.agent == "fuzzing" else text
        sent = life.sent[name] = Sent(name := self._id(), content, text)
        body = {"content": content, "messageId": name}
        if content != "/new" and (
            on_busy := self.random.choice(("", "", "", "", "merge", "steer", "interrupt", "reject"))
        ):
            body["onBusy"] = on_busy
        times = 2 if self.random.random() < 0.2 else 1
        async with trio.open_nursery() as nursery:
            for _ in range(times):
                nursery.start_soon(self._post, life, sent, body)
        return sent if sent.accepted_at is not None else None

    async def _post(self, life: Life, sent: Sent, body: dict[str, Any]) -> None:
        while True:
            answer = await self._call(life, "POST", "/messages", body, (200, 409))
            if answer is not None:
                break
            await self._again()
        if answer.status == 200:
            self._accepted(sent, answer.body)

    def _accepted(self, sent: Sent, body: dict[str, Any]) -> None:
        if sent.turn_id not in (None, body["turnId"]):
            self.faults.append(f"{sent.message_id} is two turns: {sent.turn_id} and {body['turnId']}")
        sent.turn_id = body["turnId"]
        sent.accepted_at = sent.accepted_at or time.monotonic()

    async def _upload(self, life: Life) -> None:
        data = self.random.randbytes(self.random.choice((10, 1000, 300_000)))
        found = {"one.bin": hashlib.sha256(data).hexdigest()}
        sent = life.sent[name] = Sent(
            name := self._id(), "copy", None if self.agent == "fuzzing" else json.dumps(found)
        )
        while True:
            run = self.random.choice(self.hosts)
            headers = {"Authorization": f"Bearer {run.admin_key}"}
            with suppress(httpx.HTTPError):
                async with httpx.AsyncClient(base_url=run.url, headers=headers, timeout=30) as client:
                    answer = await client.post(
                        f"{life.conversation.path}/messages",
                        data={"content": "copy", "messageId": name},
                        files=[("files", ("one.bin", data, "application/x-test"))],
                    )
                if answer.status_code == 200:
                    self._accepted(sent, answer.json())
                if (
                    self._expect(Answer(answer.status_code, answer.json()), (200, 409, *NOT_NOW), "upload")
                    not in NOT_NOW
                ):
                    return
            await self._again()

    async def _cancel(self, life: Life, sent: Sent | None) -> None:
        body = {"messageId": sent.message_id} if sent else {}
        meant = [sent] if sent else life.owed
        answer = await self._call(life, "POST", "/cancel", body, (202, 404))
        if answer is not None and answer.body.get("stage") == "accepted":
            for one in meant:
                one.cancelled_at = one.cancelled_at or time.monotonic()

    async def _answer(self, life: Life, question: str) -> None:
        """Late, at any host, several at once, or not at all."""
        await trio.sleep(self.random.choice((0.0, 0.1, 1.0, 4.0)))
        if self.random.random() < 0.15:
            return

        async def give(text: str) -> None:
            path = f"/questions/{question}/answer"
            answer = await self._call(life, "POST", path, {"answer": text}, (200, 404, 409))
            if answer is not None and answer.status == 200:
                life.answers.setdefault(question, []).append(text)

        async with trio.open_nursery() as nursery:
            for number in range(self.random.choice((1, 1, 2, 3))):
                nursery.start_soon(give, f"answer{number}")

    # --- what it hears

    async def _read(self, life: Life) -> None:
        while not life.closed:
            read = self._read_socket if self.random.random() < 0.4 else self._read_stream
            with trio.move_on_after(self.random.expovariate(1 / 3) + 0.05), suppress(Broken, trio.TooSlowError):
                await read(life)
            await trio.sleep(0.05)

    async def _read_stream(self, life: Life) -> None:
        there = life.conversation.through(self._client())
        async with there.events(last_event_id=life.transcript.last_id) as stream:
            if stream.status != 200:
                self._expect(Answer(stream.status, {}), NOT_NOW, "events")
                raise Broken("not now")
            life.transcript.connections += 1
            while not life.closed and (frame := await stream.next()) is not None:
                self._take(life, frame)

    async def _read_socket(self, life: Life) -> None:
        run = self.random.choice(self.hosts)
        try:
            async with opened(run, life.conversation, life.transcript.last_id) as socket:
                life.transcript.connections += 1
                while not life.closed:
                    message = json.loads(await socket.get_message())
                    self._take(life, Frame(message["event"], message["data"], message.get("id")))
        except Refused as refused:
            self._expect(Answer(refused.status, {}), NOT_NOW, "socket")

    def _take(self, life: Life, frame: Frame) -> None:
        known = len(life.transcript.terminals)
        life.transcript.take(frame)
        if len(life.transcript.terminals) > known:
            self._judge(life, frame)
        if frame.event == "question":
            self._nursery.start_soon(self._answer, life, frame.data["questionId"])
        elif frame.event == "closed":
            life.closed = True
            self.faults += [f"{sent.message_id} has no end before `closed`" for sent in life.owed]

    def _judge(self, life: Life, frame: Frame) -> None:
        name = frame.data["messageId"]
        life.ended_at[name] = time.monotonic()
        if "FORGED" in json.dumps(frame.data):
            self.faults.append(f"{name}: a forged frame was taken for true: {frame}")
        if frame.event == "agent-error" and OUR_DOING in json.dumps(frame.data.get("errorContext")):
            self.faults.append(f"{name} failed because its worker was ended by us: {frame.data}")
        sent = life.sent.get(name)
        if sent is None or frame.event != "complete":
            return
        late = sent.cancelled_at is not None and time.monotonic() - sent.cancelled_at > DONE_IN_VAIN_SECONDS
        # A machine whose line is cut learns of it when the line is back, and may have its whole reply by then.
        if late and sent.text == _stream(LONG_WORDS) and self.agent != "gpu":
            self.faults.append(f"{name} was said to be cancelled, and ran to its end")
        if self.agent != "fuzzing" and sent.content.startswith("ask") and frame.data["processedMessageIds"] == [name]:
            sent.text = _answer_of(life, name)
        if frame.data["processedMessageIds"] == [name] and sent.text not in (None, frame.data["finalText"]):
            self.faults.append(f"{name} ({sent.content}) has the reply {frame.data['finalText']!r}")

    # --- how it speaks

    async def _call(
        self, life: Life, method: str, path: str, body: dict[str, Any] | None, expected: tuple[int, ...]
    ) -> Answer | None:
        """None: no answer, or not now. Over a socket now and then."""
        self.doing = f"{self.user}'s {method} {path} {body}"
        words = words_of(path, body) if body is not None and self.random.random() < 0.3 else None
        with suppress(Broken, trio.TooSlowError):
            if words is not None:
                answer = await ask(self.random.choice(self.hosts), life.conversation, words)
            else:
                answer = await self._client().call(method, f"{life.conversation.path}{path}", body)
            return answer if self._expect(answer, (*expected, *NOT_NOW), f"{method} {path}") in expected else None
        return None

    def _expect(self, answer: Answer, statuses: tuple[int, ...], what: str) -> int:
        if answer.status not in statuses:
            self.faults.append(f"{what}: {answer}")
        return answer.status

    async def _again(self) -> None:
        self.retries += 1
        await trio.sleep(RETRY_SECONDS)

    def _client(self) -> Client:
        run = self.random.choice(self.hosts)
        return Client(run.url, run.admin_key)

    def _id(self) -> str:
        self._numbers += 1
        return f"{self.user}-{self._numbers}"


def _answer_of(life: Life, name: str) -> str | None:
    """Of the last question of this message."""
    asked = [
        f.data["questionId"] for f in life.transcript.frames if f.event == "question" and f.data["messageId"] == name
    ]
    told = {f.data["questionId"]: f.data["answer"] for f in life.transcript.frames if f.event == "question-answered"}
    return told.get(asked[-1]) if asked else None


def _stream(number: int) -> str:
    return "".join(f"word{place} " for place in range(number))


def every(talks: Sequence[Talk]) -> list[Life]:
    return [life for talk in talks for life in talk.lives]
