"""Inside a sandbox: `relay.py PORT SOCKET -- COMMAND…` listens on 127.0.0.1:PORT, passes each connection on to the
unix socket, and becomes the command.

The only network in there is this loopback, and the only way out the socket, behind which the supervisor's proxy judges.
Nothing depends on this program being honest: it runs with the worker's rights, and a worker may use the socket itself.
Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys

PIECE_BYTES = 64 * 1024
BACKLOG = 64


class _Pump:
    """One direction of a connection: at most one piece waits."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.waiting = b""
        self.reads = True

    def read(self) -> None:
        try:
            self.waiting = self.source.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        if not self.waiting:
            self.reads = False
            self.sink.shutdown(socket.SHUT_WR)
        self.write()

    def write(self) -> None:
        if self.waiting:
            with contextlib.suppress(BlockingIOError):
                self.waiting = self.waiting[self.sink.send(self.waiting) :]


class Relay:
    """All connections, in one thread."""

    def __init__(self, listener: socket.socket, path: str) -> None:
        self._path = path
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._pumps: dict[socket.socket, tuple[_Pump, _Pump]] = {}

    def run(self) -> None:
        while True:
            for key, events in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._pumps:
                    self._move(key.fileobj, events)

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(self._path)
        except OSError:
            near.close()
            far.close()
            return
        near.setblocking(False)
        far.setblocking(False)
        up, down = _Pump(near, far), _Pump(far, near)
        self._pumps[near], self._pumps[far] = (up, down), (down, up)
        self._watch(near)
        self._watch(far)

    def _move(self, place: socket.socket, events: int) -> None:
        outgoing, incoming = self._pumps[place]  # as seen from here: what it says, what it is told
        try:
            if events & selectors.EVENT_READ:
                outgoing.read()
            if events & selectors.EVENT_WRITE:
                incoming.write()
        except OSError:
            self._drop(place)
            return
        if not any(pump.reads or pump.waiting for pump in (outgoing, incoming)):
            self._drop(place)
            return
        self._watch(place)
        self._watch(outgoing.sink)

    def _watch(self, place: socket.socket) -> None:
        outgoing, incoming = self._pumps[place]
        events = selectors.EVENT_READ if outgoing.reads and not outgoing.waiting else 0
        events |= selectors.EVENT_WRITE if incoming.waiting else 0
        known = place in self._selector.get_map()
        if events and known:
            self._selector.modify(place, events)
        elif events:
            self._selector.register(place, events)
        elif known:
            self._selector.unregister(place)

    def _drop(self, place: socket.socket) -> None:
        for end in (place, self._pumps[place][0].sink):
            if end in self._selector.get_map():
                self._selector.unregister(end)
            del self._pumps[end]
            end.close()


def main() -> None:
    port, path, _, *command = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=BACKLOG)
    listener.setblocking(False)
    child = os.fork()
    if child == 0:
        # A grandchild, so that the command has no child that it did not start.
        if os.fork() == 0:
            _serve(listener, path)
        os._exit(0)
    os.waitpid(child, 0)
    listener.close()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"The program {command[0]!r} could not be started: {error.strerror}.", file=sys.stderr)
        os._exit(127)


def _serve(listener: socket.socket, path: str) -> None:
    worker_link = os.environ.get("LOBU_WORKER_FD", "")
    if worker_link.isdecimal():
        os.close(int(worker_link))  # held here, the worker's end of the link would never close
    try:
        Relay(listener, path).run()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
