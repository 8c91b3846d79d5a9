"""The store in memory is the store in Postgres: the same operations give the same answers and leave the same state.

LOBU_TWIN_EXAMPLES sets the number of generated lists; the default is for every run, thousands are for a soak.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lobu_actors.store.memory import MemoryStore
from lobu_actors.store.postgres import PostgresStore
from lobu_actors.store.protocol import Store
from lobu_actors.store.rollout_protocol import RolloutStore
from lobu_actors.store.singleton_protocol import SingletonStore
from tests.properties.twin_calls import ALL_EXAMPLES, Difference
from tests.properties.twin_stores import OPERATIONS, Operation, Twins

EXAMPLES = int(os.environ.get("LOBU_TWIN_EXAMPLES", "100"))
LONGEST = 40

# What a conversation consists of comes more often than what happens now and then.
_OFTEN = ("accept", "start", "finish", "file", "again")
_NAMES = (*OPERATIONS, *_OFTEN, *_OFTEN)
_SMALL = st.sampled_from((0, 0, 0, 1, 2, 3))

operations = st.lists(st.tuples(st.sampled_from(_NAMES), _SMALL, _SMALL, _SMALL), max_size=LONGEST)
_numbers = itertools.count(1)

METHODS = sorted(
    name for name, method in inspect.getmembers(Store, inspect.iscoroutinefunction) if not name.startswith("_")
)
_OF_SINGLETONS = [
    name for name, method in inspect.getmembers(SingletonStore, inspect.iscoroutinefunction) if not name.startswith("_")
]
_OF_ROLLOUTS = [
    name for name, method in inspect.getmembers(RolloutStore, inspect.iscoroutinefunction) if not name.startswith("_")
]
READS = {
    "find_agent", "find_answered_question", "find_answers", "find_api_key", "find_conversation", "find_file",
    "find_held", "find_input_files",
    "find_loads", "find_overdue", "find_owed", "find_owner", "find_rivals", "find_text_start",
    "find_trimmable", "find_turn", "find_owed_turn", "is_run_live", "list_agents", "list_api_keys",
    "list_conversations", "list_conversations_of_user", "list_ended_turns", "list_files", "list_hosts",
    "list_newest_hosts", "list_owed", "list_owed_turns", "load_owed", "read_carried_summary", "read_chunk",
    "read_events", "read_posted_snapshot", "read_snapshot", "read_turn_history", "totals",
}  # fmt: skip
EXEMPT = {
    "mend_markers": "no call makes what it mends; its own tests plant it. Here it meets what is sound",
    "now": "two stores have two clocks",
    "count_owed": "counts what all examples owe; its conformance tests compare the two",
    "find_peers": "gives the hosts of all examples; its conformance tests compare the two",
    "notify": "it leaves nothing; its conformance tests hear it",
    "declare_dead_if_gone": "who listens is known to each store alone; its conformance tests compare the two",
    **dict.fromkeys(_OF_ROLLOUTS, "there is one turn for all hosts; its conformance tests compare the two"),
    **dict.fromkeys(_OF_SINGLETONS, "a singleton's; its conformance tests compare the two"),
}

# Uses every method, each so that its effect can be seen afterwards.
_LOOK: Operation = ("compare", 0, 0, 0)
LIFE: list[Operation] = [
    *[("agents", 2, 0, 0), ("default_agents", 0, 0, 0), ("key", 0, 0, 0), ("key", 0, 0, 2), ("revoke", 0, 0, 0)],
    *[("ticket", 0, 0, 0), ("name_provider", 0, 1, 0), ("renew", 0, 1, 0), _LOOK],
    *[("file", 0, 3, 0), ("file", 0, 0, 0), ("discard_files", 0, 0, 0), ("expire", 0, 0, 0), ("file", 0, 0, 0), _LOOK],
    *[("accept", 0, 0, 1), ("start", 0, 0, 0), ("append", 0, 0, 0), ("extend", 0, 0, 0), _LOOK],
    *[("ask", 0, 0, 0), ("answer", 0, 0, 0), ("accept", 0, 0, 0), ("join", 0, 0, 0), ("leave", 0, 0, 0), _LOOK],
    *[("join", 0, 0, 0), ("post", 0, 0, 0), _LOOK],
    *[("requeue", 0, 0, 0), _LOOK, ("discard", 0, 0, 0), ("mend", 0, 0, 0), ("start", 0, 0, 1), _LOOK],
    *[("file", 0, 1, 0), ("finish", 0, 0, 0), _LOOK, ("accept", 0, 0, 0), ("start", 0, 0, 0), ("finish", 0, 1, 0)],
    *[("compact", 0, 0, 0), _LOOK, ("trim", 0, 1, 0), _LOOK, ("purge", 0, 0, 0), _LOOK, ("reset", 0, 1, 0), _LOOK],
    *[("accept_and_begin", 0, 1, 0), _LOOK, ("finish", 0, 0, 0), _LOOK],
    *[("mark_closing", 1, 0, 0), ("close", 0, 0, 0), ("open", 2, 0, 0), ("release", 0, 0, 0), ("host", 0, 0, 0), _LOOK],
    *[("activate", 1, 0, 0), ("host_dies", 1, 0, 0), _LOOK],
    *[("host_dies", 0, 0, 0), ("forget_hosts", 0, 0, 3), _LOOK, ("host", 0, 0, 0), _LOOK],
    *[("activate", 0, 0, 0), ("accept", 0, 0, 0), ("start", 0, 0, 0), ("activate", 0, 0, 0), ("adopt", 0, 0, 0)],
    *[("activate", 0, 0, 0), ("request_cancel", 0, 0, 0), ("host", 0, 0, 3), ("drain_host", 0, 0, 0), _LOOK],
]


async def run_both(database_url: str, performed: list[Operation]) -> None:
    postgres = PostgresStore.connect(database_url)
    try:
        # What an example before has left.
        await postgres.delete_expired_files(limit=ALL_EXAMPLES)
        await postgres.delete_dead_hosts(older_than_seconds=0, limit=ALL_EXAMPLES)
        twins = Twins((("memory", MemoryStore()), ("postgres", postgres)), f"example{next(_numbers)}")
        await twins.begin()
        for operation in performed:
            await twins.perform(operation)
        await twins.compare_all()
        await twins.hand_over()
    finally:
        postgres.close()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(performed=operations)
@example(performed=LIFE)
def test_the_same_operations_give_the_same_answers(database_url: str, performed: list[Operation]) -> None:
    """One database for all examples; each has organizations of its own."""
    trio.run(run_both, database_url, performed)


def forgetting(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Gives the right answer and leaves everything as it was."""

    async def forget(self: MemoryStore, *arguments: Any, **named: Any) -> Any:
        kept = copy.deepcopy({name: value for name, value in vars(self.tables).items() if name != "clock"})
        answer = await method(self, *arguments, **named)
        vars(self.tables).update(kept)
        return answer

    return forget


def lying(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Changes nothing, as it should, and gives no true answer."""

    async def lie(self: MemoryStore, *arguments: Any, **named: Any) -> Any:
        before = copy.deepcopy({name: value for name, value in vars(self.tables).items() if name != "clock"})
        await method(self, *arguments, **named)
        assert before == {name: value for name, value in vars(self.tables).items() if name != "clock"}, "it is no read"
        return "not true"

    return lie


@pytest.mark.parametrize("name", [name for name in METHODS if name not in EXEMPT])
def test_every_method_is_compared(database_url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that forgets what one method wrote, or gives another answer to one that reads, is found out.

    A method that no operation uses, or whose effect nobody looks at, fails here.
    """
    wrong = lying if name in READS else forgetting
    monkeypatch.setattr(MemoryStore, name, wrong(getattr(MemoryStore, name)))
    with pytest.raises(Difference):
        trio.run(run_both, database_url, LIFE)
