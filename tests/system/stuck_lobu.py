"""`lobu` with one bug of its own: `stuck_lobu.py run …` has actors that get stuck where a message's first words say.

- `begin`: before the run is begun, while the session is laid out
- `finish`: before the terminal statement; that, and one event before it, still come when there is a file `wake` in the
  working directory
- `unkillable`: the same, and cancellation does not end it
- `hang deaf`: at the clocks, of which none is looked at any more; frames still are

Each turn gets stuck once: whoever takes over has no bug.
"""

from __future__ import annotations

import trio

from lobu_actors.conversation import messages as m
from lobu_actors.conversation.actor import ConversationActor
from lobu_actors.conversation.writes import Writes
from supervisor.cli.main import main

POLL_SECONDS = 0.05
_begin, _finish, _handle = Writes.begin, Writes.finish, ConversationActor._handle
_stuck: set[str] = set()


async def begin(self: Writes, effect: m.BeginRun) -> m.Message:
    if _gets_stuck(effect, "begin"):
        await trio.sleep_forever()
    return await _begin(self, effect)


async def finish(self: Writes, effect: m.FinishTurns) -> m.Message:
    if _gets_stuck(effect, "finish"):
        trio.lowlevel.spawn_system_task(_late, self, effect)
        await trio.sleep_forever()
    if _gets_stuck(effect, "unkillable"):
        with trio.CancelScope(shield=True):
            return await _late(self, effect)
    return await _finish(self, effect)


async def handle(self: ConversationActor, message: m.Message) -> object:
    run = None if self._state is None else self._state.run
    if isinstance(message, m.Tick) and run is not None and run.turns[0].content == "hang deaf":
        return None
    return await _handle(self, message)


async def _late(writes: Writes, effect: m.FinishTurns) -> m.Message:
    wake = trio.Path("wake")
    while not await wake.exists():  # noqa: ASYNC110 - the signal comes from another process
        await trio.sleep(POLL_SECONDS)
    await writes.record(m.RecordCancelStage(effect.turns, "worker-stopped"))
    return await _finish(writes, effect)


def _gets_stuck(effect: m.BeginRun | m.FinishTurns, where: str) -> bool:
    turn = effect.turns[0]
    if effect.run_id is None or turn.turn_id in _stuck or not turn.content.startswith(where):
        return False
    _stuck.add(turn.turn_id)
    return True


if __name__ == "__main__":
    Writes.begin, Writes.finish, ConversationActor._handle = begin, finish, handle  # type: ignore[method-assign]
    main()
