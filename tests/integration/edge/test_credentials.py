"""Credentials over their life: how often they may be used, keys that are replaced, keys that are revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import trio

from edge.settings import EdgeSettings
from edge.tickets import sign_ticket
from edge.tokens import JwtKeys, api_key_hash
from lobu_actors.store.memory import MemoryStore
from tests.fakes.edge_world import SECRET, EdgeWorld
from tests.fakes.gateway import FakeGateway
from tests.fakes.http_server import Running, running

KEY = "echo_ann_acme"
PATH = f"/api/v1/agents/{KEY}"
NEW_SECRET = "n" * 32


@pytest.fixture
async def slow() -> AsyncIterator[Running]:
    """Three requests at once, and then none for longer than a test takes."""
    settings = EdgeSettings(requests_per_second=0.001, request_burst=3)
    async with running(await EdgeWorld.make(settings)) as server:
        await server.world.conversation()
        yield server


async def statuses(server: Running, credential: str, times: int) -> list[int]:
    async with server.client(credential) as client:
        return [(await client.get(PATH)).status_code for _ in range(times)]


async def test_a_key_that_is_used_too_fast(slow: Running) -> None:
    async with slow.client(slow.world.user_key) as client:
        for _ in range(3):
            assert (await client.get(PATH)).status_code == 200
        refused = await client.post(f"{PATH}/messages", json={"content": "hi"})
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        assert int(refused.headers["Retry-After"]) >= 1
        assert not slow.world.store.tables.turns
        for path in ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs"):
            for _ in range(5):
                assert (await client.get(path)).status_code == 200
    assert await statuses(slow, slow.world.admin_key, 1) == [200]


async def test_a_keys_cookie_shares_its_rate(slow: Running) -> None:
    async with slow.client(slow.world.user_key) as client:
        cookie = (await client.post("/api/v1/session")).cookies["lobu_session"]
    headers = {"Cookie": f"lobu_session={cookie}", "Origin": slow.url}
    async with httpx.AsyncClient(base_url=slow.url, headers=headers, timeout=20) as client:
        assert [(await client.get(PATH)).status_code for _ in range(3)] == [200, 200, 429]
    assert await statuses(slow, slow.world.user_key, 1) == [429]


async def test_all_tokens_of_a_user_share_one_rate_and_another_users_do_not(slow: Running) -> None:
    keys, ref = slow.world.keys, await slow.world.conversation()
    other = await slow.world.conversation(user="bob")
    assert await statuses(slow, keys.sign(ref, "ann", 60)[0], 2) == [200, 200]
    assert await statuses(slow, keys.sign(ref, "ann", 61)[0], 2) == [200, 429]
    async with slow.client(keys.sign(other, "bob", 60)[0]) as client:
        assert (await client.get(f"/api/v1/agents/{other.conversation_id}")).status_code == 200


async def test_a_ticket_that_comes_too_fast_is_not_used_up(slow: Running) -> None:
    keys, ref = slow.world.keys, await slow.world.conversation()
    await statuses(slow, keys.sign(ref, "ann", 60)[0], 3)
    ticket, _ = sign_ticket(keys, ref, "ann", 60)
    async with httpx.AsyncClient(base_url=slow.url, timeout=20) as client:
        assert (await client.head(f"{PATH}/events?ticket={ticket}")).status_code == 429
    assert not slow.world.store.tables.used_tickets


async def test_wrong_credentials_take_nothing_from_anybody(slow: Running) -> None:
    assert await statuses(slow, "lobu_wrong", 5) == [401] * 5
    assert await statuses(slow, slow.world.user_key, 1) == [200]


async def test_a_token_outlives_its_keys_first_place_and_not_its_listing() -> None:
    """Rotation as an operator does it: the new secret goes before the old one; later the old one goes."""
    world = await EdgeWorld.make()
    ref = await world.conversation()
    old = JwtKeys.from_secrets([SECRET])
    credentials = {"token": old.sign(ref, "ann", 600)[0], "ticket": sign_ticket(old, ref, "ann", 600)[0]}

    async def ask(secrets: list[str]) -> tuple[int, int, str]:
        keys = JwtKeys.from_secrets(secrets)
        served = EdgeWorld(world.store, FakeGateway(), keys, world.settings, *["x"] * 4)
        async with running(served) as server:
            async with server.client(credentials["token"]) as client:
                shown = (await client.get(PATH)).status_code
                fresh = keys.sign(ref, "ann", 600)[0]
            async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
                ticket = (await client.head(f"{PATH}/events?ticket={credentials['ticket']}")).status_code
            async with server.client(fresh) as client:
                assert (await client.get(PATH)).status_code == 200
        return shown, ticket, fresh

    assert (await ask([SECRET]))[:2] == (200, 200)
    *listed, fresh = await ask([NEW_SECRET, SECRET])
    assert listed == [200, 401]  # the ticket is as good as before, and was used
    assert JwtKeys.from_secrets([NEW_SECRET]).verify(fresh).ref == ref  # only the first signs
    credentials["ticket"] = sign_ticket(old, ref, "ann", 600)[0]
    assert (await ask([NEW_SECRET, SECRET]))[:2] == (200, 200)
    credentials["ticket"] = sign_ticket(old, ref, "ann", 600)[0]
    assert (await ask([NEW_SECRET]))[:2] == (401, 401)


async def test_a_revoked_key_is_believed_no_longer_than_is_set(autojump_clock: trio.abc.Clock) -> None:
    settings = EdgeSettings(api_key_cache_seconds=5.0)
    world = await EdgeWorld.make(settings, MemoryStore())
    await world.conversation()
    client = world.app.test_client()
    headers = {"Authorization": f"Bearer {world.user_key}"}

    async def status() -> int:
        return int((await client.get(PATH, headers=headers)).status_code)

    assert await status() == 200
    assert await world.store.revoke_api_key("acme", api_key_hash(world.user_key)) == 1
    assert await status() == 200  # still believed
    await trio.sleep(5.1)
    assert await status() == 401


async def test_a_revoked_key_is_refused_in_time_over_real_connections() -> None:
    settings = EdgeSettings(api_key_cache_seconds=0.2)
    async with running(await EdgeWorld.make(settings)) as server:
        await server.world.conversation()
        async with server.client(server.world.user_key) as client:
            assert (await client.get(PATH)).status_code == 200
            await server.world.store.revoke_api_key("acme", api_key_hash(server.world.user_key))
            with trio.fail_after(5):
                while (await client.get(PATH)).status_code != 401:
                    await trio.lowlevel.checkpoint()
