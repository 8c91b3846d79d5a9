"""The SSE decoder: any line ends, any cutting into chunks, nothing without data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lobu_actors.client import sse
from lobu_actors.client.sse import FrameTooLarge, SseDecoder, SseFrame

TEXT = (
    "\ufeffretry: 7\n: ping\n\nevent: a\nid: 1\ndata: {é\n\nid: 2\n\nevent: lone\n\n"
    "data: x\ndata:  y\u2028\x0b\n\ndata\n\ndata: cut"
)
FRAMES = [SseFrame("a", "{é", "1"), SseFrame("message", "x\n y\u2028\x0b", None), SseFrame("message", "", None)]


@given(st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(1, 9), min_size=1))
def test_any_cut_gives_the_same_frames(ending: str, sizes: list[int]) -> None:
    data = TEXT.replace("\n", ending).encode()
    decoder, frames, at, turn = SseDecoder(), [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        frames += decoder.feed(data[at : at + size])
        at, turn = at + size, turn + 1
    assert frames == FRAMES
    assert decoder.retry_ms == 7


def test_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_FRAME_CHARACTERS", 100)
    decoder = SseDecoder()
    for _ in range(10):
        assert decoder.feed(b"data: 1234\n\n" * 5)
    decoder.feed(b"x" * 99)
    with pytest.raises(FrameTooLarge):
        decoder.feed(b"xx")
