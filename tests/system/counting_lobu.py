"""`lobu`, with each write to a socket counted by whom it is for: a letter each in the file COUNTED_WRITES.

`python tests/system/counting_lobu.py run …`. libpq's writes are its own, and not seen here.
"""

import os
import socket
import sys
from typing import Any

if __name__ == "__main__":
    counted = os.open(os.environ["COUNTED_WRITES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    send_as_it_was: Any = socket.socket.send

    def send(self: socket.socket, data: bytes, *rest: int) -> int:
        if self.family == socket.AF_INET:
            os.write(counted, b"c")  # to a client
        elif bytes(data) == b"\0":
            os.write(counted, b"t")  # trio to itself: a thread has something for the loop
        else:
            os.write(counted, b"w")  # to a worker, or to the spawner
        sent: int = send_as_it_was(self, data, *rest)
        return sent

    socket.socket.send = send  # type: ignore[assignment]  # before trio takes it
    from supervisor.cli.main import main

    sys.exit(main())
