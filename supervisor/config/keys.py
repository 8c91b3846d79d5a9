"""Files in `<data_dir>/.lobu/` by which commands in one folder find each other: keys, and where the gateway listens.

Key files have mode 0600, are made once with O_EXCL and never overwritten; one that others may read is refused, since
what was readable may have been read. Writing is to a temporary file that is linked into place, so that a reader never
sees half a key, and of two processes that start together one makes the key and both use it.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from supervisor.config.environment import parse_jwt_keys
from supervisor.config.errors import ConfigError
from supervisor.config.values import STATE_FOLDER, JwtKey

if TYPE_CHECKING:
    from supervisor.config.settings import Settings

ADMIN_KEY_FILE = "admin_key"
JWT_KEYS_FILE = "jwt_keys"
GATEWAY_URL_FILE = "gateway_url"
LAST_CHAT_FILE = "last_chat"
API_KEY_PREFIX = "lobu_"
MAX_FILE_BYTES = 64 * 1024


def new_api_key() -> str:
    """A fresh API key: `lobu_` and 256 random bits."""
    return API_KEY_PREFIX + secrets.token_urlsafe(32)


def new_jwt_keys() -> str:
    """One fresh signing key, in the form of LOBU_JWT_KEYS."""
    return f"k{secrets.token_hex(4)}:{secrets.token_urlsafe(48)}"


def ensure_keys(settings: Settings) -> Settings:
    """`settings` with an admin key and signing keys: those it has, else the stored ones, else new ones, now stored.

    Raises ConfigError when a stored key cannot be used.
    """
    admin_key, jwt_keys = settings.admin_key, settings.jwt_keys
    if admin_key is None:
        admin_key = _ensure_secret(settings.state_dir / ADMIN_KEY_FILE, new_api_key)
    if not jwt_keys:
        jwt_keys = _stored_jwt_keys(settings.state_dir / JWT_KEYS_FILE)
    return attrs.evolve(settings, admin_key=admin_key, jwt_keys=jwt_keys)


def read_admin_key(data_dir: Path) -> str | None:
    """The stored admin key; None when no `lobu run` made one here. Raises ConfigError."""
    return _read_secret(data_dir / STATE_FOLDER / ADMIN_KEY_FILE)


def write_gateway_url(data_dir: Path, url: str) -> None:
    """Tell later commands in this folder where the gateway listens."""
    replace_file(data_dir / STATE_FOLDER / GATEWAY_URL_FILE, url)


def remove_gateway_url(data_dir: Path, url: str) -> None:
    """Take it back, if it is still ours."""
    path = data_dir / STATE_FOLDER / GATEWAY_URL_FILE
    if read_small_file(path) == url:
        path.unlink(missing_ok=True)


def read_gateway_url(data_dir: Path) -> str | None:
    return read_small_file(data_dir / STATE_FOLDER / GATEWAY_URL_FILE)


def make_state_dir(path: Path) -> None:
    """`.lobu`, for its owner only when it is made here. Raises ConfigError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"the folder cannot be made ({error.strerror}); choose another with --data-dir.", file=str(path)
        ) from error


def replace_file(path: Path, text: str) -> None:
    """Write a small file for its owner only, whole or not at all. Raises ConfigError."""
    make_state_dir(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_new(temporary, text)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"the file cannot be written ({error.strerror}).", file=str(path)) from error


def read_small_file(path: Path) -> str | None:
    """A file's text without the blanks around it; None when it is absent, empty or not readable as text."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _stored_jwt_keys(path: Path) -> tuple[JwtKey, ...]:
    text = _ensure_secret(path, new_jwt_keys)
    keys = parse_jwt_keys(text, str(path), "the file")
    if not keys:
        raise ConfigError("the file holds no key; delete it, and the next start makes one.", file=str(path))
    return keys


def _ensure_secret(path: Path, make: Callable[[], str]) -> str:
    found = _read_secret(path)
    if found is not None:
        return found
    make_state_dir(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            _write_new(temporary, make())
            # link() fails when the name is taken, rename() would not: the first of two starters wins.
            with suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"the key file cannot be written ({error.strerror}).", file=str(path)) from error
    found = _read_secret(path)
    if found is None:
        raise ConfigError("the key file vanished while it was being made; start again.", file=str(path))
    return found


def _write_new(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read_secret(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        why = "it is a link" if error.errno == errno.ELOOP else error.strerror
        raise ConfigError(f"the key file cannot be read ({why}).", file=str(path)) from error
    try:
        _check_private(os.fstat(descriptor).st_mode, path)
        data = os.read(descriptor, MAX_FILE_BYTES + 1)
    finally:
        os.close(descriptor)
    text = data.decode("ascii", "replace").strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text or len(data) > MAX_FILE_BYTES:
        raise ConfigError("the key file holds no key; delete it, and the next start makes one.", file=str(path))
    return text


def _check_private(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        raise ConfigError("this is no regular file; remove it, and the next start makes a key.", file=str(path))
    if mode & 0o077:
        raise ConfigError(
            f"others may read this key (mode {stat.S_IMODE(mode):04o}); run `chmod 600` on it, and replace the key if "
            "somebody may have seen it.",
            file=str(path),
        )
