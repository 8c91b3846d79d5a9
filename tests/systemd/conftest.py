"""A machine with a systemd of its own for each test, or one clear line that says why there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.systemd import harness

WHY_NOT = harness.why_not()


@pytest.fixture
def can_boot() -> None:
    if WHY_NOT is not None:
        pytest.skip(WHY_NOT)


@pytest.fixture
async def off(can_boot: None) -> AsyncIterator[harness.Machine]:
    """A machine that is off."""
    async with harness.machine() as made:
        yield made
