"""The spawner's end of the link: waits for a supervisor, takes its requests, queues replies, notices when it is gone.

Owns the listening socket, the one connection and the queue of replies. Never blocks. At most one supervisor is served;
who connects later replaces who was there, because only the holder of the state directory's lock connects, and the lock
is free only when its holder before is gone. Knows nothing of workers.
"""

import os
import selectors
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from supervisor.spawner import protocol

REQUESTS_PAUSE_AT = 256  # replies not yet sent; more requests are not read until they are
_CREDENTIALS = struct.Struct("3i")


class Uplink:
    """`on_connected` is called when a supervisor came, before its first request is read; `on_lost` when it is gone."""

    def __init__(
        self,
        listener: socket.socket,
        selector: selectors.BaseSelector,
        *,
        on_connected: Callable[[], None],
        on_request: Callable[[protocol.Request], None],
        on_lost: Callable[[], None],
        abandon_seconds: float,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._selector = selector
        self._on_connected = on_connected
        self._on_request = on_request
        self._on_lost = on_lost
        self._abandon_seconds = abandon_seconds
        self._alone_since: float | None = time.monotonic()
        self._link: socket.socket | None = None
        self._events = 0
        self._replies: deque[tuple[bytes, tuple[int, ...]]] = deque()
        selector.register(listener, selectors.EVENT_READ, self._on_listener)

    @property
    def queued(self) -> int:
        """Replies that the supervisor has not taken yet."""
        return len(self._replies)

    @property
    def connected(self) -> bool:
        return self._link is not None

    def patience(self) -> float | None:
        """Seconds until the wait for a supervisor is over; None while there is one."""
        if self._alone_since is None:
            return None
        return max(0.0, self._alone_since + self._abandon_seconds - time.monotonic())

    def reply(self, message: protocol.Reply, descriptors: tuple[int, ...] = ()) -> None:
        """Send or queue; dropped when nobody is there. The descriptors stay the caller's and may be closed at once."""
        if not self.connected:
            return
        data = protocol.encode(message)
        sent = False if self._replies else self._send(data, descriptors)
        if sent is not False:
            return
        try:
            copies = tuple(os.dup(descriptor) for descriptor in descriptors)
        except OSError as error:
            # Out of descriptors. Who connects again is told of all workers anew.
            print(f"spawner: hung up on the supervisor: {error}", file=sys.stderr)
            self.drop()
            return
        self._replies.append((data, copies))
        self._want_what_is_due()

    def flush(self) -> None:
        """Send what the supervisor takes now."""
        while self._replies and self._send(*self._replies[0]):
            _close_all(self._replies.popleft()[1])
        self._want_what_is_due()

    def _send(self, data: bytes, descriptors: tuple[int, ...]) -> bool | None:
        """False: not now. None: nobody is there any more."""
        if self._link is None:
            return None
        try:
            socket.send_fds(self._link, [data], list(descriptors))
        except BlockingIOError:
            return False
        except OSError:  # it is gone
            self.drop()
            return None
        return True

    def _want_what_is_due(self) -> None:
        events = selectors.EVENT_READ if len(self._replies) < REQUESTS_PAUSE_AT else 0
        self._want(events | (selectors.EVENT_WRITE if self._replies else 0))

    def stop_taking(self) -> None:
        """Take neither requests nor supervisors any more; replies still go out through `flush`."""
        self._listener.close()
        if self._events:
            self._selector.unregister(self._link_here())
            self._events = 0

    def drop(self) -> None:
        """Close the connection; what was not sent is lost, and the wait for the next supervisor begins.

        What a supervisor had asked before it died is still done: it may be what its successor must know.
        """
        if self._link is None:
            return
        link, self._link = self._link, None
        if self._events:
            self._selector.unregister(link)
            self._events = 0
        self._alone_since = time.monotonic()
        while self._replies:
            _close_all(self._replies.popleft()[1])
        with link, suppress(BlockingIOError):
            while (request := _next_request(link)) is not None:
                self._on_request(request)
        self._on_lost()

    def _link_here(self) -> socket.socket:
        assert self._link is not None
        return self._link

    def _want(self, events: int) -> None:
        """Nothing to wait for is possible only while replies wait, and then there is EVENT_WRITE."""
        if self._link is not None and self._events not in (0, events):
            self._events = events
            self._selector.modify(self._link, events, self._on_link)

    def _on_listener(self, events: int) -> None:
        try:
            link, _address = self._listener.accept()
        except OSError:  # whoever connected is gone
            return
        if not _is_allowed(link):
            print("spawner: refused a connection of another user", file=sys.stderr)
            link.close()
            return
        self.drop()
        link.setblocking(False)
        self._link = link
        self._alone_since = None
        self._events = selectors.EVENT_READ
        self._selector.register(link, self._events, self._on_link)
        self._on_connected()

    def _on_link(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self.flush()
        if not events & selectors.EVENT_READ or self._link is None:
            return
        try:
            request = _next_request(self._link)
        except BlockingIOError:
            return
        if request is None:
            self.drop()
        else:
            self._on_request(request)


def _next_request(link: socket.socket) -> protocol.Request | None:
    """None at its end. Raises BlockingIOError when nothing is there. A supervisor of another version is told by the end
    of the link, instead of waiting for an answer."""
    try:
        data = link.recv(protocol.MAX_MESSAGE_BYTES)
        return protocol.decode_request(data) if data else None
    except ConnectionError:
        return None
    except protocol.ProtocolError as error:
        print(f"spawner: {error}", file=sys.stderr)
        return None


def _is_allowed(link: socket.socket) -> bool:
    """The same user, or root: whoever may connect may have any program executed."""
    credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _pid, uid, _gid = _CREDENTIALS.unpack(credentials)
    return uid in (0, os.geteuid())


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
