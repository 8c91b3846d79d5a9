"""The limits of callers in lobu.toml reach the edge, within its bounds."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import attrs
import pytest

from edge.settings import BOUNDS
from supervisor.config.errors import ConfigError
from supervisor.config.load import load_settings
from supervisor.config.settings import Limits, Settings
from supervisor.edge_settings import OWN, edge_settings_of


def load(folder: Path, text: str) -> Settings:
    (folder / "lobu.toml").write_text(text)
    return load_settings(folder / "lobu.toml", data_dir=folder, environ={})


def test_limits_reach_the_edge(tmp_path: Path) -> None:
    text = (
        "[limits]\nrequests_per_second = 0\nrequest_burst = 7\nticket_ttl_seconds = 9\nsession_ttl_seconds = 61\n"
        "token_ttl_seconds = 600\n"
    )
    edge = edge_settings_of(load(tmp_path, text))
    assert (edge.requests_per_second, edge.request_burst, edge.ticket_seconds, edge.session_seconds) == (0, 7, 9, 61)


@pytest.mark.parametrize(("line", "expected"), [("", True), ("cancel_on_disconnect = false", False)])
def test_whether_a_client_that_goes_away_cancels_is_set(tmp_path: Path, line: str, expected: bool) -> None:
    assert edge_settings_of(load(tmp_path, f"[server]\n{line}\n")).cancel_on_disconnect is expected


def test_defaults_are_the_edges_own(tmp_path: Path) -> None:
    edge = edge_settings_of(load(tmp_path, ""))
    assert (edge.requests_per_second, edge.request_burst, edge.ticket_seconds) == (2000, 5000, 30)


@pytest.mark.parametrize("field", attrs.fields(Limits), ids=lambda field: field.name)
@pytest.mark.parametrize("value", ["1", "1000001", "0.001", "1e15", str(2**53)])
def test_what_the_file_may_say_the_edge_takes(tmp_path: Path, field: attrs.Attribute[object], value: str) -> None:
    """A limit that is out of the edge's range is refused with its line, not found out when the edge is made."""
    with suppress(ConfigError):
        edge_settings_of(load(tmp_path, f"[limits]\n{field.name} = {value}\n"))


@pytest.mark.parametrize(
    "line",
    ["requests_per_second = -1", "request_burst = 0", "ticket_ttl_seconds = 301", "session_ttl_seconds = 59"],
)
def test_out_of_bounds(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match=line.split()[0]):
        load(tmp_path, f"[limits]\n{line}\n")


@pytest.mark.parametrize("field", OWN, ids=lambda field: field.name)
def test_each_number_of_the_edge_can_be_set_within_its_bounds(tmp_path: Path, field: attrs.Attribute[object]) -> None:
    name, (least, most) = field.name, field.metadata[BOUNDS]
    for value in (least, most):
        edge = edge_settings_of(load(tmp_path, f"[edge]\n{name} = {value}\n"))
        assert getattr(edge, name) == value
    for value in (least - 1, most + 1, '"1"', "nan"):
        with pytest.raises(ConfigError, match=rf"lobu.toml:2: `edge\.{name}` must be"):
            edge_settings_of(load(tmp_path, f"[edge]\n{name} = {value}\n"))
