"""Names of conversations. Clients and schedulers make them too, so their form is exact."""

from __future__ import annotations

import pytest

from lobu_actors.contract.ids import conversation_key, is_conversation_key, watcher_conversation_key


@pytest.mark.parametrize(
    ("thread", "key"), [(None, "echo_ann_acme"), ("", "echo_ann_acme"), ("t-1", "echo_ann_acme_t-1")]
)
def test_a_conversations_name(thread: str | None, key: str) -> None:
    assert conversation_key("echo", "ann", "acme", thread) == key
    assert is_conversation_key(key)


def test_a_scheduled_runs_name_has_no_organization_in_it() -> None:
    assert watcher_conversation_key("echo", "w1", "r1") == "echo_watcher_w1_run_r1"
    assert is_conversation_key(watcher_conversation_key("a.b", "w:1", "0190-ff"))
