"""Settings refuse what cannot be, by name."""

from __future__ import annotations

from typing import Any

import pytest

from edge.settings import EdgeSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ping_seconds", 15.1), ("ping_seconds", 0), ("max_streams", 0), ("max_streams", True), ("max_owed_turns", "9"),
        ("public_url", "ftp://x"), ("public_url", "https://x?y"), ("public_url", "x"), ("organization_id", "a b"),
        ("stalled_reader_seconds", float("nan")),
    ],
)  # fmt: skip
def test_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        EdgeSettings(**{name: value})


def test_defaults_are_the_contracts() -> None:
    settings = EdgeSettings()
    assert settings.max_message_bytes == 1 << 20
    assert settings.max_streams_per_conversation == 5
    assert settings.max_streams == 10_000
    assert settings.stream_buffer_bytes == 256 << 10
    assert settings.ping_seconds + settings.read_seconds <= 15
