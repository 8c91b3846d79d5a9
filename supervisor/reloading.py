"""Reads the configuration again when it is asked to, without a restart. What runs goes on as it began.

A file that cannot be used changes nothing and ends nothing: one line says what is wrong with it, in the journal and in
the unit's status.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from lobu_actors.store.errors import StoreError
from supervisor.config.errors import ConfigError
from supervisor.config.reload import change_of
from supervisor.config.settings import Settings
from supervisor.loading import loaded
from supervisor.systemd.notify import Notifier

log = structlog.get_logger(__name__)

Read = Callable[[], Settings]
TakeUp = Callable[[Settings], Awaitable[None]]


class Reloading:
    """`read` raises ConfigError, OSError; `take_up` has settings be in force, or raises ConfigError, StoreError.

    `ask` may be called at any time; nothing is read before `ready_with` was called. `run_until` reads one at a time.
    """

    def __init__(self, settings: Settings, read: Read, notifier: Notifier) -> None:
        self._settings = settings
        self._read = read
        self._notifier = notifier
        self._status = ""
        self._take_up: TakeUp | None = None
        self._asked = trio.Event()
        self._ready = trio.Event()

    def ask(self) -> None:
        self._asked.set()

    def ready_with(self, take_up: TakeUp, status: str) -> None:
        """The process serves. `status` is what it says of itself to the service manager."""
        self._take_up, self._status = take_up, status
        loaded()
        self._notifier.ready(status)
        self._ready.set()

    async def run_until(self, stopping: trio.Event) -> None:
        """Until the process drains: what it then ends with is what it had."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run)
            await stopping.wait()
            nursery.cancel_scope.cancel()

    async def _run(self) -> None:
        await self._ready.wait()
        while True:
            await self._asked.wait()
            self._asked = trio.Event()
            self._notifier.reloading("reads its configuration again")
            self._notifier.ready(await self._reload())

    async def _reload(self) -> str:
        assert self._take_up is not None
        try:
            found = await trio.to_thread.run_sync(self._read)
            change = change_of(self._settings, found)
            await self._take_up(change.settings)
        except (ConfigError, StoreError, OSError) as error:
            reason = " ".join(str(error).split())
            log.error("configuration not read again, the former one stays", reason=reason)
            return f"{self._status}; the configuration was not read again: {reason}"
        self._settings = change.settings
        log.info("configuration read again", changed=list(change.taken))
        if change.needs_restart:
            log.warning("changed, and takes effect with a restart only", keys=list(change.needs_restart))
        return self._status
