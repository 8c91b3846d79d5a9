"""`lobu run`: everything of one machine in one process tree. The composition root: here, and only here, edge and
supervisor meet.

    lobu
    ├── database       the embedded server, unless the URL names another
    ├── store          schema, organization, agents, keys: usable before anything needs it
    ├── timers, spawner, workers, host
    └── edge

Stopping goes from the bottom up: the edge first, the database last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio

from edge.application import Application
from edge.guardrails import Guardrails
from edge.host_tokens import JwtHostTokens
from edge.listening import CannotListen
from edge.run_tokens import sign_run
from edge.server import serve
from edge.services import Services
from edge.streams import Streams
from edge.tokens import JwtKeys, api_key_hash
from lobu_actors.contract.states import Role
from lobu_actors.conversation.spans import SpanSink
from lobu_actors.runtime.child_spec import ChildContext, ChildSpec
from lobu_actors.runtime.errors import ChildStartFailed
from lobu_actors.runtime.supervisor import Strategy, Supervisor
from lobu_actors.store.database_url import EmbeddedDatabase, parse_database_url
from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.migrate import migrate
from lobu_actors.store.postgres.store import PostgresStore
from lobu_actors.store.protocol import TenantStore
from lobu_actors.store.records import ApiKey, NewTurn, Verdict
from supervisor.config.errors import ConfigError
from supervisor.config.reload import changed_agents
from supervisor.config.settings import Settings
from supervisor.database import DATABASE_STOP_SECONDS, watch_database
from supervisor.edge_settings import edge_settings_of
from supervisor.host import TREE_INTENSITY, Host
from supervisor.otlp import spans_told
from supervisor.reloading import Reloading
from supervisor.signals import obeying

log = structlog.get_logger(__name__)

TAKE_BACK_SECONDS = 30.0

OnReady = Callable[[int], None]
OnDrain = Callable[[float], None]
OnProgress = Callable[[str], None]


async def run_everything(settings: Settings, reloading: Reloading, on_ready: OnReady, on_progress: OnProgress) -> None:
    """Until SIGINT or SIGTERM, then drain; a second signal stops at once. Raises what could not be started.

    `settings` have their keys already (`config.keys.ensure_keys`). `on_ready` gets the port.
    """
    drain = trio.Event()
    async with obeying(drain, reloading.ask), trio.open_nursery() as nursery:
        with spans_told(settings.telemetry.otlp_endpoint, "lobu") as spans:
            async with _database(settings, on_progress) as (url, server):
                everything = Everything(settings, url, server, lambda port: ready(port), spans=spans)

                def ready(port: int) -> None:
                    reloading.ready_with(everything.take_up, "serves conversations and HTTP")
                    on_ready(port)

                nursery.start_soon(reloading.run_until, drain)
                await everything.serve(drain)
        nursery.cancel_scope.cancel()


def store_of(settings: Settings, url: str) -> PostgresStore:
    """A process's own store on `url`; nothing is connected yet."""
    return PostgresStore.connect(
        url,
        pool_size=settings.limits.database_pool_size,
        call_timeout_seconds=settings.limits.database_timeout_seconds,
    )


def keys_of(settings: Settings) -> JwtKeys:
    return JwtKeys(tuple((key.kid, key.secret.encode()) for key in settings.jwt_keys))


@asynccontextmanager
async def _database(settings: Settings, on_progress: OnProgress) -> AsyncIterator[tuple[str, EmbeddedServer | None]]:
    """The URL to use; the embedded server, started, when it is the one. Nothing of it is left behind."""
    database = parse_database_url(settings.database.url, settings.data_dir)
    if not isinstance(database, EmbeddedDatabase):
        yield database.url, None
        return
    server = EmbeddedServer(database.path, on_progress=on_progress)
    try:
        await server.start()
        yield server.url, server
    finally:
        with trio.move_on_after(DATABASE_STOP_SECONDS, shield=True):
            await server.stop("immediate")


class Everything:
    """The supervisor tree of one `lobu run`, on a database that accepts connections."""

    def __init__(
        self,
        settings: Settings,
        url: str,
        server: EmbeddedServer | None,
        on_ready: OnReady,
        *,
        edge: bool = True,
        on_drain: OnDrain = lambda seconds: None,
        spans: SpanSink | None = None,
    ) -> None:
        """Without `edge`, `on_ready` gets 0; `on_drain` is told how many seconds a drain that begins takes at most."""
        self._settings = settings
        self._url = url
        self._server = server
        self._on_ready = on_ready
        self._on_drain = on_drain
        self._store = store_of(settings, url)
        self._keys = keys_of(settings)
        self._guardrails = Guardrails(self._store, edge_settings_of(settings))
        tokens = JwtHostTokens(self._keys)
        self._spans = spans
        self._host = Host(settings, self._store, partial(sign_run, self._keys), tokens, self._judge)
        self._host.tell_spans(spans)
        self._app: Application | None = None
        children = [
            ChildSpec("store", self._run_store, start_timeout_seconds=60),
            *self._host.children,
            ChildSpec("edge", self._run_edge, shutdown_seconds=15) if edge else ChildSpec("ready", self._say_ready),
        ]
        if server is not None:
            watch = ChildSpec(
                "database",
                partial(watch_database, server),
                shutdown_seconds=DATABASE_STOP_SECONDS + 15,
                start_timeout_seconds=120,
            )
            children.insert(0, watch)
        self._tree = Supervisor(
            "lobu", children, strategy=Strategy.ONE_FOR_ONE, intensity=TREE_INTENSITY, on_event=self._host.tree_log
        )
        self._host.looking.tree = self._tree.snapshot

    async def serve(self, drain: trio.Event) -> None:
        """Until `drain` is set and the drain is done. Raises the error of a child that does not come up."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drain_when, drain)
                nursery.start_soon(self._drain_when_asked, drain)
                try:
                    await self._tree.serve()
                except ChildStartFailed as fault:
                    raise root_of(fault) from fault
                nursery.cancel_scope.cancel()
        finally:
            self._store.close()
        if self._host.membership.refused is not None:
            raise self._host.membership.refused

    async def take_up(self, settings: Settings) -> None:
        """Have what can change take effect; the rest of `settings` is as before. Raises ConfigError,
        StoreError: then it is as it was."""
        before = self._settings
        try:
            await self._host.take_up_workers(settings)  # first: an agent may name a type that is new
            await _provide_agents(self._store, settings)
        except BaseException:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + TAKE_BACK_SECONDS):
                await self._host.take_up_workers(before)
            raise
        self._settings = settings
        edge_settings = edge_settings_of(settings, before)
        self._guardrails = Guardrails(self._store, edge_settings)
        if self._app is not None:
            self._app.take_up(edge_settings)
        self._host.take_up(settings, changed_agents(before, settings))

    async def _judge(self, turn: NewTurn, user_id: str) -> Verdict | None:
        return await self._guardrails.verdict(turn, user_id)

    async def _drain_when_asked(self, drain: trio.Event) -> None:
        """By another program, through the database; or because there is no place for this host any more."""
        await self._host.membership.must_drain.wait()
        drain.set()

    async def _drain_when(self, drain: trio.Event) -> None:
        """Streams are told to come back; what runs may finish within the grace; the rest goes back to the queue."""
        await drain.wait()
        self._on_drain(self._settings.limits.drain_grace_seconds)
        self._host.membership.begin_drain()
        self._host.conversations.begin_drain()
        await self._host.conversations.hand_over(self._settings.limits.drain_grace_seconds)
        self._tree.stop()

    async def _run_store(self, context: ChildContext) -> None:
        settings, store = self._settings, self._store
        if self._server is not None:
            await migrate(self._url)
        else:
            await store.check_sessions()
            await store.check_schema()
        await store.ensure_organization(settings.organization_id)
        await _provide_agents(store, settings)
        assert settings.admin_key is not None, "run_everything is given settings that have their keys"
        await store.put_api_key(
            ApiKey(api_key_hash(settings.admin_key), settings.organization_id, "admin", Role.ADMIN, "admin key")
        )
        context.started()
        await context.stopping.wait()

    async def _say_ready(self, context: ChildContext) -> None:
        context.started()
        self._on_ready(0)
        await context.stopping.wait()

    async def _run_edge(self, context: ChildContext) -> None:
        settings = self._settings
        edge_settings = edge_settings_of(settings)
        streams = Streams(edge_settings, self._spans)
        self._app = Application(
            Services.build(self._store, self._host.gateway, self._keys, edge_settings, streams, self._host.worker_door)
        )
        async with trio.open_nursery() as nursery:
            serving = partial(
                serve,
                self._app,
                edge_settings,
                stopping=context.stopping,
                host=settings.server.host,
                port=settings.server.port,
            )
            try:
                port = await nursery.start(serving)
            except CannotListen as error:
                raise ConfigError(str(error)) from error
            self._on_ready(port)  # before it has started: what cannot be announced is told, and not tried again
            context.started(port)


async def _provide_agents(store: TenantStore, settings: Settings) -> None:
    """The file's agents for its own organization, and its default one for every organization that has none."""
    agents = settings.agent_records()
    await store.apply_agents(settings.organization_id, agents)
    default = next((agent for agent in agents if agent.is_default), None)
    if default is None:
        log.warning("no default agent", organization=settings.organization_id)
    elif given := await store.ensure_default_agents(default):
        log.info("default agent given", agent=default.agent_id, organizations=given)


def root_of(fault: ChildStartFailed) -> Exception:
    """What a person can do something about: not that a supervisor failed, but why its innermost child did."""
    error: Exception = fault
    while isinstance(error, ChildStartFailed) and error.error is not None:
        error = error.error
    return error
