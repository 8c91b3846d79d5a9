"""What DATABASE_URL may say."""

from pathlib import Path

import pytest

from lobu_actors.store.database_url import EmbeddedDatabase, ExternalDatabase, parse_database_url
from lobu_actors.store.errors import InvalidDatabaseUrl


@pytest.mark.parametrize(
    "url", ["postgres://h/db", "postgresql://u:p@h:1/db?sslmode=require", "postgresql:///db?host=/x"]
)
def test_external(url, tmp_path):
    assert parse_database_url(f" {url}\n", tmp_path) == ExternalDatabase(url)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("", "{dir}"),
        (".", "{dir}"),
        ("file:.", "{dir}"),
        ("file:sub", "{dir}/sub"),
        ("sub/deeper", "{dir}/sub/deeper"),
        ("/abs", "/abs"),
        ("file:/abs", "/abs"),
        ("file:///abs%20olute", "/abs olute"),
        ("C:x", "{dir}/C:x"),
    ],
)
def test_embedded(value, path, tmp_path):
    expected = Path(path.format(dir=tmp_path))
    assert parse_database_url(value, tmp_path) == EmbeddedDatabase(expected)


@pytest.mark.parametrize(
    "value", ["mysql://h/db", "postgres:db", "postgresql://", "file://host/x", "http://secret@h", "a\0b", "{file}"]
)
def test_anything_else_is_one_sentence_without_secrets(value, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(InvalidDatabaseUrl) as caught:
        parse_database_url(value.format(file=file), tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "secret" not in message
