"""One actor below a supervisor: its reference, its restart and its ordered stop."""

import pytest
import trio
import trio.testing

from lobu_actors.runtime.actor import Actor, ActorRef
from lobu_actors.runtime.actor_child import actor_child
from lobu_actors.runtime.errors import ActorStopped, ChildStartFailed
from lobu_actors.runtime.intensity import Backoff
from lobu_actors.runtime.supervisor import ChildEvent, EventKind, Supervisor


class Counter(Actor[int]):
    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.sum = 0

    async def handle(self, message: int) -> object:
        if message < 0:
            raise ValueError(message)
        await trio.sleep(message)
        self.sum += message
        return self.sum

    async def stopped(self) -> None:
        self.log.append(f"stopped at {self.sum}")


async def test_it_is_asked_restarted_with_a_new_state_and_stopped_in_order(autojump_clock):
    log: list[str] = []
    events: list[ChildEvent] = []
    spec = actor_child("counter", lambda: Counter(log), mailbox_capacity=5)
    supervisor = Supervisor("s", [spec], backoff=Backoff(0.0, 1.0, 0.0), on_event=events.append)

    def counter() -> ActorRef[int]:
        ref = supervisor.value("counter")
        assert isinstance(ref, ActorRef)
        return ref

    async with trio.open_nursery() as nursery:
        await nursery.start(supervisor.serve)
        old = counter()
        assert [await old.ask(1, 9.0), await old.ask(2, 9.0)] == [1, 3]
        with pytest.raises(ValueError, match="-1"):
            await old.ask(-1, 9.0)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ActorStopped):
            old.tell(1)
        counter().tell(2)
        counter().tell(3)
        await trio.testing.wait_all_tasks_blocked()
        supervisor.stop()
    assert log == ["stopped at 3", "stopped at 2"]
    assert [type(event.error) for event in events if event.kind is EventKind.EXITED] == [ValueError, type(None)]


async def test_a_factory_that_fails_fails_the_start():
    def broken() -> Counter:
        raise OSError("no")

    with pytest.raises(ChildStartFailed) as caught:
        await Supervisor("s", [actor_child("a", broken, mailbox_capacity=1)]).serve()
    assert isinstance(caught.value.__cause__, OSError)
