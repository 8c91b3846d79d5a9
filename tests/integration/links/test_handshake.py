"""Who is let in over a link on real sockets, and what who is no host of ours can say there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from structlog.testing import capture_logs
from trio_websocket import ConnectionClosed, ConnectionRejected

from edge.host_tokens import JwtHostTokens
from edge.tokens import JwtKeys
from lobu_actors.gateway.link import wire
from lobu_actors.gateway.link.auth import HostClaims
from lobu_actors.gateway.link.client import LinkClient
from tests.fakes.linked_host import REF, TOKENS, until
from tests.integration.links.conftest import CLAIMS, Pair, open_raw

OTHER_KEYS = JwtHostTokens(JwtKeys.from_secrets(["t" * 32]))


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (lambda: None, "no token"),
        (lambda: "nonsense", "bad token"),
        (lambda: OTHER_KEYS.sign(CLAIMS), "bad token"),
        (lambda: TOKENS.sign(HostClaims("a", "c", "nonce")), "meant for another host"),
    ],
    ids=["none", "nonsense", "foreign", "for another"],
)
async def test_who_has_no_token_for_this_host_is_refused_with_one_line(
    pair: Pair, token: Callable[[], str | None], reason: str
) -> None:
    """Made in the test, since a token is good for less time than all tests take."""
    with capture_logs() as logs, pytest.raises(ConnectionRejected) as refused:
        async with open_raw(pair.b, token()):
            pass
    assert refused.value.status_code == 401
    assert [(line["event"], line["reason"]) for line in logs if line["event"] == "link refused"] == [
        ("link refused", reason)
    ]


async def test_another_address_is_not_found(pair: Pair) -> None:
    with pytest.raises(ConnectionRejected) as refused:
        async with open_raw(pair.b, None, "/elsewhere"):
            pass
    assert refused.value.status_code == 404


async def test_without_a_common_version_it_is_closed_with_a_sentence(pair: Pair) -> None:
    async with open_raw(pair.b, TOKENS.sign(CLAIMS)) as websocket:
        await websocket.send_message(wire.encode(wire.Hello(wire.VERSIONS[1] + 1, wire.VERSIONS[1] + 2)))
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.get_message()
    assert closed.value.reason is not None
    assert closed.value.reason.code == 4001
    assert "this host speaks 1 to 1" in closed.value.reason.reason


async def test_a_newer_program_that_speaks_our_version_too_is_welcome(pair: Pair) -> None:
    async with open_raw(pair.b, TOKENS.sign(CLAIMS)) as websocket:
        await websocket.send_message(wire.encode(wire.Hello(1, 99)))
        welcome = wire.from_server(await websocket.get_message())
    assert isinstance(welcome, wire.Welcome)
    assert welcome.version == wire.VERSIONS[1]
    assert TOKENS.verify(welcome.proof) == HostClaims("b", "a", "nonce")


async def test_an_impostor_at_a_hosts_address_is_not_believed(pair: Pair) -> None:
    """It lets everybody in, and cannot sign."""
    client = LinkClient("c", pair.b.url, "a", TOKENS, pair.a.peers.mirrors)
    await _is_not_made(client, "401")
    liar = LinkClient("b", pair.b.url, "a", _Liar(), pair.a.peers.mirrors)
    await _is_not_made(liar, "does not prove")


async def _is_not_made(client: LinkClient, why: str) -> None:
    with capture_logs() as logs, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            await until(lambda: any(why in line.get("reason", "") for line in logs))
            assert not client.up
            nursery.cancel_scope.cancel()


class _Liar:
    """Signs for the real one, and finds nobody's proof good."""

    def sign(self, claims: HostClaims) -> str:
        return TOKENS.sign(claims)

    def verify(self, token: str) -> HostClaims | None:
        return None


@pytest.mark.parametrize(
    "frame", ["", "{}", "[1]", '{"is":"hello","lowest":1,"highest":1}', "\x00", b"binary", "x" * 2**21]
)
async def test_what_is_no_message_ends_that_link_only(pair: Pair, frame: str | bytes) -> None:
    async with open_raw(pair.b, TOKENS.sign(CLAIMS)) as websocket:
        await websocket.send_message(wire.encode(wire.Hello(1, 1)))
        await websocket.get_message()

        async def say_and_hear() -> None:
            await websocket.send_message(frame)
            await websocket.get_message()

        with trio.fail_after(5), pytest.raises(ConnectionClosed):
            await say_and_hear()
    assert (await pair.a.router.live_status(REF)).active is False
    assert pair.a.peers.client("b") is not None
