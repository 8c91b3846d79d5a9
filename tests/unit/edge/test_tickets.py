"""Tickets and browser sessions as signed statements: whose, for how long, and that none passes for another's."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from edge.run_tokens import AUDIENCE as RUN_AUDIENCE
from edge.run_tokens import sign_run, verify_run
from edge.tickets import (
    SESSION_AUDIENCE,
    TICKET_AUDIENCE,
    KeySession,
    sign_key_session,
    sign_ticket,
    sign_token_session,
    verify_session,
    verify_ticket,
)
from edge.tokens import AUDIENCE, ExpiredToken, InvalidToken, JwtKeys
from lobu_actors.contract.ids import ConversationRef

KEYS = JwtKeys.from_secrets(["s" * 32])
REF = ConversationRef("acme", "helper", "helper_ann_acme")
NAMES = {"org": "acme", "agt": "helper", "cnv": "helper_ann_acme", "sub": "ann"}

SIGNED: dict[str, Callable[[int], str]] = {
    "ticket": lambda seconds: sign_ticket(KEYS, REF, "ann", seconds)[0],
    "key session": lambda seconds: sign_key_session(KEYS, "ab12", seconds)[0],
    "token session": lambda seconds: sign_token_session(KEYS, REF, "ann", seconds)[0],
    "token": lambda seconds: KEYS.sign(REF, "ann", seconds)[0],
    "run token": lambda seconds: sign_run(KEYS, REF, "r1", seconds),
}
VERIFY: dict[str, Callable[..., Any]] = {
    "ticket": verify_ticket,
    "key session": verify_session,
    "token session": verify_session,
    "token": JwtKeys.verify,
    "run token": verify_run,
}


def test_they_say_what_was_signed() -> None:
    ticket = verify_ticket(KEYS, SIGNED["ticket"](60))
    assert (ticket.ref, ticket.user_id) == (REF, "ann")
    assert verify_session(KEYS, SIGNED["key session"](60)) == KeySession("ab12")
    session = verify_session(KEYS, SIGNED["token session"](60))
    assert not isinstance(session, KeySession)
    assert (session.ref, session.user_id) == (REF, "ann")
    assert session.expires_at == pytest.approx(time.time() + 60, abs=5)


def test_no_two_tickets_are_the_same() -> None:
    assert len({verify_ticket(KEYS, SIGNED["ticket"](60)).ticket_id for _ in range(50)}) == 50


@pytest.mark.parametrize("signed", SIGNED)
@pytest.mark.parametrize("door", VERIFY)
def test_none_opens_anothers_door(signed: str, door: str) -> None:
    if VERIFY[signed] is VERIFY[door]:
        VERIFY[door](KEYS, SIGNED[signed](60))
        return
    with pytest.raises(InvalidToken):
        VERIFY[door](KEYS, SIGNED[signed](60))


def test_each_kind_has_an_audience_of_its_own() -> None:
    """Also where their claims would tell them apart: those may grow."""
    assert len({AUDIENCE, RUN_AUDIENCE, SESSION_AUDIENCE, TICKET_AUDIENCE}) == 4


@pytest.mark.parametrize("name", SIGNED)
def test_they_end_and_the_leeway_is_what_is_given(name: str) -> None:
    verify, late = VERIFY[name], SIGNED[name](-60)
    for leeway in (0, 30):
        with pytest.raises(ExpiredToken):
            verify(KEYS, late, leeway)
    verify(KEYS, late, 120)


@pytest.mark.parametrize("sign", [sign_ticket, sign_token_session], ids=["ticket", "token session"])
def test_when_they_end_is_told(sign: Callable[..., tuple[str, int]]) -> None:
    for seconds in (7, 700):
        _, ends_at = sign(KEYS, REF, "ann", seconds)
        assert ends_at == pytest.approx((time.time() + seconds) * 1000, abs=5000)
    _, ends_at = sign_key_session(KEYS, "ab12", 70)
    assert ends_at == pytest.approx((time.time() + 70) * 1000, abs=5000)


@pytest.mark.parametrize("name", ["org", "agt", "cnv", "sub", "jti"])
@pytest.mark.parametrize("value", [None, "", 7, ["x"]], ids=["absent", "empty", "a number", "a list"])
def test_a_ticket_lacks_no_name(name: str, value: object) -> None:
    claims: dict[str, Any] = {**NAMES, "jti": "t1", name: value}
    if value is None:
        del claims[name]
    ticket, _ = KEYS.encode(claims, TICKET_AUDIENCE, 60)
    with pytest.raises(InvalidToken):
        verify_ticket(KEYS, ticket)


@pytest.mark.parametrize("claims", [{}, {"key": ""}, {"key": 7}, {"org": "acme"}, {**NAMES, "sub": ""}])
def test_a_session_lacks_no_name(claims: dict[str, Any]) -> None:
    session, _ = KEYS.encode(claims, SESSION_AUDIENCE, 60)
    with pytest.raises(InvalidToken):
        verify_session(KEYS, session)
