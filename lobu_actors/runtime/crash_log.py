"""How often each key of a registry has crashed, and which keys are in quarantine.

Owns one bounded history for each key that crashed recently. Pure: it is given the time. Knows no actor.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

import msgspec

from lobu_actors.runtime.intensity import Intensity, record

__all__ = ["CrashLog"]

K = TypeVar("K", bound=Hashable)


class _Crashes(msgspec.Struct, frozen=True):
    times: tuple[float, ...]
    exceeded: bool


class CrashLog(Generic[K]):
    """Crash histories under one intensity. Forgets a key once its last crash is older than the window."""

    def __init__(self, intensity: Intensity) -> None:
        self._intensity = intensity
        self._by_key: dict[K, _Crashes] = {}  # in the order of the last crash

    def __len__(self) -> int:
        return len(self._by_key)

    def record(self, key: K, now: float) -> bool:
        """Add a crash at `now`, monotonic seconds. True if that is one too many and puts the key in quarantine."""
        self._forget_old(now)
        before = self._by_key.pop(key, _Crashes((), False))
        times, exceeded = record(before.times, now, self._intensity)
        self._by_key[key] = _Crashes(times, exceeded)
        return exceeded

    def is_quarantined(self, key: K, now: float) -> bool:
        """Whether the key's last crash was one too many and a whole window has not passed since."""
        crashes = self._by_key.get(key)
        return crashes is not None and crashes.exceeded and not self._is_old(crashes, now)

    def _forget_old(self, now: float) -> None:
        while self._by_key:
            key = next(iter(self._by_key))
            if not self._is_old(self._by_key[key], now):
                return
            del self._by_key[key]

    def _is_old(self, crashes: _Crashes, now: float) -> bool:
        return now - crashes.times[-1] > self._intensity.within_seconds
