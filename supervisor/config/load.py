"""From lobu.toml, `.env` and the environment to `Settings`, or to one ConfigError that says where and what to do."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs

from lobu_actors.store.database_url import ExternalDatabase, parse_database_url, with_timeouts
from lobu_actors.store.errors import InvalidDatabaseUrl
from supervisor.config.environment import read_environment
from supervisor.config.errors import ConfigError
from supervisor.config.links import read_links
from supervisor.config.positions import Positions
from supervisor.config.sections import (
    read_agents,
    read_limits,
    read_organization,
    read_server,
    read_timeouts,
    read_workers,
)
from supervisor.config.settings import DatabaseSettings, Settings
from supervisor.config.singletons import read_telegram, read_watchers
from supervisor.config.table import Source, Table
from supervisor.config.telemetry import read_telemetry

CONFIG_NAME = "lobu.toml"
MAX_CONFIG_BYTES = 4 * 1024 * 1024

# What is in force when lobu.toml names neither workers nor agents, or is not there at all.
BUILT_IN: dict[str, Any] = {
    "workers": {"echo": {"command": ["python", "-m", "lobu_actors.agents.echo"], "zygote": True, "warm": 1}},
    "agents": [{"id": "echo", "worker": "echo", "default": True}],
}

_TOML_PLACE = re.compile(r"(.*) \(at line (\d+), column \d+\)\Z", re.DOTALL)


@attrs.frozen
class Overrides:
    """What the command line says; it wins over the environment, which wins over the file."""

    host: str | None = None
    port: int | None = None
    database_url: str | None = attrs.field(default=None, repr=False)


def load_settings(
    config: Path | None = None,
    *,
    data_dir: Path | None = None,
    overrides: Overrides | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read everything once. Reads files, writes none.

    `config` None means lobu.toml in the current folder, which may be absent; a named file must exist. `.env` is read
    beside it. `data_dir` defaults to the current folder. `environ` defaults to the process's environment.
    Raises ConfigError.
    """
    path, document, source = _read_config(config)
    folder = path.parent if path is not None else Path.cwd()
    given = overrides or Overrides()
    environment = read_environment(os.environ if environ is None else environ, folder / ".env")
    absolute_data_dir = (data_dir or Path()).absolute()

    if "workers" not in document and "agents" not in document:
        document = {**document, **BUILT_IN}
    root = Table(source, document)
    url = _database_url(given.database_url, environment.database_url, root.table("database"), absolute_data_dir)
    workers = read_workers(root.table("workers"), folder)
    agents = read_agents(root.tables("agents"), workers, folder)
    settings = Settings(
        server=read_server(root.table("server"), given.host, given.port),
        database=DatabaseSettings(url),
        organization_id=read_organization(root.table("organization")),
        workers=workers,
        agents=agents,
        watchers=read_watchers(root.tables("watchers"), agents),
        telegram=read_telegram(root.tables("telegram"), agents, environment.variables),
        limits=read_limits(root.table("limits")),
        edge=root.table("edge"),
        data_dir=absolute_data_dir,
        config_file=path,
        jwt_keys=environment.jwt_keys,
        admin_key=environment.admin_key,
        log_format=environment.log_format,
        session_store=environment.session_store,
        worker_env=environment.worker_env,
        allow_multi_host=environment.allow_multi_host,
        shared_sessions=environment.shared_sessions,
        rollout_strategy=environment.rollout_strategy,
        telemetry=read_telemetry(root.table("telemetry"), environment.otlp_endpoint),
        links=read_links(root.table("links"), allow_multi_host=environment.allow_multi_host),
    )
    root.finish()
    return settings


def _database_url(given: str | None, from_environment: str | None, table: Table, data_dir: Path) -> str:
    """The first that speaks wins. An embedded server's folder becomes an absolute `file:` URL."""
    from_file = table.text("url")
    timeouts = read_timeouts(table)
    table.finish()
    url = given or from_environment or from_file or "file:."
    try:
        database = parse_database_url(url, data_dir)
    except InvalidDatabaseUrl as error:
        if given:
            raise ConfigError(f"--database-url cannot be used: {error}.", key="--database-url") from error
        if from_environment:
            raise ConfigError(
                f"DATABASE_URL cannot be used: {error}.", file="the environment", key="DATABASE_URL"
            ) from error
        table.fail("url", f"cannot be used: {error}")
    if isinstance(database, ExternalDatabase):
        return with_timeouts(database.url, timeouts)
    return f"file:{quote(os.path.normpath(database.path))}"


def _read_config(config: Path | None) -> tuple[Path | None, dict[str, Any], Source]:
    path = (config or Path(CONFIG_NAME)).absolute()
    name = str(config) if config is not None else CONFIG_NAME
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
    except FileNotFoundError:
        if config is None:
            return None, {}, Source(CONFIG_NAME, Positions(""))
        raise ConfigError("there is no such file; `lobu init` writes one.", file=name) from None
    except OSError as error:
        raise ConfigError(f"the file cannot be read ({error.strerror}).", file=name) from error
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(f"the file is larger than {MAX_CONFIG_BYTES} bytes; it is no lobu.toml.", file=name)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        bad_line = data[: error.start].count(b"\n") + 1
        raise ConfigError("the file is not UTF-8 text; save it as UTF-8.", file=name, line=bad_line) from error
    try:
        return path, tomllib.loads(text), Source(name, Positions(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        reason, line = _toml_place(str(error), text)
        raise ConfigError(f"this is not valid TOML ({reason}); mend that line.", file=name, line=line) from error


def _toml_place(message: str, text: str) -> tuple[str, int | None]:
    """tomllib puts the place into its message only."""
    found = _TOML_PLACE.match(message)
    if found is not None:
        return found[1], int(found[2])
    if message.endswith("(at end of document)"):
        return message.removesuffix(" (at end of document)"), text.rstrip().count("\n") + 1
    return message, None
