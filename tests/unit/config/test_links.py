"""The `[links]` table."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.config.errors import ConfigError
from supervisor.config.load import load_settings
from supervisor.config.settings import LinkSettings

SEVERAL = {"LOBU_ALLOW_MULTI_HOST": "1"}


def links(folder: Path, text: str, environ: dict[str, str]) -> LinkSettings:
    (folder / "lobu.toml").write_text(text)
    return load_settings(folder / "lobu.toml", environ=environ).links


def test_with_one_host_there_are_none(tmp_path: Path) -> None:
    assert links(tmp_path, "", {}).host is None


def test_with_several_they_are_on(tmp_path: Path) -> None:
    assert links(tmp_path, "", SEVERAL) == LinkSettings("127.0.0.1", 0)
    assert links(tmp_path, '[links]\nlisten = "[::1]:7001"', SEVERAL) == LinkSettings("::1", 7001)
    text = '[links]\nlisten = "0.0.0.0:7001"\nadvertise = "wss://host.example"'
    assert links(tmp_path, text, SEVERAL) == LinkSettings("0.0.0.0", 7001, "wss://host.example")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('listen = "7001"', "an address and a port"),
        ('listen = "host"', "an address and a port"),
        ('listen = "host:port"', "an address and a port"),
        ('listen = "0.0.0.0:7001"', "every address"),
        ('advertise = "http://host"', "ws or wss"),
        ('advertise = "ws://host/path"', "ws or wss"),
        ('advertise = "ws://user@host"', "ws or wss"),
        ("listen = 7001", "must be a text"),
        ('colour = "blue"', "not a known key"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        links(tmp_path, f"[links]\n{text}", SEVERAL)


def test_links_without_several_hosts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="LOBU_ALLOW_MULTI_HOST"):
        links(tmp_path, '[links]\nlisten = "10.0.0.1:7001"', {})
