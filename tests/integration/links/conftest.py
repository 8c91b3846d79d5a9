"""What tests of links share: no clock of a link ends what a test is about, unless the test sets it."""

from __future__ import annotations

import pytest

from lobu_actors.gateway.link import client, session

PATIENCE_SECONDS = 60.0


@pytest.fixture(autouse=True)
def patient_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long this process, which is all hosts, has to wait for its turn."""
    monkeypatch.setattr(client, "STATUS_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(session, "SILENT_SECONDS", PATIENCE_SECONDS)
