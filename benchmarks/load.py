"""The load generator: a process of its own, so that what it costs is not taken for the server's.

`python -m benchmarks.load` reads one plan as a line of JSON, says `begin` and `end` around what is measured (each waits
for a line in return, so that the caller can look at the server's processes), and prints what it found. Latency counts
from the moment at which a message was meant to be sent: a server that stands still does not stop the count
(coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from uuid import uuid4

from benchmarks.histogram import Histogram
from benchmarks.readers import stream
from benchmarks.talk import AT_ONCE, TERMINALS, WAIT_SECONDS, Json, Share, Talk, agree, all_of, event_of, tell
from benchmarks.wire import Place, Reader


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


async def busy(place: Place, plan: Json) -> Json:
    """For `seconds`, each of `conversations` sends its next message when it has the end of the one before. With
    `phase_seconds`, `phases` says how many ended in each."""
    talks = await all_of([lambda: Talk.open(place, plan["agent"])] * plan["conversations"])
    await all_of([lambda talk=talk: talk.ask(plan["content"]) for talk in talks], 8)  # type: ignore[misc]
    found, ends, share = Histogram(), Counter[str](), Share()
    phases, phase_seconds = Counter[int](), float(plan.get("phase_seconds") or plan["seconds"])

    async def go_on(talk: Talk) -> None:
        talk.on_end = lambda message_id, event, at: ends.update([event.decode()])
        start = share.wall
        while (begun := time.perf_counter()) < start + plan["seconds"]:
            ended = await talk.ask(plan["content"])
            found.record(ended - begun)
            phases[int((ended - start) / phase_seconds)] += 1

    async with share:
        await asyncio.gather(*(go_on(talk) for talk in talks))
    for talk in talks:
        talk.close()
    counts = [phases[number] for number in range(round(plan["seconds"] / phase_seconds))]
    return {"histogram": found.encode(), "ends": dict(ends), "phases": counts, **share.found()}


async def apart(place: Place, plan: Json) -> Json:
    """One conversation, begun at `place` and read there (`near`) and at `other` (`far`) all the time. `turns` messages
    are posted at each of `posted_at` in turn, then `streams` replies of `pieces`, `delay_ms` apart.

    Gives how long each turn took where it was posted, and how much later the far reader had an event than the near one;
    where it had it earlier, that counts as the least that a histogram has."""
    near = await Talk.open(place, plan["agent"])
    talks = {"near": near, "far": await near.at(Place(plan["other"], place.key))}
    taken = {name: Histogram() for name in ("near", "far", "end_later", "piece_later")}
    stamps: dict[str, dict[bytes, float]] = {name: {} for name in talks}

    async def turn(name: str, content: str) -> tuple[float, float]:
        """Seconds at the poster, and how much later than at the near reader the far one had the end."""
        message_id, begun = uuid4().hex, time.perf_counter()
        ends = {at: talk.end_of(message_id) for at, talk in talks.items()}
        status, body = await talks[name].send(content, message_id)
        if status != 200:
            raise RuntimeError(f"a message was answered with {status}: {body[:300].decode(errors='replace')}")
        async with asyncio.timeout(WAIT_SECONDS):
            arrived = {at: await end for at, end in ends.items()}
        return arrived[name] - begun, arrived["far"] - arrived["near"]

    for _ in range(plan["warm"]):
        for name in talks:
            await turn(name, plan["content"])
    share = Share()
    async with share:
        for _ in range(plan["turns"]):
            for name in plan["posted_at"]:
                seconds, later = await turn(name, plan["content"])
                taken[name].record(seconds)
                taken["end_later"].record(later)
        for name, talk in talks.items():
            talk.on_stamp = stamps[name].__setitem__
        for _ in range(plan["streams"]):
            for name in plan["posted_at"]:
                await turn(name, f"stamp {plan['pieces']} {plan['delay_ms']}")
    for stamp in stamps["near"].keys() & stamps["far"].keys():
        taken["piece_later"].record(stamps["far"][stamp] - stamps["near"][stamp])
    for talk in talks.values():
        talk.close()
    conversation = near.path.rpartition("/")[2]
    return {"conversation": conversation, **{name: one.encode() for name, one in taken.items()}, **share.found()}


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


async def running(place: Place, plan: Json) -> Json:
    """A reply each of `conversations` that does not end, a piece each `delay_ms`, while the caller, told that all have
    begun, does something else."""
    talks = await all_of([lambda: Talk.open(place, plan["agent"])] * plan["conversations"])
    pieces = 0

    def count(stamp: bytes, arrived: float) -> None:
        nonlocal pieces
        pieces += 1

    async def begin(talk: Talk) -> None:
        first = asyncio.Event()
        talk.on_stamp = lambda stamp, arrived: first.set()
        await talk.send(f"stamp 1000000000 {plan['delay_ms']}", uuid4().hex)
        async with asyncio.timeout(WAIT_SECONDS):
            await first.wait()
        talk.on_stamp = count

    await all_of([lambda talk=talk: begin(talk) for talk in talks], 8)  # type: ignore[misc]
    share = Share()
    async with share:
        pieces = 0
        await agree("running")
    found = {"pieces": pieces, **share.found()}
    for talk in talks:
        talk.close()
    return found


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
            if event_of(frame) in TERMINALS and not caught_up.done():
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
    caller has looked; without a reader, each one's connection is closed before the next ones come. `rest_seconds`: what
    the server is given before, to close what was left and to go to sleep. Without `posters` the connections that
    messages would be posted on are closed."""
    share = Share()
    await asyncio.sleep(0)

    async def one() -> Talk:
        talk = await Talk.open(place, plan["agent"], reads=plan["reads"] or bool(plan["content"]))
        if plan["content"]:
            await talk.ask(plan["content"])
        if not plan["reads"]:
            talk.close()
        elif not plan.get("posters", True):
            talk.caller.close()
        return talk

    async with share:
        talks = await all_of([one] * plan["conversations"], 8 if plan["content"] else AT_ONCE)
        await asyncio.sleep(plan.get("rest_seconds", 0.5))
    for talk in talks:
        talk.close()
    return share.found()


PLANS = {
    "turns": turns,
    "busy": busy,
    "apart": apart,
    "cold": cold,
    "accept": accept,
    "stream": stream,
    "running": running,
    "resume": resume,
    "hold": hold,
}


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    place = Place(plan["url"], plan["key"])
    tell(found=asyncio.run(PLANS[plan["plan"]](place, plan)))


if __name__ == "__main__":
    main()
