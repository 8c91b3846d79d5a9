"""The database's clock is set back by an hour: what was accepted before seems to come from the future."""

from __future__ import annotations

from lobu_actors.contract.ids import new_id
from lobu_actors.store.records import NewTurn
from tests.conftest import admin


async def test_what_is_owed_from_before_is_found_at_once(store, database_url, make_scene):
    scene = await make_scene(store)
    for host_id in ("gone", "h1"):
        await store.register_host(host_id, name=host_id, link_url=None, version="1", ttl_seconds=600)
    refs = [scene.ref._replace(conversation_id=name) for name in ("abandoned", "unclaimed", "ours", "new")]
    for ref in refs:
        await store.open_conversation(ref, "ann")
    abandoned, unclaimed, ours, new = refs
    await store.activate(abandoned, "gone")
    await store.activate(ours, "h1")
    for ref in (abandoned, unclaimed, ours, new):
        await store.accept_turn(NewTurn(ref, new_id(), new_id(), "hello"), max_owed=9)
    await store.declare_host_dead("gone")
    admin(
        database_url,
        "UPDATE turn_marker SET accepted_at = accepted_at + interval '1 hour',"
        " owed_since = owed_since + interval '1 hour'"
        " WHERE conversation_id <> 'new'",
    )
    found = await store.find_owed("h1", limit=10, older_than_seconds=60)
    assert {owed.ref for owed in found} == {abandoned, unclaimed, ours}
    assert [owed.closing for owed in found] == [False] * 3
    assert {owed.ref for owed in await store.find_owed("h1", limit=10, older_than_seconds=0)} == set(refs)
