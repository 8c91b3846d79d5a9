"""Skips what needs networks of its own where the machine cannot make them."""

from __future__ import annotations

import pytest

from tests.cluster.network import why_not


@pytest.fixture(scope="session", autouse=True)
def networks() -> None:
    if (reason := why_not()) is not None:
        pytest.skip(f"no network can be made here: {reason}")
