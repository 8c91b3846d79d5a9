"""A message's way through the real server: open, send, read, resume, end."""

from __future__ import annotations

import trio

from lobu_actors.contract.events import EventType
from lobu_actors.contract.ids import ConversationRef
from tests.fakes.http_server import EventReader, Running, parse_frames


async def test_open_send_and_read_to_the_terminal_event(server: Running) -> None:
    world = server.world
    async with server.client() as client:
        opened = (await client.post("/lobu/api/v1/agents", json={"agentId": "echo", "userId": "ann"})).json()
        assert opened["agentId"] == "echo_ann_acme"
        assert opened["sseUrl"] == f"{server.url}/lobu/api/v1/agents/echo_ann_acme/events?since=0"
        client.headers["Authorization"] = f"Bearer {opened['token']}"
        receipt = (await client.post(opened["messagesUrl"], json={"content": "hi", "model": "m"})).json()
        assert receipt["success"]
        assert receipt["queued"]
        assert receipt["position"] == 0
        [turn] = world.gateway.hints
        assert turn.payload == {"model": "m"}
        owner = await world.owner(ConversationRef("acme", "echo", "echo_ann_acme"))
        await owner.begin(turn)
        raw = b""
        async with client.stream("GET", receipt["eventsUrl"]) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            assert stream.headers["cache-control"] == "no-store"
            assert stream.headers["x-accel-buffering"] == "no"
            owner.say("hel")
            owner.say("lo\u2028")
            ended = False
            async for chunk in stream.aiter_raw():
                raw += chunk
                if b"event: output" in raw and not ended:
                    ended = True
                    await owner.end(turn)
    frames = parse_frames(raw)
    assert raw.startswith(b"retry: 1000\nevent: connected\ndata: ")
    assert [frame.event for frame in frames] == ["connected", "output", "complete"]
    assert frames[1].data["content"] == "hello\u2028"
    assert frames[1].id == "0.1.6"
    assert frames[2].data["finalText"] == "hello\u2028"
    assert frames[2].id == "1"


async def test_failed_turn_is_sent_under_both_names_with_one_id(server: Running) -> None:
    ref = await server.world.conversation()
    turn = await server.world.message(ref, message_id="m1")
    owner = await server.world.owner(ref)
    await owner.begin(turn)
    await owner.end(turn, EventType.AGENT_ERROR)
    async with server.client() as client:
        raw = (await client.get(f"/api/v1/agents/{ref.conversation_id}/events?messageId=m1")).content
    _, failure, alias = parse_frames(raw)
    assert (failure.event, alias.event) == ("agent-error", "error")
    assert failure.id == alias.id
    assert failure.data == alias.data


async def test_keep_alive_is_a_comment_only(hasty: Running) -> None:
    ref = await hasty.world.conversation()
    reader = await EventReader.open(hasty, f"/api/v1/agents/{ref.conversation_id}/events")
    raw = await reader.until(b": ping\n\n", 2)
    assert raw.split(b"\n\n", 1)[1] == b": ping\n\n" * 2
    await reader.close()


async def test_message_is_accepted_and_hinted_though_the_client_hangs_up(server: Running) -> None:
    ref = await server.world.conversation()
    entered, go_on = server.world.gateway.hold_accepted()
    stream = await server.connect()
    body = b'{"content":"hi"}'
    await stream.send_all(
        b"POST /api/v1/agents/%b/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (ref.conversation_id.encode(), server.world.admin_key.encode(), len(body), body)
    )
    await entered.wait()
    await stream.aclose()
    go_on.set()
    with trio.fail_after(5):
        while not server.world.gateway.hints:
            await trio.lowlevel.checkpoint()


async def test_idle_connections_close_and_streams_drain_when_the_server_stops(server: Running) -> None:
    ref = await server.world.conversation()
    async with server.client() as client:
        assert (await client.get("/health/ready")).status_code == 200
        async with client.stream("GET", f"/api/v1/agents/{ref.conversation_id}/events") as stream:
            raw = b""
            async for chunk in stream.aiter_raw():
                raw += chunk
                server.stopping.set()
        assert [frame.event for frame in parse_frames(raw)] == ["connected", "drain"]
        with trio.fail_after(5):
            await server.stopped.wait()
