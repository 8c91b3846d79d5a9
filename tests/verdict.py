"""What a campaign says at its end, in the same words whichever it was."""

from __future__ import annotations

from collections.abc import Sequence

SHOWN = 20  # of the faults


def verdict(faults: Sequence[str]) -> list[str]:
    """Its last lines: the first of the faults, and whether there were any."""
    ending = f"{len(faults)} faults" if faults else "every promise kept"
    return [*(f"FAULT {fault}" for fault in faults[:SHOWN]), ending]
