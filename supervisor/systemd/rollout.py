"""A rolling restart of this host's units: each edge in turn, then the supervisor; each must be ready before the next.

The spawner is left alone: its workers, and so the turns, outlive it all. `systemctl restart` comes back when the new
process said that it is ready (Type=notify), or failed to.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

from supervisor.config.errors import ConfigError

SUPERVISOR = "lobu-supervisor.service"
EDGES = "lobu-edge@*.service"
RESTART_SECONDS = 300.0  # systemd's own limits end it before
LIST_SECONDS = 30.0


class RolloutFailed(Exception):
    """A unit did not come back; those behind it in the order were not touched."""


def roll(tell: Callable[[str], None]) -> list[str]:
    """Gives the units that were restarted, in order; `tell` hears of each. Raises ConfigError, RolloutFailed."""
    if shutil.which("systemctl") is None:
        raise ConfigError("there is no systemctl here; `lobu rollout plan` says what to do without systemd.")
    units = [*running_edges(), SUPERVISOR]
    for number, unit in enumerate(units, start=1):
        done = subprocess.run(
            ["systemctl", "restart", unit], capture_output=True, text=True, timeout=RESTART_SECONDS, check=False
        )
        if done.returncode != 0:
            rest = ", ".join(units[number:]) or "nothing"
            raise RolloutFailed(
                f"{unit} did not become ready again: {' '.join(done.stderr.split())} "
                f"Not touched: {rest}. See `journalctl -u {unit}`."
            )
        tell(f"{number}/{len(units)} {unit} is ready")
    return units


def running_edges() -> list[str]:
    """The edges of this host that are active, in order. Raises ConfigError when there are none."""
    words = ["systemctl", "list-units", "--plain", "--no-legend", "--state=active", EDGES]
    done = subprocess.run(words, capture_output=True, text=True, timeout=LIST_SECONDS, check=False)
    found = sorted(line.split()[0] for line in done.stdout.splitlines() if line.strip())
    if not found:
        raise ConfigError("no edge is active here; start them with `systemctl start lobu.target`.")
    return found
