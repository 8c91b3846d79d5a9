"""Key files: made once, for their owner only, refused when others may read them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from supervisor.config.errors import ConfigError
from supervisor.config.keys import (
    ensure_keys,
    read_admin_key,
    read_gateway_url,
    remove_gateway_url,
    write_gateway_url,
)
from supervisor.config.load import load_settings


def test_made_once_and_kept(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path, environ={})
    first = ensure_keys(settings)
    again = ensure_keys(settings)
    assert first.admin_key is not None
    assert first.admin_key.startswith("lobu_")
    assert (first.admin_key, first.jwt_keys) == (again.admin_key, again.jwt_keys)
    assert read_admin_key(tmp_path) == first.admin_key
    assert len(first.jwt_keys[0].secret) >= 32
    assert sorted(path.name for path in (tmp_path / ".lobu").iterdir()) == ["admin_key", "jwt_keys"]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / ".lobu").iterdir()} == {0o600}


def test_a_full_disk_leaves_no_half_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        ensure_keys(load_settings(data_dir=tmp_path, environ={}))
    assert list((tmp_path / ".lobu").iterdir()) == []


def test_environment_keys_are_not_stored(tmp_path: Path) -> None:
    environ = {"LOBU_ADMIN_KEY": "lobu_given", "LOBU_JWT_KEYS": f"k:{'x' * 32}"}
    settings = ensure_keys(load_settings(data_dir=tmp_path, environ=environ))
    assert settings.admin_key == "lobu_given"
    assert not (tmp_path / ".lobu").exists()


def test_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    ensure_keys(load_settings(data_dir=tmp_path, environ={}))
    (tmp_path / ".lobu" / "admin_key").chmod(0o644)
    with pytest.raises(ConfigError, match=r"admin_key: others may read this key \(mode 0644\); run `chmod 600`"):
        read_admin_key(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"\xff\xfe", b"a\nb"])
def test_damaged_key_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lobu").mkdir()
    path = tmp_path / ".lobu" / "admin_key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no key"):
        read_admin_key(tmp_path)


def test_link_and_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".lobu").mkdir()
    path = tmp_path / ".lobu" / "admin_key"
    path.symlink_to("/etc/hostname")
    with pytest.raises(ConfigError, match="it is a link"):
        read_admin_key(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="no regular file"):
        read_admin_key(tmp_path)


def test_no_key_here(tmp_path: Path) -> None:
    assert read_admin_key(tmp_path) is None
    assert read_gateway_url(tmp_path) is None


def test_gateway_url_comes_and_goes(tmp_path: Path) -> None:
    write_gateway_url(tmp_path, "http://127.0.0.1:1")
    write_gateway_url(tmp_path, "http://127.0.0.1:2")
    assert read_gateway_url(tmp_path) == "http://127.0.0.1:2"
    remove_gateway_url(tmp_path, "http://127.0.0.1:1")
    assert read_gateway_url(tmp_path) == "http://127.0.0.1:2"
    remove_gateway_url(tmp_path, "http://127.0.0.1:2")
    assert read_gateway_url(tmp_path) is None
    assert not list((tmp_path / ".lobu").iterdir())
