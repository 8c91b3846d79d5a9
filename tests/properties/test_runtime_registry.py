"""The registry under random interleavings of messages, passivation, crashes and slow starts and stops.

The clock jumps and all times are multiples of one step, so that messages often come in the very step in which an actor
passivates, stops or starts.
"""

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from lobu_actors.runtime.actor import Actor
from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.runtime.errors import MailboxFull
from lobu_actors.runtime.intensity import Intensity
from lobu_actors.runtime.mailbox import Overflow
from lobu_actors.runtime.registry import Registry

IDLE = 3
KEYS = ("a", "b")

pauses = st.integers(0, 5)
senders = st.lists(
    st.lists(st.tuples(pauses, st.sampled_from(KEYS), st.sampled_from(["tell", "ask", "put"])), max_size=8),
    min_size=1,
    max_size=4,
)
lives = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=6)


class Model:
    """What the actors did: incarnations alive for each key, and messages that `handle` was given."""

    def __init__(self, lives: list[tuple[int, int, int]], crashing: set[int]) -> None:
        self.lives = lives
        self.crashing = crashing
        self.alive = dict.fromkeys(KEYS, 0)
        self.handled: list[tuple[str, int, int]] = []
        self.incarnations = 0


class Probe(Actor[tuple[int, int]]):
    def __init__(self, model: Model, key: str) -> None:
        self.model, self.key = model, key
        self.start, self.work, self.stop = model.lives[model.incarnations % len(model.lives)]
        model.incarnations += 1
        model.alive[key] += 1
        assert model.alive[key] == 1, "two incarnations of one key"

    async def started(self) -> None:
        await trio.sleep(self.start)

    async def handle(self, message: tuple[int, int]) -> object:
        self.model.handled.append((self.key, *message))
        number = len(self.model.handled)
        await trio.sleep(self.work)
        if number in self.model.crashing:
            raise ValueError(message)
        return message

    async def stopped(self) -> None:
        await trio.sleep(self.stop)
        self.model.alive[self.key] -= 1


async def _send(registry, sender, steps, accepted) -> None:
    for n, (pause, key, how) in enumerate(steps):
        await trio.sleep(pause)
        message = (sender, n)
        try:
            if how == "tell":
                registry.tell(key, message)
            elif how == "put":
                await registry.put(key, message)
            else:
                assert await registry.ask(key, message, 500.0) == message
        except MailboxFull:
            continue
        except ValueError:
            pass  # it crashed, so it was handled
        accepted.append((key, *message))


@settings(max_examples=200, deadline=None)
@given(senders, lives, st.sets(st.integers(1, 20), max_size=4), st.integers(1, 3), st.sampled_from(list(Overflow)[::2]))
def test_every_accepted_message_is_handled_once_in_order_by_one_incarnation_at_a_time(
    senders, lives, crashing, capacity, overflow
):
    async def check() -> None:
        model = Model(lives, crashing)
        crashes: list[str] = []
        accepted: list[tuple[str, int, int]] = []
        registry: Registry[str, tuple[int, int]] = Registry(
            lambda key: Probe(model, key),
            idle_seconds=IDLE,
            mailbox_capacity=capacity,
            overflow=overflow,
            max_actors=len(KEYS),
            intensity=Intensity(1000, 1000.0),
            on_crash=lambda key, error: crashes.append(key),
        )
        context = ChildContext("registry")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.run, context)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as sending:
                for number, steps in enumerate(senders):
                    sending.start_soon(_send, registry, number, steps, accepted)
            for _ in range(300):
                if registry.active:
                    await trio.sleep(IDLE)
            assert registry.active == 0, "everything is idle, so everything is passivated"
            context.stopping.set()
        assert sorted(model.handled) == sorted(accepted)
        assert len(crashes) == len([n for n in crashing if n <= len(model.handled)])
        assert set(model.alive.values()) == {0}
        for key in KEYS:
            for number in range(len(senders)):
                order = [n for k, sender, n in model.handled if (k, sender) == (key, number)]
                assert order == sorted(order)

    trio.run(check, clock=trio.testing.MockClock(autojump_threshold=0))
