"""The settings of one process: frozen, valid, units in the names. What they are, not where they come from.

Secrets and the environment handed to workers never show in a repr, so that a settings object can be logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

from lobu_actors.conversation.policy import AgentPolicy, Deadlines, FailurePolicy, Guardrail
from lobu_actors.store.records import Agent
from supervisor.config.table import Table
from supervisor.config.values import (
    DEFAULT_HOST,
    DEFAULT_PORT,
    STATE_FOLDER,
    JwtKey,
    LogFormat,
    RolloutStrategy,
    SessionStore,
)
from supervisor.singletons.schedule import Watcher
from supervisor.singletons.telegram.bot import Bot
from supervisor.workers.types import WorkerType

MIB = 1024 * 1024


@attrs.frozen
class ServerSettings:
    """`public_url` is how clients reach the edge: no path behind the host, no slash at its end."""

    public_url: str = f"http://{DEFAULT_HOST}:{DEFAULT_PORT}"
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    cancel_on_disconnect: bool = True  # of clients that speak a dialect in which a connection is all they can end


@attrs.frozen
class LinkSettings:
    """Where other hosts link to this one: on an address that they reach and clients do not. `advertise` is that address
    as they see it, `ws://…` or `wss://…`; None: as it is listened on."""

    host: str | None = None  # None: there are no links from other hosts
    port: int = 0  # 0: any free one
    advertise: str | None = None
    unix_path: Path | None = None  # for edges of this machine that are processes of their own


@attrs.frozen
class TelemetrySettings:
    """`metrics_port`: of a supervisor that is a process of its own; its edges take the next free ones. 0: any."""

    metrics_port: int | None = None
    metrics_host: str = DEFAULT_HOST
    otlp_endpoint: str | None = None  # where spans go, by OTLP over HTTP; None: none are made


@attrs.frozen
class DatabaseSettings:
    """`url`: `postgres://…` for a server elsewhere, `file:<absolute folder>` for the embedded one."""

    url: str = attrs.field(repr=False)


@attrs.frozen
class AgentConfig:
    """An `[[agents]]` table. `owner` is the user whose own agent it is; None: it is everybody's."""

    id: str
    worker: str
    default: bool = False
    owner: str | None = None
    model: str | None = None
    settings: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    deadlines: Deadlines = attrs.field(factory=Deadlines)
    failure: FailurePolicy = attrs.field(factory=FailurePolicy)
    guardrails: tuple[Guardrail, ...] = ()

    def record(self, organization_id: str) -> Agent:
        """This agent as the store keeps it; `policy` is plain JSON that `AgentPolicy.from_json` reads back."""
        policy = AgentPolicy(self.deadlines, self.failure, self.guardrails)
        return Agent(
            organization_id=organization_id,
            agent_id=self.id,
            worker=self.worker,
            is_default=self.default,
            owner_user_id=self.owner,
            model=self.model,
            settings=dict(self.settings),
            policy=policy.to_json(),
        )


@attrs.frozen
class Limits:
    """The `[limits]` table. Numbers are positive unless said otherwise; `load` checks how they relate to each other."""

    # Workers
    max_workers: int = 256
    worker_place_seconds: float = 60.0  # how long a message waits for one of them while all have work
    # Uids of workers, when the supervisor is root: neither people's, nor systemd's dynamic ones, nor containers'.
    worker_uid_first: int = 1_900_000_000
    worker_uid_count: int = 4096
    worker_idle_seconds: float = 300.0
    cancel_grace_seconds: float = 5.0
    adoption_seconds: float = 60.0  # how long workers go on without a supervisor
    spawner_silent_seconds: float = 8.0  # then a spawner is taken for stuck, ended with its workers, and replaced
    crash_loop_crashes: int = 10  # crashes of one conversation's worker within the period; one more is a loop
    crash_loop_period_seconds: float = 60.0
    session_file_max_bytes: int = 64 * MIB
    workspace_max_bytes: int = 2048 * MIB  # of one conversation, its session file among it
    workspace_max_files: int = 100_000  # folders too
    reply_max_bytes: int = 8 * MIB
    run_max_open_questions: int = 100
    # Actors and hosts
    drain_grace_seconds: float = 20.0
    host_ttl_seconds: float = 6.0
    host_renew_seconds: float = 2.0
    host_margin_seconds: float = 1.0  # a host stops to trust its lease this long before the database would
    sweep_interval_seconds: float = 1.0
    # Store
    database_pool_size: int = 8
    database_timeout_seconds: float = 10.0
    retention_days: float = 30.0
    retention_interval_seconds: float = 600.0  # between two walks of the janitor over all conversations
    host_retention_days: float = 7.0  # of the row of a host that is over
    snapshot_max_segments: int = 64  # of one conversation, from one walk to the next
    # Edge
    message_max_bytes: int = MIB
    queue_max_turns: int = 100  # turns that one conversation may owe
    upload_max_files: int = 10
    upload_file_max_bytes: int = 50_000_000
    upload_total_max_bytes: int = 100_000_000
    streams_per_conversation: int = 5
    streams_per_process: int = 10_000
    stream_buffer_bytes: int = 256 * 1024
    ping_seconds: float = 15.0
    token_ttl_seconds: float = 86_400.0
    ticket_ttl_seconds: int = 30  # of a ticket for one event stream
    session_ttl_seconds: int = 12 * 3600  # of a browser's cookie
    requests_per_second: int = 2000  # of one API key, or of one user's tokens, in one process; 0: any number
    request_burst: int = 5000  # that may come at once after a pause


def _read_only(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


@attrs.frozen(kw_only=True)
class Settings:
    """Everything that can be set. Made by `load_settings`; `keys.ensure_keys` fills in keys that are absent."""

    server: ServerSettings
    database: DatabaseSettings
    organization_id: str
    workers: Mapping[str, WorkerType] = attrs.field(converter=_read_only)
    agents: tuple[AgentConfig, ...]
    limits: Limits
    edge: Table = attrs.field(factory=Table.empty, eq=Table.given)  # unread: see `edge_settings`
    watchers: tuple[Watcher, ...] = ()
    telegram: tuple[Bot, ...] = ()
    data_dir: Path  # absolute
    config_file: Path | None = None  # None: there is no lobu.toml, the built-in defaults are in force
    jwt_keys: tuple[JwtKey, ...] = attrs.field(default=(), repr=False)
    admin_key: str | None = attrs.field(default=None, repr=False)
    log_format: LogFormat = "text"
    session_store: SessionStore = "snapshot"
    worker_env: Mapping[str, str] = attrs.field(factory=dict, converter=_read_only, repr=False)
    allow_multi_host: bool = False
    managed: bool = False  # a service manager runs the spawner and the edges
    shared_sessions: bool = False  # `.lobu/workspaces` is the same folder on every host
    rollout_strategy: RolloutStrategy | None = None
    links: LinkSettings = attrs.field(factory=LinkSettings)
    telemetry: TelemetrySettings = attrs.field(factory=TelemetrySettings)

    @property
    def state_dir(self) -> Path:
        """`<data_dir>/.lobu`: key files, the embedded server's data, sockets, workspaces."""
        return self.data_dir / STATE_FOLDER

    def agent_records(self) -> list[Agent]:
        """What `Store.apply_agents` takes for this organization."""
        return [agent.record(self.organization_id) for agent in self.agents]
