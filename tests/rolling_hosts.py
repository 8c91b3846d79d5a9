"""Several hosts on one database are restarted one after the other, round after round, under clients that stream.

`python -m tests.rolling_hosts`, or `make rolling-hosts`. Each restart is an ordered one: SIGTERM, or `lobu drain HOST
--wait`, then a new start. Clients do as a browser behind a load balancer does: they go to a host that says it is ready,
follow a reply, wait as long as `drain` says when the stream ends, and resume at another host. Exit code 1 when a turn
failed, a client holds another text than the worker wrote, a host refused a request that was not being restarted, a
stream was cut off without a word, resuming took a second or more at p99, or `lobu audit` finds something.

For edges and supervisor under systemd on one host see tests/systemd/rolling.py.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs
import trio

from tests.system.audit import broken_promises
from tests.system.cluster import database, hosts, lobu
from tests.system.lobu_process import LobuRun, until
from tests.system.sse_client import Broken, Client, Conversation, Transcript
from tests.verdict import verdict

CONFIG = """
[limits]
drain_grace_seconds = 1
[workers.echo]
command = ["python", "-m", "lobu_actors.agents.echo"]
zygote = true
[[agents]]
id = "echo"
worker = "echo"
default = true
"""
WORDS, MILLISECONDS = 60, 100  # a reply of six seconds
LONG_TEXT = "".join(f"word{number} " for number in range(WORDS))
TURN_SECONDS = 120.0
READY_SECONDS = 60.0
LOOK_SECONDS = 0.05  # between two looks at /health/ready, which a load balancer takes
RETRY_SECONDS = 1.0  # of an EventSource that was cut off
RESUME_P99_SECONDS = 1.0
REFUSED = (429, 502, 503, 504)
T = TypeVar("T")


@attrs.frozen
class Options:
    rounds: int = 30
    clients: int = 60
    hosts: int = 3
    seed: int = 0


@attrs.define
class Report:
    rounds: int = 0
    restarts: int = 0
    ends: Counter[str] = attrs.field(factory=Counter)
    refused: int = 0  # by hosts that were not being restarted
    moved_on: int = 0  # requests that a host being restarted did not take, and another one did
    cut: int = 0
    resumes: list[float] = attrs.field(factory=list)  # seconds, from a stream's end to the next one's first byte
    pauses: list[float] = attrs.field(factory=list)  # the same, to the next byte of the reply that was running
    faults: list[str] = attrs.field(factory=list)
    wall_seconds: float = 0.0


class Host:
    """One of them as a load balancer sees it."""

    def __init__(self, run: LobuRun) -> None:
        self.run = run
        self.client = Client(run.url, run.admin_key)
        self.ready = True
        self.restarting = False

    async def look(self) -> None:
        while True:
            await trio.sleep(LOOK_SECONDS)
            self.ready = await self._answers()

    async def _answers(self) -> bool:
        try:
            return (await self.client.call("GET", "/health/ready")).status == 200
        except (Broken, trio.TooSlowError):
            return False

    async def restart(self, by_command: bool) -> None:
        self.restarting = True
        if by_command:
            host_id = (self.run.folder / ".lobu" / "host_id").read_text()
            drained = await lobu(self.run, "drain", host_id, "--wait")
            assert drained.returncode == 0, drained
        else:
            self.run.process.terminate()  # type: ignore[union-attr]
        assert await self.run.wait_exit() == 0, self.run.log()
        assert self.run.processes() == []
        await self.run.start()
        await until(lambda: self.ready, "it is ready again", READY_SECONDS)
        self.restarting = False


class Campaign:
    def __init__(self, runs: list[LobuRun], options: Options) -> None:
        self.hosts = [Host(run) for run in runs]
        self.options = options
        self.report = Report()
        self._random = random.Random(options.seed)
        self._over = False

    async def go(self) -> None:
        async with trio.open_nursery() as nursery:
            for host in self.hosts:
                nursery.start_soon(host.look)
            async with trio.open_nursery() as clients:
                for number in range(self.options.clients):
                    clients.start_soon(self._talk, number)
                await self._roll()
                self._over = True
            nursery.cancel_scope.cancel()

    async def _roll(self) -> None:
        while self.report.rounds < self.options.rounds:
            for host in self.hosts:
                await host.restart(by_command=self.report.restarts % 2 == 1)
                self.report.restarts += 1
            self.report.rounds += 1

    async def _talk(self, number: int) -> None:
        """One turn after another in a conversation of its own, until the last round is done."""
        # Not all at once, or all might be between two turns when a host drains.
        await trio.sleep(number / self.options.clients * WORDS * MILLISECONDS / 1000)
        conversation = await self._tried(lambda host: _open(host.client, f"u{number}"))
        reader = Reader(self, conversation)
        while not self._over:
            message_id = f"m{self._random.getrandbits(64):x}"
            content = f"stream {WORDS} {MILLISECONDS}"
            await self._tried(lambda host: _send(conversation.through(host.client), content, message_id))  # noqa: B023
            with trio.move_on_after(TURN_SECONDS) as scope:
                await reader.follow(message_id)
            if scope.cancelled_caught:
                self.report.faults.append(f"{message_id}: no end within {TURN_SECONDS:g} s")
                return
            self._judge(reader.transcript, message_id)
        self.report.faults += reader.transcript.faults

    def _judge(self, transcript: Transcript, message_id: str) -> None:
        frame = transcript.terminals[message_id]
        self.report.ends[str(frame.data.get("errorCode") or frame.event)] += 1
        if frame.event != "complete":
            self.report.faults.append(f"{message_id}: {frame.event} {frame.data.get('errorCode', '')}")
        elif frame.data["finalText"] != LONG_TEXT:
            self.report.faults.append(f"{message_id}: the client has another text than the worker wrote")

    async def pick(self, but: Host | None = None) -> Host:
        """A ready host, another one than `but` if there is one."""
        await until(lambda: any(host.ready for host in self.hosts), "a host is ready", READY_SECONDS)
        ready = [host for host in self.hosts if host.ready]
        return self._random.choice([host for host in ready if host is not but] or ready)

    async def _tried(self, call: Callable[[Host], Awaitable[T]]) -> T:
        """What one host does not take, another one is asked."""
        host = None
        while True:
            host = await self.pick(but=host)
            restarting = host.restarting
            try:
                return await call(host)
            except Broken as error:
                self.turned_away(host, restarting, str(error))

    def turned_away(self, host: Host, restarting: bool, why: str) -> None:
        if restarting or host.restarting:
            self.report.moved_on += 1
        else:
            self.report.refused += 1
            self.report.faults.append(f"a ready host refused a request: {why}")


class Reader:
    """Follows one conversation as an EventSource does."""

    def __init__(self, campaign: Campaign, conversation: Conversation) -> None:
        self.transcript = Transcript()
        self._campaign = campaign
        self._conversation = conversation
        self._host: Host | None = None
        self._wait_seconds = 0.0
        self._lost_at: float | None = None
        self._streaming = False  # the host answered the request for the stream at hand

    async def follow(self, message_id: str) -> None:
        """To its terminal event, over as many streams as it takes."""
        self._lost_at = None
        while message_id not in self.transcript.terminals:
            await trio.sleep(self._wait_seconds)
            host = self._host = await self._campaign.pick(but=self._host)
            restarting = host.restarting
            self._wait_seconds = 0.0
            try:
                await self._read(host, message_id)
            except Broken as error:
                if self._streaming:
                    self._cut(str(error))
                else:
                    self._campaign.turned_away(host, restarting, str(error))

    async def _read(self, host: Host, message_id: str) -> None:
        self._streaming, heard, lost_at = False, False, self._lost_at
        paused = lost_at is not None
        async with self._conversation.through(host.client).events(last_event_id=self.transcript.last_id) as stream:
            if stream.status != 200:
                raise Broken(f"status {stream.status}")
            self._streaming = True
            self.transcript.connections += 1
            while message_id not in self.transcript.terminals and (frame := await stream.next()) is not None:
                now = time.monotonic()
                if frame.event == "drain":
                    self._wait_seconds = frame.data["reconnectInMs"] / 1000
                    continue
                if not heard and lost_at is not None:
                    self._campaign.report.resumes.append(now - lost_at)
                heard = True
                if paused and lost_at is not None and frame.data.get("messageId") == message_id:
                    self._campaign.report.pauses.append(now - lost_at)
                    paused = False
                self.transcript.take(frame)
        if heard or self._lost_at is None:
            self._lost_at = time.monotonic()

    def _cut(self, why: str) -> None:
        self._campaign.report.cut += 1
        self._campaign.report.faults.append(f"a stream was cut off without `drain`: {why}")
        self._lost_at = time.monotonic()
        self._wait_seconds = RETRY_SECONDS


async def _open(client: Client, user: str) -> Conversation:
    answer = await client.call("POST", "/api/v1/agents", {"userId": user, "forceNew": True})
    if answer.status in REFUSED:
        raise Broken(f"status {answer.status}")
    assert answer.status == 201, answer
    return Conversation(client, answer.body["agentId"])


async def _send(conversation: Conversation, content: str, message_id: str) -> None:
    answer = await conversation.post(content, message_id)
    if answer.status in REFUSED:
        raise Broken(f"status {answer.status}")
    assert answer.status == 200, answer


async def roll(options: Options, progress: Callable[[str], None] = lambda line: None) -> Report:
    async with database() as server, hosts(options.hosts, CONFIG, server.url) as runs:
        campaign, began = Campaign(runs, options), time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_show, campaign, progress)
            await campaign.go()
            nursery.cancel_scope.cancel()
        report = campaign.report
        report.wall_seconds = round(time.monotonic() - began, 1)
        if (p99 := share(report.resumes, 0.99)) >= RESUME_P99_SECONDS:
            report.faults.append(f"resuming took {p99:.2f} s at p99")
        report.faults += broken_promises(server.url)
        return report


async def _show(campaign: Campaign, progress: Callable[[str], None]) -> None:
    while True:
        await trio.sleep(5)
        report = campaign.report
        progress(
            f"round {report.rounds} of {campaign.options.rounds}, {report.restarts} restarts, "
            f"{report.ends.total()} turns, {len(report.resumes)} resumes, {len(report.faults)} faults"
        )


def share(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


def _shares(values: list[float]) -> str:
    parts = ", ".join(f"p{part * 100:g} {share(values, part):.2f} s" for part in (0.5, 0.99, 1.0))
    return f"{len(values)} times, {parts}"


def lines(report: Report) -> list[str]:
    return [
        f"restarts      {report.restarts} in {report.rounds} rounds and {report.wall_seconds:.0f} s",
        f"turns         {dict(report.ends)}",
        f"requests      {report.refused} refused by a ready host, {report.moved_on} not taken by one being restarted",
        f"streams       {report.cut} cut off without `drain`",
        f"resume        {_shares(report.resumes)}: from a stream's end to the next one's first byte",
        f"reply goes on {_shares(report.pauses)}: to its next byte there; handed over to another host, begun again",
        *verdict(report.faults),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rolling_hosts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=Options().rounds)
    parser.add_argument("--clients", type=int, default=Options().clients)
    parser.add_argument("--hosts", type=int, default=Options().hosts)
    parser.add_argument("--seed", type=int, default=Options().seed)
    words = parser.parse_args()
    options = Options(words.rounds, words.clients, words.hosts, words.seed)
    report = trio.run(roll, options, lambda line: print(line, file=sys.stderr, flush=True))
    print("\n".join(lines(report)))
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
