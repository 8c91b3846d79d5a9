"""The schema's CHECK constraints allow exactly the states of the contract."""

import re

import psycopg
import pytest

from lobu_actors.contract.events import DURABLE_EVENTS, TERMINAL_EVENTS
from lobu_actors.contract.states import (
    TERMINAL_TURN_STATUSES,
    Alone,
    DeliveryStatus,
    HostState,
    OnBusy,
    Role,
    RunStatus,
    TurnStatus,
)

CONSTRAINTS = {
    "api_key_role": Role,
    "host_state": HostState,
    "host_alone": Alone,
    "turn_on_busy": OnBusy,
    "turn_status": TurnStatus,
    "run_status": RunStatus,
    "conversation_event_type": DURABLE_EVENTS,
    "platform_delivery_status": DeliveryStatus,
}


def words(text: str) -> set[str]:
    """Of a list of literals, or of a literal that is an array."""
    return {word for literal in re.findall(r"'([^']*)'", text) for word in literal.strip("{}").split(",")}


@pytest.fixture
def connection(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_constraint_is_the_contract(connection, name):
    statement = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s"
    [(definition,)] = connection.execute(statement, [name]).fetchall()
    assert words(definition) == {state.value for state in CONSTRAINTS[name]}


def test_the_unique_terminal_event_is_the_contracts(connection):
    statement = "SELECT indexdef FROM pg_indexes WHERE indexname = 'conversation_event_one_terminal'"
    [(definition,)] = connection.execute(statement).fetchall()
    assert words(definition) == {event.value for event in TERMINAL_EVENTS}


def test_a_turn_has_ended_exactly_when_it_is_terminal(connection):
    statement = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'turn_ended_when_terminal'"
    [(definition,)] = connection.execute(statement).fetchall()
    assert words(definition) == {status.value for status in set(TurnStatus) - TERMINAL_TURN_STATUSES}


def test_every_key_begins_with_the_tenant(connection):
    statement = """
        SELECT c.relname, a.attname FROM pg_index i
        JOIN pg_class c ON c.oid = i.indrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
        WHERE i.indisunique
    """
    firsts = {(table, column) for table, column in connection.execute(statement) if column != "organization_id"}
    # Hosts and their rollout belong to no tenant; a key's hash is looked up before the tenant is known.
    assert firsts == {
        ("host", "host_id"),
        ("rollout", "single"),
        ("api_key", "key_hash"),
        ("schema_migration", "version"),
    }
