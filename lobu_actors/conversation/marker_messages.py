"""What a conversation's actor wants done, and is told, about markers that contradict other rows. Part of `messages`."""

from __future__ import annotations

import attrs

from lobu_actors.store.corrupt import CorruptMarker
from lobu_actors.store.records import Turn


@attrs.frozen
class MendMarkers:
    """Put right what these markers contradict, then look again. Answers MarkersMended or LeaseLost."""

    turn_ids: tuple[str, ...]


@attrs.frozen
class MarkersMended:
    """What is owed now. What is corrupt still was seen to before."""

    owed: tuple[Turn | CorruptMarker, ...]
