"""The parts of `lobu run` as processes of their own, for a service manager: supervisor and edge.

A composition root like `supervisor.everything`, of whose tree the supervisor here is all but the edge and the database.
What is different is how each ends:

- SIGTERM or SIGINT drains, as it does `lobu run`; a second one stops at once.
- SIGUSR1 to the supervisor hands over: the process ends at once and says goodbye to nobody, for the next one, which
  starts now, adopts the workers and goes on with their turns. It is the same as a crash, on purpose: that a crash costs
  no turn is what everything here is built and tested for, and a second way to leave would be one more to get wrong.
- SIGHUP has either read its configuration again (`supervisor.reloading`).
- An edge ends its streams, which clients resume at another edge, and finishes the requests under way.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack

import attrs
import structlog
import trio

from edge.application import Application
from edge.host_tokens import JwtHostTokens
from edge.listening import CannotListen
from edge.server import serve
from edge.services import Services
from edge.streams import Streams
from lobu_actors import telemetry
from lobu_actors.gateway.link.detached import Detached
from lobu_actors.runtime.loop_lag import measure_loop_lag
from lobu_actors.store.database_url import EmbeddedDatabase, parse_database_url
from lobu_actors.store.embedded import running_url
from supervisor.config.errors import ConfigError
from supervisor.config.keys import read_small_file
from supervisor.config.settings import Settings
from supervisor.edge_settings import edge_settings_of
from supervisor.everything import Everything, keys_of, store_of
from supervisor.host import wall_clock_ms
from supervisor.membership import HOST_ID_FILE
from supervisor.metrics_server import metrics_served
from supervisor.otlp import spans_told
from supervisor.reloading import Reloading
from supervisor.signals import obeying
from supervisor.systemd.beating import beating
from supervisor.systemd.notify import Notifier

log = structlog.get_logger(__name__)

LINKS_SOCKET = "links.sock"
TREE_STOP_SECONDS = 30.0  # from the end of a drain to the end of the process
FIRST_LINK_SECONDS = 3.0
HAND_OVER = signal.SIGUSR1


def managed(settings: Settings) -> Settings:
    """`settings` for a supervisor whose spawner and edges a service manager runs."""
    links = attrs.evolve(settings.links, unix_path=settings.state_dir / LINKS_SOCKET)
    return attrs.evolve(settings, managed=True, links=links)


async def run_supervisor(settings: Settings, reloading: Reloading, notifier: Notifier) -> None:
    """Until SIGTERM and the drain is done, or SIGUSR1, which does not come back. Raises what could not be started.

    The caller holds the state directory's lock.
    """
    drain = trio.Event()

    async def take_up(found: Settings) -> None:
        await everything.take_up(managed(found))

    def ready(_port: int) -> None:
        reloading.ready_with(take_up, "serves conversations")
        log.info("supervisor is ready")

    def drains(seconds: float) -> None:
        notifier.stopping(f"drains: what runs may finish within {seconds:g} s")
        notifier.extend(seconds + TREE_STOP_SECONDS)

    with spans_told(settings.telemetry.otlp_endpoint, "lobu-supervisor") as spans, metrics_served(settings.telemetry):
        async with obeying(drain, reloading.ask), beating(notifier) as scope:
            await scope.start(_hand_over)
            everything = Everything(
                managed(settings), _external_url(settings), None, ready, edge=False, on_drain=drains, spans=spans
            )
            scope.start_soon(reloading.run_until, drain)
            await everything.serve(drain)


async def run_edge(
    settings: Settings, reloading: Reloading, sockets: Sequence[socket.socket], notifier: Notifier
) -> None:
    """Until SIGTERM; on `sockets` that were passed, or on the settings' address when there are none.

    Raises what could not be started: ConfigError, StoreError.
    """
    store, keys = store_of(settings, _external_url(settings)), keys_of(settings)
    detached = Detached(
        lambda: read_small_file(settings.state_dir / HOST_ID_FILE),
        f"unix:{settings.state_dir / LINKS_SOCKET}",
        store.find_peers,
        store.find_owner,
        JwtHostTokens(keys),
        wall_clock_ms,
    )
    edge_settings = edge_settings_of(settings)
    telling = ExitStack()
    spans = telling.enter_context(spans_told(settings.telemetry.otlp_endpoint, "lobu-edge"))
    streams = Streams(edge_settings, spans)
    app = Application(Services.build(store, detached.gateway, keys, edge_settings, streams, detached.worker_door))
    in_force = settings

    async def take_up_settings(found: Settings) -> None:
        nonlocal in_force
        app.take_up(edge_settings_of(found, in_force))
        in_force = found

    stopping = trio.Event()
    try:
        telling.enter_context(metrics_served(settings.telemetry, edge=True))
        await store.check_schema()
        async with obeying(stopping, reloading.ask), beating(notifier) as scope:
            scope.start_soon(detached.run)
            scope.start_soon(measure_loop_lag, telemetry.LOOP_LAG_SECONDS.observe)
            scope.start_soon(reloading.run_until, stopping)
            scope.start_soon(_tell_stop, stopping, notifier, edge_settings.stop_grace_seconds)
            await _first_link(detached)
            async with trio.open_nursery() as serving:
                try:
                    port = await serving.start(
                        lambda task_status: serve(
                            app,
                            edge_settings,
                            stopping=stopping,
                            host=settings.server.host,
                            port=settings.server.port,
                            sockets=sockets or None,
                            task_status=task_status,
                        )
                    )
                except CannotListen as error:
                    raise ConfigError(str(error)) from error
                reloading.ready_with(take_up_settings, f"serves HTTP on port {port}")
                log.info("edge is ready", port=port)
    finally:
        telling.close()
        store.close()


def _external_url(settings: Settings) -> str:
    """A part starts no database of its own."""
    database = parse_database_url(settings.database.url, settings.data_dir)
    url = running_url(database.path) if isinstance(database, EmbeddedDatabase) else database.url
    if url is None:
        raise ConfigError("the embedded database does not run; start its unit, or set DATABASE_URL.")
    return url


async def _hand_over(*, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(HAND_OVER) as signals:
        task_status.started()
        async for _ in signals:
            log.info("handing over to the next supervisor")
            os._exit(0)


async def _tell_stop(stopping: trio.Event, notifier: Notifier, seconds: float) -> None:
    await stopping.wait()
    notifier.stopping("finishes the requests under way")
    notifier.extend(seconds + TREE_STOP_SECONDS)


async def _first_link(detached: Detached) -> None:
    """A new edge takes over streams, and is of more use with a link; without a supervisor it is of some use still."""
    with trio.move_on_after(FIRST_LINK_SECONDS):
        await detached.linked()
