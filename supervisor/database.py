"""The embedded database as a part of this host: a child of `lobu run`, or a process of its own for a service manager.

All other units wait for that process, so this module must not import what only they need.
"""

from __future__ import annotations

import trio

from lobu_actors.runtime.child_spec import ChildContext
from lobu_actors.store.database_url import EmbeddedDatabase, parse_database_url
from lobu_actors.store.embedded import EmbeddedServer
from lobu_actors.store.errors import EmbeddedServerError
from lobu_actors.store.migrate import migrate
from supervisor.config.errors import ConfigError
from supervisor.config.settings import Settings
from supervisor.signals import obeying
from supervisor.systemd.beating import beating
from supervisor.systemd.notify import Notifier

DATABASE_STOP_SECONDS = 20.0


async def watch_database(server: EmbeddedServer, context: ChildContext) -> None:
    """A supervised child: the server is up when this has started; fails when it ends, and then starts it again."""
    if not server.running:
        await server.restart()
    context.started()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail_when_it_ends, server)
        await context.stopping.wait()
        nursery.cancel_scope.cancel()
    await server.stop("fast", DATABASE_STOP_SECONDS)


async def fail_when_it_ends(server: EmbeddedServer) -> None:
    """Raises EmbeddedServerError."""
    status = await server.wait_exit()
    raise EmbeddedServerError("the embedded database ended" + ("" if status is None else f" with status {status}"))


async def run_database(settings: Settings, notifier: Notifier) -> None:
    """The embedded server until SIGTERM, with its schema up to date. Raises ConfigError, EmbeddedServerError."""
    database = parse_database_url(settings.database.url, settings.data_dir)
    if not isinstance(database, EmbeddedDatabase):
        raise ConfigError("the database is a server elsewhere; there is none to run here.", key="DATABASE_URL")
    server = EmbeddedServer(database.path, on_progress=notifier.status)
    stopping = trio.Event()
    async with obeying(stopping), beating(notifier) as scope:
        try:
            await server.start()
            await migrate(server.url)
            notifier.ready("accepts connections")
            async with trio.open_nursery() as watching:
                watching.start_soon(fail_when_it_ends, server)
                await stopping.wait()
                watching.cancel_scope.cancel()
            notifier.stopping("shuts down")
            await server.stop("fast", DATABASE_STOP_SECONDS)
            scope.cancel_scope.cancel()
        finally:
            with trio.move_on_after(DATABASE_STOP_SECONDS, shield=True):
                await server.stop("immediate")
