"""Load on a running `lobu run`: clients that post, readers that follow and drop, and a hand that kills workers.

What is counted is what clients were told; `audit` has the database's view of the same.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import attrs
import trio

from lobu_actors.contract.ids import new_id
from tests.system.lobu_process import LobuRun, until
from tests.system.sse_client import Broken, Client, Conversation, Transcript

RETRY_SECONDS = 0.05
UNBOUNDED_SECONDS = 3600.0
REFUSED_FOR_NOW = (429, 503)


@attrs.define(slots=False)
class Load:
    """`turns` in all, from `clients` that each wait for one reply after another, over `conversations`.

    `drop_every_seconds`: how long, on average, a reader stays before it breaks off and resumes. `reads_at`: where
    readers are, when that is another host.
    """

    run: LobuRun
    turns: int
    conversations: int
    clients: int
    drop_every_seconds: float = 2.0
    seed: int = 0
    users: str = "user"  # how their names begin; of two loads at once, each its own
    reads_at: LobuRun | None = None
    others: Sequence[LobuRun] = ()  # further hosts on the same database; clients go to any of them

    def __attrs_post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.accepted: dict[str, Conversation] = {}
        self.transcripts: dict[str, Transcript] = {}
        self.retried_posts = 0
        self.kills = 0
        self._open: list[Conversation] = []
        self._left = self.turns

    async def go(self) -> None:
        """Until every accepted turn has its terminal event at its reader."""
        opener = Client(self.run.url, self.run.admin_key)
        for number in range(self.conversations):
            self._open.append(await opener.open(userId=f"{self.users}{number}"))
        async with trio.open_nursery() as readers:
            for conversation in self._open:
                self.transcripts[conversation.key] = Transcript()
                readers.start_soon(self._read, conversation)
            async with trio.open_nursery() as clients:
                for _ in range(self.clients):
                    clients.start_soon(self._client)
            readers.cancel_scope.cancel()

    def finish(self) -> None:
        """What is under way is the last."""
        self._left = 0

    @property
    def hosts(self) -> Sequence[LobuRun]:
        return (self.run, *self.others)

    def _some_host(self) -> LobuRun:
        return self.random.choice(self.hosts) if self.others else self.run

    # --- what came of it

    def terminals(self) -> dict[str, str]:
        """Of each accepted message: `complete`, `cancelled` or the error's code."""
        return {
            name: frame.data.get("errorCode") or frame.event
            for transcript in self.transcripts.values()
            for name, frame in transcript.terminals.items()
        }

    def counts(self) -> Counter[str]:
        return Counter(self.terminals().values())

    def missing(self) -> set[str]:
        return self.accepted.keys() - self.terminals().keys()

    def strange(self) -> set[str]:
        """Messages that ended and that nobody had accepted."""
        return self.terminals().keys() - self.accepted.keys()

    def faults(self) -> list[str]:
        return [fault for transcript in self.transcripts.values() for fault in transcript.faults]

    async def until_ended(self, number: int) -> None:
        """Until so many turns have ended; whoever waits for the whole load bounds it."""
        await until(lambda: len(self.terminals()) >= number, f"{number} turns end", UNBOUNDED_SECONDS)

    # --- clients

    async def _client(self) -> None:
        clients = {run: Client(run.url, run.admin_key, keep=True) for run in self.hosts}
        try:
            while self._left > 0:
                self._left -= 1
                conversation = self.random.choice(self._open)
                message_id = new_id()
                await self._post(conversation, message_id, clients)
                self.accepted[message_id] = conversation
                transcript = self.transcripts[conversation.key]
                while message_id not in transcript.terminals:
                    await transcript.changed()
        finally:
            for client in clients.values():
                await client.close()

    async def _post(self, conversation: Conversation, message_id: str, clients: dict[LobuRun, Client]) -> None:
        """Again with the same id until the answer came, at whichever host: what a careful client does."""
        content = self._content()
        while True:
            with suppress(Broken):
                answer = await conversation.through(clients[self._some_host()]).post(content, message_id)
                if answer.status == 200:
                    return
                assert answer.status in REFUSED_FOR_NOW, answer
            self.retried_posts += 1
            await trio.sleep(RETRY_SECONDS)

    def _content(self) -> str:
        kind = self.random.random()
        if kind < 0.5:
            return f"say {self.random.getrandbits(64):x} again"
        if kind < 0.75:
            return f"stream {self.random.randint(5, 60)} {self.random.randint(0, 4)}"
        if kind < 0.95:
            return f"sleep {self.random.uniform(0, 0.2):.3f}"
        return "fail MY_CODE as asked"

    # --- readers

    async def _read(self, conversation: Conversation) -> None:
        transcript = self.transcripts[conversation.key]
        while True:
            run = self.reads_at or self._some_host()
            with trio.move_on_after(self.random.expovariate(1 / self.drop_every_seconds)):
                await transcript.follow(conversation.through(Client(run.url, run.admin_key)), lambda: False)

    # --- the hand

    async def kill_workers(
        self, every_seconds: float, turns_between: int = 0, *, on_kill: Callable[[int], None] = lambda pid: None
    ) -> None:
        """SIGKILL to a random worker at each beat, for ever; on a slow machine not before so many turns have ended."""
        while True:
            ended = len(self.terminals())
            await trio.sleep(every_seconds)
            await self.until_ended(ended + turns_between)
            workers = [pid for run in self.hosts for pid in run.worker_pids()]
            if workers:
                pid = self.random.choice(workers)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1
                    on_kill(pid)
