"""The way out of all sandboxes of this host: a proxy for each worker, on a unix socket that only its sandbox has.

A supervised child. Owns the sockets and how many connections a worker may have; what a connection may do is decided by
`proxy` from the worker's list. A worker without a socket here has no way out. The sockets of a supervisor that died are
made again, at the same places, by `open` for each worker that its successor adopts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path
from typing import Protocol

import structlog
import trio

from supervisor.sandbox.command import PROXY_SOCKET
from supervisor.sandbox.destinations import Allowlist
from supervisor.sandbox.proxy import Clocks, serve_connection

MAX_CONNECTIONS = 64  # of one worker; more wait in the backlog
BACKLOG = 64
LOGGED_REFUSALS = 20  # of one worker, which must not fill the log

_log = structlog.get_logger()


class Context(Protocol):
    """What a supervised child is given; the runtime's `ChildContext` is one."""

    @property
    def stopping(self) -> trio.Event: ...

    def started(self, value: object = None) -> None: ...


class Egress:
    """`open` and `close` may be called while `run` runs; `folder` is made when it is first needed."""

    def __init__(self, folder: Path, *, clocks: Clocks | None = None, max_connections: int = MAX_CONNECTIONS) -> None:
        self._folder = folder
        self._clocks = clocks or Clocks()
        self._max_connections = max_connections
        self._open: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, context: Context) -> None:
        """Until an ordered stop, which ends every connection."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                context.started()
                await context.stopping.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._nursery = None
            self._open.clear()

    def open(self, worker_id: str, allowed: Allowlist, user: int | None = None) -> str:
        """Begin to serve a worker; gives the folder that its sandbox needs. Raises OSError."""
        if self._nursery is None:
            raise OSError("the proxy for workers is not running")
        folder = self._folder / worker_id
        self._folder.mkdir(mode=0o711, exist_ok=True)
        folder.mkdir(mode=0o711, exist_ok=True)
        listener = _listen(folder, user)
        scope = self._open[worker_id] = trio.CancelScope()
        self._nursery.start_soon(self._serve, worker_id, listener, allowed, scope)
        return str(folder)

    def close(self, worker_id: str) -> None:
        """End a worker's connections and take its socket away; nothing when it has none."""
        scope = self._open.pop(worker_id, None)
        if scope is None:
            return
        scope.cancel()
        with contextlib.suppress(OSError):
            (self._folder / worker_id / PROXY_SOCKET).unlink(missing_ok=True)
            (self._folder / worker_id).rmdir()

    def remove_unused(self) -> None:
        """Remove what a supervisor that died left for workers that nobody opened again here."""
        if not self._folder.is_dir():
            return
        for folder in self._folder.iterdir():
            if folder.name not in self._open:
                shutil.rmtree(folder, ignore_errors=True)

    async def _serve(
        self, worker_id: str, listener: trio.SocketListener, allowed: Allowlist, scope: trio.CancelScope
    ) -> None:
        slots = trio.Semaphore(self._max_connections)
        log = _Refusals(worker_id)
        with scope:
            async with listener, trio.open_nursery() as nursery:
                while True:
                    await slots.acquire()
                    try:
                        stream = await listener.accept()
                    except OSError as error:  # out of descriptors: those that end give theirs back
                        _log.warning("egress.accept_failed", worker_id=worker_id, reason=str(error))
                        await trio.sleep(0.1)
                        slots.release()
                        continue
                    nursery.start_soon(self._serve_one, log, stream, allowed, slots)

    async def _serve_one(
        self, log: _Refusals, stream: trio.SocketStream, allowed: Allowlist, slots: trio.Semaphore
    ) -> None:
        try:
            async with stream:
                refused = await serve_connection(stream, allowed, self._clocks)
            if refused is not None:
                log.add(refused)
        except Exception:
            _log.exception("egress.internal_error", worker_id=log.worker_id)
        finally:
            slots.release()


class _Refusals:
    """Tells the log of a worker's first refusals."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self._number = 0

    def add(self, reason: str) -> None:
        self._number += 1
        if self._number <= LOGGED_REFUSALS:
            last = {"further": "not logged"} if self._number == LOGGED_REFUSALS else {}
            _log.info("egress.refused", worker_id=self.worker_id, reason=reason[:300], **last)


def _listen(folder: Path, user: int | None) -> trio.SocketListener:
    """Bound through the folder's descriptor: a socket's path may have 107 bytes only, and folders are deeper."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.setblocking(False)
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            path = f"/proc/self/fd/{descriptor}/{PROXY_SOCKET}"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, 0o600)
            if user is not None:
                os.chown(path, user, user)
        finally:
            os.close(descriptor)
        listener.listen(BACKLOG)
        return trio.SocketListener(trio.socket.from_stdlib_socket(listener))
    except BaseException:
        listener.close()
        raise
