"""The environment variables that mean something here, with those of a `.env` file beneath them.

Owns their names and forms. The real environment wins over the credentials that a service manager passes as files, and
these over `.env`. Values are never quoted in an error: some are secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import attrs

from supervisor.config.errors import ConfigError
from supervisor.config.values import JwtKey, LogFormat, RolloutStrategy, SessionStore, is_endpoint

WORKER_ENV_PREFIX = "WORKER_ENV_"
MIN_JWT_SECRET_BYTES = 32  # RFC 7518: an HS256 key is at least as long as its hash
MAX_ENV_FILE_BYTES = 1024 * 1024

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_KID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_API_KEY = re.compile(r"lobu_[\x21-\x7e]{1,250}\Z")
_CREDENTIALS = {"database_url": "DATABASE_URL", "admin_key": "LOBU_ADMIN_KEY", "jwt_keys": "LOBU_JWT_KEYS"}
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


@attrs.frozen
class Environment:
    """What the environment says; None where it is silent."""

    database_url: str | None = attrs.field(repr=False)
    admin_key: str | None = attrs.field(repr=False)
    jwt_keys: tuple[JwtKey, ...] = attrs.field(repr=False)
    session_store: SessionStore
    log_format: LogFormat
    allow_multi_host: bool
    shared_sessions: bool
    rollout_strategy: RolloutStrategy | None
    otlp_endpoint: str | None  # for traces, whole
    worker_env: dict[str, str] = attrs.field(repr=False)
    variables: Mapping[str, str] = attrs.field(repr=False)  # all of them, for settings that name one


def read_environment(environ: Mapping[str, str], env_file: Path | None = None) -> Environment:
    """`environ` over the variables of `env_file`, if that exists. Raises ConfigError."""
    variables = {**_read_env_file(env_file), **_credentials(environ.get("CREDENTIALS_DIRECTORY", "")), **environ}
    return Environment(
        database_url=variables.get("DATABASE_URL", "").strip() or None,
        admin_key=_admin_key(variables.get("LOBU_ADMIN_KEY", "")),
        jwt_keys=parse_jwt_keys(variables.get("LOBU_JWT_KEYS", ""), "the environment", "LOBU_JWT_KEYS"),
        session_store=_session_store(variables.get("LOBU_SESSION_STORE", "")),
        log_format=_log_format(variables.get("LOBU_LOG", "")),
        allow_multi_host=_flag("LOBU_ALLOW_MULTI_HOST", variables.get("LOBU_ALLOW_MULTI_HOST", "")),
        shared_sessions=_flag("LOBU_SHARED_SESSIONS", variables.get("LOBU_SHARED_SESSIONS", "")),
        rollout_strategy=_rollout_strategy(variables.get("LOBU_ROLLOUT_STRATEGY", "")),
        otlp_endpoint=_otlp_endpoint(variables),
        worker_env=_worker_env(variables),
        variables=variables,
    )


def parse_jwt_keys(text: str, file: str, key: str) -> tuple[JwtKey, ...]:
    """`kid:secret,…`; the first signs. Empty text: no keys. Raises ConfigError."""
    keys: list[JwtKey] = []
    for number, part in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
        kid, colon, secret = part.partition(":")
        if not colon or not _KID.match(kid):
            raise ConfigError(
                f"{key} must look like `kid:secret,kid:secret`, and its part {number} does not; "
                "a kid has letters, digits and `. _ -` only.",
                file=file,
                key=key,
            )
        if len(secret.encode()) < MIN_JWT_SECRET_BYTES:
            raise ConfigError(
                f"{key} has a secret of fewer than {MIN_JWT_SECRET_BYTES} bytes for kid `{kid}`; make one with "
                '`python -c "import secrets; print(secrets.token_urlsafe(48))"`.',
                file=file,
                key=key,
            )
        if any(kid == known.kid for known in keys):
            raise ConfigError(f"{key} has two keys with the kid `{kid}`; rename one.", file=file, key=key)
        keys.append(JwtKey(kid, secret))
    return tuple(keys)


def _fail(name: str, reason: str) -> ConfigError:
    return ConfigError(f"{name} {reason}", file="the environment", key=name)


def _admin_key(value: str) -> str | None:
    value = value.strip()
    if value and not _API_KEY.match(value):
        raise _fail(
            "LOBU_ADMIN_KEY", "must be `lobu_` and 1 to 250 visible ASCII characters, since it travels in a header."
        )
    return value or None


def _session_store(value: str) -> SessionStore:
    if value not in ("", "file", "snapshot"):
        raise _fail("LOBU_SESSION_STORE", "must be `file`, or absent to keep snapshots in Postgres.")
    return "file" if value == "file" else "snapshot"


def _log_format(value: str) -> LogFormat:
    if value not in ("", "json", "text"):
        raise _fail("LOBU_LOG", "must be `json` or `text`.")
    return cast(LogFormat, value or "text")


def _rollout_strategy(value: str) -> RolloutStrategy | None:
    if value not in ("", "rolling", "recreate"):
        raise _fail("LOBU_ROLLOUT_STRATEGY", "must be `rolling` or `recreate`, or absent to let the settings decide.")
    return cast(RolloutStrategy, value) if value else None


def _otlp_endpoint(variables: Mapping[str, str]) -> str | None:
    """As OpenTelemetry has it: the one for traces as it is, else the common one with the path for traces."""
    for name, path in (("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""), ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces")):
        value = variables.get(name, "").strip()
        if value:
            if not is_endpoint(value):
                raise _fail(name, "must be an http(s) address, like http://127.0.0.1:4318.")
            return value.rstrip("/") + path if path else value
    return None


def _flag(name: str, value: str) -> bool:
    lowered = value.strip().lower()
    if lowered not in _TRUE + _FALSE:
        raise _fail(name, "must be `1` or `0`.")
    return lowered in _TRUE


def _worker_env(variables: Mapping[str, str]) -> dict[str, str]:
    found = {
        name.removeprefix(WORKER_ENV_PREFIX): value
        for name, value in variables.items()
        if name.startswith(WORKER_ENV_PREFIX) and name != WORKER_ENV_PREFIX
    }
    # The supervisor alone says how sessions are stored; a worker told otherwise would look for the wrong file.
    found.pop("LOBU_SESSION_STORE", None)
    return found


def _credentials(folder: str) -> dict[str, str]:
    """What systemd's LoadCredential= put there for this process alone."""
    found: dict[str, str] = {}
    for name, variable in _CREDENTIALS.items() if folder else ():
        path = Path(folder, name)
        try:
            found[variable] = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("the credential cannot be read as text.", file=str(path)) from error
    return found


def _read_env_file(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            data = file.read(MAX_ENV_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(
            f"the file cannot be read ({error.strerror}); check its permissions.", file=str(path)
        ) from error
    if len(data) > MAX_ENV_FILE_BYTES:
        raise ConfigError(f"the file is larger than {MAX_ENV_FILE_BYTES} bytes; it is no .env file.", file=str(path))
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError("the file is not UTF-8 text; save it as UTF-8.", file=str(path)) from error
    return parse_env_text(text, str(path))


def parse_env_text(text: str, file: str) -> dict[str, str]:
    """NAME=value lines; `#` comments, `export`, one pair of quotes around a value. No expansion. Raises ConfigError."""
    variables: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip().removeprefix("export ").strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not _NAME.match(name):
            raise ConfigError("this line is not NAME=value; mend or remove it.", file=file, line=number)
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        else:
            value = value.split(" #", 1)[0].rstrip()
        variables[name] = value
    return variables
