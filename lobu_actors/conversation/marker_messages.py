"""What a conversation's actor wants done, and is told, about markers that contradict other rows. Part of `messages`."""

from __future__ import annotations

import msgspec

from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.records import Turn


class MendMarkers(msgspec.Struct, frozen=True):
    """Put right what these markers contradict, then look again. Answers MarkersMended or LeaseLost."""

    turn_ids: tuple[str, ...]


class MarkersMended(msgspec.Struct, frozen=True):
    """What is owed now. What is corrupt still was seen to before."""

    owed: tuple[Turn | CorruptMarker, ...]
