"""How late this event loop is: a task that wakes now and then and says by how much it overslept.

A sample: a loop that stands still for 100 ms once a second is seen one time in ten. It costs a wakeup a second, where
an instrument of trio's would cost something at each step of each task.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

LOOK_SECONDS = 1.0


async def measure_loop_lag(observe: Callable[[float], None]) -> None:
    """Until it is cancelled."""
    while True:
        due = trio.current_time() + LOOK_SECONDS
        await trio.sleep_until(due)
        observe(max(0.0, trio.current_time() - due))
