"""A live run that no marker speaks of is in the way of all that follow, until the owner ends it."""

from __future__ import annotations

import trio

from lobu_actors.contract.frames import Complete, TurnFrame
from lobu_actors.contract.ids import new_id
from lobu_actors.store.records import Accepted, Agent, NewTurn
from tests.conftest import admin
from tests.fakes.actor_world import actors


async def test_a_message_behind_a_live_run_that_is_nobodys(store, database_url, make_scene):
    ref = (await make_scene(store)).ref
    await store.apply_agents(ref.organization_id, [Agent(ref.organization_id, "echo", "echo", is_default=True)])
    admin(
        database_url,
        "INSERT INTO run (organization_id, run_id, agent_id, conversation_id, turn_ids, host_id, epoch, attempt) "
        f"VALUES ('{ref.organization_id}', 'lost', 'echo', '{ref.conversation_id}', '{{gone}}', 'h0', 1, 1)",
    )
    async with actors(store) as here:
        accepted = await store.accept_turn(NewTurn(ref, new_id(), "m1", "hi"), max_owed=9)
        assert isinstance(accepted, Accepted)
        await here.conversations.accepted(accepted.turn)
        with trio.fail_after(30):
            worker = await here.workers.next()
            await worker.ready()
            await worker.given.wait()
            [frame] = worker.frames
            assert isinstance(frame, TurnFrame)
            with here.environment.feeds.reading(ref) as feed:
                await worker.says(Complete(run_id=frame.run_id, text="yes"))
                while not feed.last_seq:
                    await feed.waiting.wait(trio.current_time() + 1)
    [event] = await store.read_events(ref, 1, limit=9)
    assert event.data["finalText"] == "yes"
    statuses = admin(database_url, "SELECT status FROM run ORDER BY started_at")
    assert statuses == [("requeued",), ("completed",)]
