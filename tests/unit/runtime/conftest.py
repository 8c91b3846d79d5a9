"""A family of obedient children and a way to run a supervisor, for its tests, and a world for the registry's."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
import trio.testing

from lobu_actors.runtime.child_spec import ChildContext, ChildSpec
from lobu_actors.runtime.supervisor import Supervisor
from tests.unit.runtime.registry_world import World
from tests.unit.runtime.serving import run_while


class Family:
    """Children that write into one log and end when told to."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self._endings: dict[str, Callable[[BaseException | None], None]] = {}

    def child(self, id: str, **spec) -> ChildSpec:
        return ChildSpec(id, self._run, **spec)

    async def _run(self, context: ChildContext) -> None:
        ended = trio.Event()
        outcome: list[BaseException] = []

        def end(error: BaseException | None) -> None:
            if error is not None:
                outcome.append(error)
            ended.set()

        self._endings[context.id] = end
        self.log.append(f"+{context.id}")
        context.started(f"value of {context.id}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey, context.stopping, ended)
            await ended.wait()
            nursery.cancel_scope.cancel()
        self.log.append(f"-{context.id}")
        if outcome:
            raise outcome[0]

    async def _obey(self, stopping: trio.Event, ended: trio.Event) -> None:
        await stopping.wait()
        ended.set()

    async def end(self, id: str, error: BaseException | None = None) -> None:
        self._endings[id](error)
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
def new_family() -> type[Family]:
    return Family


@pytest.fixture
def serving() -> Callable[[Supervisor], AbstractAsyncContextManager[Supervisor]]:
    return run_while


@pytest.fixture
def world() -> World:
    return World()
