"""What a worker's limits and user are checked for before the fork. What they do is in tests/integration/sandbox."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from supervisor.spawner import confine
from supervisor.spawner.confine import ConfineError, checked


def test_limits_are_never_above_the_spawners_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda number: (10, 100))
    assert checked({"RLIMIT_NOFILE": 50, "RLIMIT_FSIZE": 500}, None).limits == (
        (resource.RLIMIT_NOFILE, 50, 50),
        (resource.RLIMIT_FSIZE, 100, 100),
    )


def test_cpu_time_warns_before_it_kills() -> None:
    assert checked({"RLIMIT_CPU": 7}, None).limits == ((resource.RLIMIT_CPU, 7, 8),)


@pytest.mark.parametrize("limits", [{"RLIMIT_MAGIC": 1}, {"getrlimit": 1}, {"RLIMIT_NOFILE": -1}])
def test_unknown_limits_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ConfineError, match="no resource limit"):
        checked(limits, None)


@pytest.mark.parametrize("user", [[0, 0], [0, 5], [5], [5, 5, 5], [-1, 5], [2**32 - 1, 5]])
def test_no_worker_is_given_root_or_nonsense(user: list[int]) -> None:
    with pytest.raises(ConfineError, match="no uid and gid"):
        checked({}, user)


def test_a_system_that_takes_no_score_starts_workers_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container whose /proc is read-only."""

    def read_only(path: str, mode: str) -> None:
        raise OSError(errno.EROFS, "Read-only file system", path)

    monkeypatch.setattr(confine, "open", read_only, raising=False)
    monkeypatch.setattr(os, "nice", lambda by: by)
    monkeypatch.setattr(confine, "_KEYCTL", None)
    confine.apply(confine.Confinement((), None))


def test_only_root_gives_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfineError, match="Only root"):
        checked({}, [5, 5])
