"""The load generator: a process of its own, so that what it costs is not taken for the server's.

`python -m benchmarks.load` reads one plan as a line of JSON, says `begin` and `end` around what is measured (each waits
for a line in return, so that the caller can look at the server's processes), and prints what it found. Latency counts
from the moment at which a message was meant to be sent: a server that stands still does not stop the count
(coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import attrs

from benchmarks.histogram import Histogram
from benchmarks.wire import Caller, Place, Reader

AT_ONCE = 32  # connections that are being made
WAIT_SECONDS = 120.0
TERMINALS = {b"complete", b"agent-error", b"cancelled"}
_EVENT = re.compile(rb"^event: (\S+)", re.MULTILINE)
_MESSAGE_ID = re.compile(rb'"messageId": ?"([^"]+)"')
_CONTENT = re.compile(rb'"content": ?"([^"]*)"')

Json = dict[str, Any]


def _event(frame: bytes) -> bytes:
    found = _EVENT.search(frame)
    return found[1] if found else b"message"


def tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def agree(word: str) -> None:
    """Say it, and go on when the caller has answered."""
    tell(said=word)
    await asyncio.to_thread(sys.stdin.readline)


@attrs.define
class Talk:
    """A conversation with its poster and one reader, which is attached when it is open."""

    place: Place
    path: str
    token: str
    caller: Caller
    on_end: Callable[[str, bytes, float], None] = lambda message_id, event, at: None
    reader: Reader | None = None
    waiting: dict[str, asyncio.Future[float]] = attrs.field(factory=dict)
    attached: asyncio.Event = attrs.field(factory=asyncio.Event)

    @classmethod
    async def open(cls, place: Place, agent: str | None, *, reads: bool = True) -> Talk:
        opener = await Caller.open(place, place.key)
        opened = await opener.ask(
            "/api/v1/agents", {"thread": uuid4().hex} if agent is None else {"thread": uuid4().hex, "agentId": agent}
        )
        opener.token = opened["token"]
        talk = cls(place, f"/api/v1/agents/{opened['agentId']}", opened["token"], opener)
        if reads:
            talk.reader = Reader(talk._frame)
            await talk.reader.open(place, f"{talk.path}/events", talk.token)
            async with asyncio.timeout(WAIT_SECONDS):
                await talk.attached.wait()
        return talk

    def send(self, content: str, message_id: str) -> asyncio.Future[tuple[int, bytes]]:
        return self.caller.post(f"{self.path}/messages", {"content": content, "messageId": message_id})

    async def ask(self, content: str) -> float:
        """The time of the terminal event. RuntimeError when the message is refused."""
        message_id = uuid4().hex
        ended: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.waiting[message_id] = ended
        status, body = await self.send(content, message_id)
        if status != 200:
            raise RuntimeError(f"a message was answered with {status}: {body[:300].decode(errors='replace')}")
        async with asyncio.timeout(WAIT_SECONDS):
            return await ended

    def close(self) -> None:
        self.caller.close()
        if self.reader is not None:
            self.reader.close()

    def _frame(self, frame: bytes, arrived: float) -> None:
        event = _event(frame)
        if event == b"connected":
            self.attached.set()
        elif event in TERMINALS and (found := _MESSAGE_ID.search(frame)):
            message_id = found[1].decode()
            self.on_end(message_id, event, arrived)
            waiting = self.waiting.pop(message_id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(arrived)


async def all_of(makers: list[Callable[[], Awaitable[Any]]], at_once: int = AT_ONCE) -> list[Any]:
    """Their results in order, `at_once` of them under way."""
    bound = asyncio.Semaphore(at_once)

    async def one(make: Callable[[], Awaitable[Any]]) -> Any:
        async with bound:
            return await make()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(make)) for make in makers]
    return [task.result() for task in tasks]


@attrs.define
class Share:
    """How much of a CPU this process used between `begin` and `end`."""

    wall: float = 0.0
    cpu: float = 0.0

    async def __aenter__(self) -> Share:
        await agree("begin")
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        await agree("end")

    def found(self) -> Json:
        return {"wall": self.wall, "client_cpu": self.cpu / self.wall}


async def turns(place: Place, plan: Json) -> Json:
    """`turns` messages over `conversations`: at `rate` a second whatever comes back, or, with no rate, each
    conversation's next one when it has the end of the one before. `warm` messages go ahead of each, unmeasured; with 0
    the first message finds no worker."""
    count, number, rate = plan["turns"], plan["conversations"], plan["rate"]
    talks = await all_of([lambda: Talk.open(place, plan["agent"])] * number)

    async def warm(talk: Talk) -> None:
        for _ in range(plan["warm"]):
            await talk.ask(plan["content"])

    await all_of([lambda talk=talk: warm(talk) for talk in talks], 8)  # type: ignore[misc]
    found, late, ends = Histogram(), Histogram(), Counter[str]()
    share = Share()
    async with share:
        if rate:
            await _open_loop(talks, plan, found, late, ends)
        else:
            await asyncio.gather(*(_closed_loop(talk, plan["content"], count // number, found, ends) for talk in talks))
    for talk in talks:
        talk.close()
    return {"histogram": found.encode(), "late": late.encode(), "ends": dict(ends), **share.found()}


async def cold(place: Place, plan: Json) -> Json:
    """`turns` conversations one after another, each with one message, which finds no worker."""
    found, share = Histogram(), Share()
    async with share:
        for _ in range(plan["turns"]):
            talk = await Talk.open(place, plan["agent"])
            begun = time.perf_counter()
            found.record(await talk.ask(plan["content"]) - begun)
            talk.close()
    return {"histogram": found.encode(), **share.found()}


async def _closed_loop(talk: Talk, content: str, count: int, found: Histogram, ends: Counter[str]) -> None:
    talk.on_end = lambda message_id, event, at: ends.update([event.decode()])
    for _ in range(count):
        begun = time.perf_counter()
        found.record(await talk.ask(content) - begun)


async def _open_loop(talks: list[Talk], plan: Json, found: Histogram, late: Histogram, ends: Counter[str]) -> None:
    meant: dict[str, float] = {}
    left, done = plan["turns"], asyncio.Event()

    def end(message_id: str, event: bytes, at: float) -> None:
        nonlocal left
        if message_id in meant:
            found.record(at - meant.pop(message_id))
            ends[event.decode()] += 1
            left -= 1
            if not left:
                done.set()

    def answered(future: asyncio.Future[tuple[int, bytes]], message_id: str) -> None:
        nonlocal left
        refused = future.exception() is not None or future.result()[0] != 200
        if refused and meant.pop(message_id, None) is not None:
            ends["refused"] += 1
            left -= 1
            if not left:
                done.set()

    for talk in talks:
        talk.on_end = end
    begun = time.perf_counter() + 0.01
    for index in range(plan["turns"]):
        at = begun + index / plan["rate"]
        if (rest := at - time.perf_counter()) > 0:
            await asyncio.sleep(rest)
        message_id = uuid4().hex
        meant[message_id] = at
        late.record(max(time.perf_counter() - at, 0.0))
        sent = talks[index % len(talks)].send(plan["content"], message_id)
        sent.add_done_callback(lambda future, message_id=message_id: answered(future, message_id))  # type: ignore[misc]
    async with asyncio.timeout(WAIT_SECONDS):
        await done.wait()


async def accept(place: Place, plan: Json) -> Json:
    """`conversations` writers post for `seconds`, each to a conversation that is busy, so that nothing else is done."""
    talks = await all_of([lambda: Talk.open(place, plan["agent"], reads=False)] * plan["conversations"])
    for talk in talks:
        await talk.send("sleep 3600", uuid4().hex)
    found, share = Histogram(), Share()

    async def write(talk: Talk) -> None:
        end = time.perf_counter() + plan["seconds"]
        while (begun := time.perf_counter()) < end:
            status, body = await talk.send("hello", uuid4().hex)
            if status != 200:
                raise RuntimeError(f"a message was answered with {status}: {body[:300].decode(errors='replace')}")
            found.record(time.perf_counter() - begun)

    async with share:
        await asyncio.gather(*(write(talk) for talk in talks))
    for talk in talks:
        talk.close()
    return {"histogram": found.encode(), **share.found()}


async def stream(place: Place, plan: Json) -> Json:
    """`readers` of one reply of `pieces`, each piece made with the time on it, `delay_ms` apart; `slow` more readers
    rest after each few kilobytes."""
    talk = await Talk.open(place, plan["agent"])
    found, share, ends, total = Histogram(), Share(), Counter[str](), plan["readers"] + plan["slow"]
    here, finished, slow_finished = asyncio.Event(), asyncio.Event(), asyncio.Event()
    if not plan["slow"]:
        slow_finished.set()
    attached = stamps = frames = 0

    def on_frame(frame: bytes, arrived: float, kind: str) -> None:
        nonlocal attached, stamps, frames
        event = _event(frame)
        if event == b"connected":
            attached += 1
            if attached == total:
                here.set()
        elif event in TERMINALS:
            ends[kind] += 1
            if ends["fast"] == plan["readers"]:
                finished.set()
            if ends["slow"] == plan["slow"]:
                slow_finished.set()
        elif kind == "fast" and event == b"output" and (content := _CONTENT.search(frame)):
            frames += 1
            for stamp in content[1].split():
                stamps += 1
                found.record(arrived - int(stamp) / 1e9)

    readers = [Reader(lambda frame, at: on_frame(frame, at, "fast")) for _ in range(plan["readers"])]
    readers += [Reader(lambda frame, at: on_frame(frame, at, "slow"), 0.05) for _ in range(plan["slow"])]
    path = f"{talk.path}/events"
    await all_of([lambda reader=reader: reader.open(place, path, talk.token) for reader in readers])  # type: ignore[misc]
    async with asyncio.timeout(WAIT_SECONDS):
        await here.wait()
    async with share:
        await talk.send(f"stamp {plan['pieces']} {plan['delay_ms']}", uuid4().hex)
        async with asyncio.timeout(WAIT_SECONDS):
            await finished.wait()
    async with asyncio.timeout(WAIT_SECONDS):  # a slow reader loses pieces, never the end
        await slow_finished.wait()
    for reader in readers:
        reader.close()
    talk.close()
    received = sum(reader.bytes for reader in readers)
    counts = {"stamps": stamps, "frames": frames, "bytes": received}
    return {"histogram": found.encode(), **counts, **share.found()}


async def resume(place: Place, plan: Json) -> Json:
    """All of `readers` are cut at once and come back with the same last id, `rounds` times; each wants the end of the
    last reply again, behind that id."""
    number = max(plan["readers"] // plan["readers_each"], 1)
    talks = await all_of([lambda: Talk.open(place, plan["agent"])] * number)
    await all_of([lambda talk=talk: talk.ask("hello") for talk in talks], 8)  # type: ignore[misc]
    found, share = Histogram(), Share()

    async def come_back(talk: Talk, begun: float) -> None:
        caught_up: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def on_frame(frame: bytes, arrived: float) -> None:
            if _event(frame) in TERMINALS and not caught_up.done():
                caught_up.set_result(arrived)

        reader = Reader(on_frame)
        await reader.open(place, f"{talk.path}/events", talk.token, "last-event-id: 0\r\n")
        readers.append(reader)
        async with asyncio.timeout(WAIT_SECONDS):
            found.record(await caught_up - begun)

    readers: list[Reader] = []
    async with share:
        for _ in range(plan["rounds"]):
            for reader in readers:
                reader.close()
            readers.clear()
            begun = time.perf_counter()
            await asyncio.gather(*(come_back(talks[n % number], begun) for n in range(plan["readers"])))
    for talk in talks:
        talk.close()
    return {"histogram": found.encode(), **share.found()}


async def hold(place: Place, plan: Json) -> Json:
    """`conversations` opened, with a reader each (`reads`), and one message each (`content`), and kept so until the
    caller has looked."""
    share = Share()
    await asyncio.sleep(0)
    async with share:
        talks = await all_of([lambda: Talk.open(place, plan["agent"], reads=plan["reads"])] * plan["conversations"])
        if plan["content"]:
            await all_of([lambda talk=talk: talk.ask(plan["content"]) for talk in talks], 8)  # type: ignore[misc]
        if not plan["reads"]:
            for talk in talks:
                talk.close()
        await asyncio.sleep(0.5)  # the server closes what was left
    for talk in talks:
        talk.close()
    return share.found()


PLANS = {"turns": turns, "cold": cold, "accept": accept, "stream": stream, "resume": resume, "hold": hold}


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    place = Place(plan["url"], plan["key"])
    tell(found=asyncio.run(PLANS[plan["plan"]](place, plan)))


if __name__ == "__main__":
    main()
