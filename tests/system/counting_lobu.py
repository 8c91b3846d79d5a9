"""`lobu`, with each write to a socket counted by whom it is for: a letter each in the file COUNTED_WRITES.

`python tests/system/counting_lobu.py run …`. libpq's writes are its own, and not seen here.
"""

import os
import socket
import stat
import sys
from typing import Any

if __name__ == "__main__":
    counted = os.open(os.environ["COUNTED_WRITES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    send_as_it_was: Any = socket.socket.send
    write_as_it_was: Any = os.write

    def send(self: socket.socket, data: bytes, *rest: int) -> int:
        if self.family == socket.AF_INET:
            write_as_it_was(counted, b"c")  # to a client
        elif bytes(data) == b"\0":
            write_as_it_was(counted, b"t")  # trio to itself: a thread has something for the loop
        elif self.getpeername():
            write_as_it_was(counted, b"s")  # to the spawner, whose socket has a name
        else:
            write_as_it_was(counted, b"w")  # to a worker
        sent: int = send_as_it_was(self, data, *rest)
        return sent

    def write(descriptor: int, data: bytes) -> int:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            with socket.socket(fileno=os.dup(descriptor)) as there:
                if there.family == socket.AF_INET:
                    write_as_it_was(counted, b"c")
        written: int = write_as_it_was(descriptor, data)
        return written

    socket.socket.send = send  # type: ignore[assignment]  # before trio takes it
    os.write = write  # type: ignore[assignment]
    from supervisor.cli.main import main

    sys.exit(main())
