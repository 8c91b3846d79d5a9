"""A process that has loaded a worker program and forks workers from it, on the request of a spawner.

The program runs as always until it calls `serve`, which parks it here when LOBU_ZYGOTE_FD names a SOCK_SEQPACKET
socket. Each message is a JSON object. From the spawner: an order (`newborn.Order`) with two descriptors, the worker's
socket and the end of its log. To the spawner: `parked` or `unfit` once, then for each order `forked` or `failed`, or
`stale`, after which this process ends: a file that it was loaded from has been changed.

Who waits for the next order is the next worker itself: it is forked before, so that nobody waits for a fork. Its parent
is a fork too, which ends at once, so that it is the child of the spawner, a subreaper. As soon as it has its order it
says so to the zygote, which forks the next one. It tells the spawner of itself once it is all that it has to be: a
signal to its group reaches it from then on.
"""

import gc
import json
import os
import socket
import sys
import time
from typing import NoReturn

from lobu_actors.worker import environ_block, fitness, newborn
from lobu_actors.worker.sources import Sources

VARIABLE = "LOBU_ZYGOTE_FD"
MAX_ORDER_BYTES = 256 * 1024
CHECK_SECONDS = 0.5  # the files are looked at this often at most
_TAKEN, _TAKEN_AND_CHECKED = b"t", b"c"  # what the zygote is told by the one that waited


class _Zygote:
    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._block = environ_block.find()
        self._sources = Sources()
        self._checked_at = 0.0

    def try_out(self) -> bool:
        """True in the fork that is tried out. Raises Unfit."""
        if path := self._sources.changed_while_loading():
            raise fitness.Unfit(f"{path} was changed while it was loaded")
        fitness.check_process(self._link.fileno())
        return fitness.try_fork(self._become_trial)

    def wait_for_orders(self) -> None:
        """Returns in each worker. The zygote itself ends here when the spawner is gone."""
        while True:
            told, tells = os.pipe()
            pid = os.fork()
            if pid == 0:
                if os.fork():
                    os._exit(0)
                os.close(told)  # the other end of `tells` is the zygote's alone
                return self._take_order(tells)
            os.close(tells)
            os.waitpid(pid, 0)
            word = os.read(told, 1)
            os.close(told)
            if word == _TAKEN_AND_CHECKED:
                self._checked_at = time.monotonic()
            elif word != _TAKEN:  # it ended: so did the spawner, or the code was changed, or it was killed
                os._exit(0)

    def tell(self, **message: object) -> None:
        try:
            self._link.send(json.dumps(message).encode())
        except OSError:
            os._exit(0)  # the spawner is gone, or has given this process up

    def _take_order(self, tells: int) -> None:
        data, descriptors, _flags, _address = socket.recv_fds(self._link, MAX_ORDER_BYTES, 2, socket.MSG_CMSG_CLOEXEC)
        if not data:
            os._exit(0)
        check = time.monotonic() - self._checked_at >= CHECK_SECONDS
        if check and self._sources.changed():
            self.tell(type="stale")
            os._exit(0)
        os.write(tells, _TAKEN_AND_CHECKED if check else _TAKEN)
        order = newborn.Order(**json.loads(data))
        try:
            newborn.become_worker(order, descriptors[0], descriptors[1], self._link.fileno(), self._block)
        except (OSError, ValueError) as error:
            self.tell(type="failed", worker_id=order.worker_id, reason=str(error))
            os._exit(1)
        self.tell(type="forked", worker_id=order.worker_id, pid=os.getpid())
        self._link.close()

    def _become_trial(self, worker_socket: int) -> None:
        environment = dict(os.environ) | {
            "LOBU_WORKER_FD": str(newborn.WORKER_FD),
            "LOBU_WORKER_ID": fitness.TRIAL_ID,
            "WORKSPACE_DIR": "/",
        }
        del environment[VARIABLE]
        order = newborn.Order(fitness.TRIAL_ID, environment, "/", [], None)
        self._link.detach()  # closed with all else
        newborn.become_worker(order, worker_socket, 2, newborn.NONE, self._block)


def park() -> None:
    """Serve orders on the descriptor that LOBU_ZYGOTE_FD names. Returns in each worker, which is then to serve."""
    link = socket.socket(fileno=int(os.environ[VARIABLE]))
    link.set_inheritable(False)
    zygote = _Zygote(link)
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()
    try:
        if zygote.try_out():
            return
    except fitness.Unfit as unfit:
        _refuse(zygote, str(unfit))
    zygote.tell(type="parked")
    zygote.wait_for_orders()


def _refuse(zygote: _Zygote, reason: str) -> NoReturn:
    zygote.tell(type="unfit", reason=reason)
    os._exit(0)
