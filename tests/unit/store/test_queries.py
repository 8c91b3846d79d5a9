"""The format of query files, and that the shipped ones keep to it."""

import re

import pytest

from lobu_actors.store.queries import parse_queries, positional, query, query_names


def test_a_query_is_its_statement_without_comments():
    text = "-- a file\n\n-- name: one\n-- What it does.\nSELECT 1, -- one\n    2;\n-- name: two\n-- Does.\nSELECT 3;\n"
    assert parse_queries(text, "x.sql") == {"one": b"SELECT 1, -- one\n2", "two": b"SELECT 3"}


def test_a_text_may_be_two_queries():
    text = (
        "-- name: both\n-- without the brackets: one\n-- D.\nSELECT 1\n-- [\n, 2\n-- ]\n, 3;\n-- name: other\n-- D.\n4"
    )
    assert parse_queries(text, "x.sql") == {"both": b"SELECT 1\n, 2\n, 3", "one": b"SELECT 1\n, 3", "other": b"4"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("-- name: one\n-- D.\nSELECT 1\n-- [\n, 2\n-- ]", "a name without the brackets"),
        ("-- name: one\n-- without the brackets: two\n-- D.\nSELECT 1", "lacks a bracket"),
        ("-- name: one\n-- without the brackets: two\n-- D.\nSELECT 1\n-- [\n, 2", "lacks a bracket"),
        ("-- name: one\n-- without the brackets: one\n-- D.\nSELECT 1\n-- [\n, 2\n-- ]", "twice"),
        ("-- name: one\nSELECT 1;", "description"),
        ("-- name: one\n-- What it does.\n", "statement"),
        ("-- name: one\n-- D.\nSELECT 1;\n-- name: one\n-- D.\nSELECT 1;", "twice"),
    ],
)
def test_what_does_not_fit_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parse_queries(text, "x.sql")


def test_guards_are_in_the_names_of_statements_that_ask_for_the_lease():
    for name in query_names():
        statement = query(name)
        if b"FOR SHARE" in statement:
            assert name.endswith("_if_lease_held"), name
        assert not re.search(rb"%(?!\(|%)", statement), name


def test_an_unknown_name_is_an_error():
    with pytest.raises(KeyError):
        query("nothing")


def test_placeholders_are_the_servers_own_once_a_name() -> None:
    text = b"SELECT %(a)s::text, %(b)s, %(a)s, 'x%', 10 %% 3"
    assert positional(text) == (b"SELECT $1::text, $2, $1, 'x%', 10 % 3", ("a", "b"))
    assert positional(b"SELECT 1") == (b"SELECT 1", ())
