"""The parser of session files: what pi and our workers write, what a crash leaves, and any bytes at all."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lobu_actors.contract.session_file import SessionParser, parse_session, usage_totals, whole_length
from lobu_actors.worker.session import SessionFile


def line(**entry: Any) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def message(id: str | None, parent: str | None, role: str, text: str, **further: Any) -> bytes:
    body = {"role": role, "content": [{"type": "text", "text": text}], **further}
    return line(type="message", id=id, parentId=parent, timestamp="2026-11-20T10:00:00.000Z", message=body)


HEADER = line(type="session", version=3, id="s", timestamp="2026-11-20T10:00:00.000Z", cwd="/w")


def contents(data: bytes) -> list[str]:
    return [found.content for found in parse_session(data).messages]


def test_a_pi_session_projects_to_its_messages() -> None:
    data = (
        HEADER
        + line(type="model_change", id="a", parentId=None, provider="p", modelId="m")
        + message("b", "a", "user", "hello", timestamp=1_700_000_000_123)
        + line(type="some_future_type", id="c", parentId="b", whatever={"x": [1]})
        + message(
            "d",
            "c",
            "assistant",
            "hi",
            model="m",
            provider="p",
            stopReason="stop",
            usage={"input": 3, "cost": {"total": 0.5}},
        )
    )
    parsed = parse_session(data)
    assert (parsed.entries, parsed.skipped_lines, parsed.whole_bytes, parsed.torn_bytes) == (5, 0, len(data), 0)
    user, assistant = (found.to_json() for found in parsed.messages)
    assert user == {"id": "b", "role": "user", "content": "hello", "timestamp": 1_700_000_000_123}
    assert assistant == {
        "id": "d", "role": "assistant", "content": "hi", "timestamp": 1_795_168_800_000, "model": "m", "provider": "p",
        "stopReason": "stop", "usage": {"input": 3, "cost": {"total": 0.5}},
    }  # fmt: skip
    assert usage_totals(parsed.messages) == {"input": 3}


def test_the_branch_that_ends_in_the_last_entry_is_the_conversation() -> None:
    trunk = HEADER + message("a", None, "user", "one") + message("b", "a", "assistant", "first answer")
    assert contents(trunk + message("c", "a", "assistant", "second answer")) == ["one", "second answer"]
    assert contents(trunk + message("c", None, "user", "afresh")) == ["afresh"]


def test_a_damaged_link_hides_nothing() -> None:
    assert contents(message("a", None, "user", "one") + message("b", "lost", "user", "two")) == ["one", "two"]
    circle = message("a", "b", "user", "one") + message("b", "a", "user", "two") + message("a", "a", "user", "three")
    assert contents(circle) == ["one", "three"]


def test_version_1_has_no_ids_and_goes_line_by_line() -> None:
    data = line(type="message", message={"role": "user", "content": "a"})
    data += line(type="message", message={"role": "assistant", "content": "b"})
    found = parse_session(data).messages
    assert [(m.id, m.content) for m in found] == [("at-0", "a"), (f"at-{found[1].offset}", "b")]


def test_bad_lines_are_skipped_and_counted_and_a_torn_one_is_not_there_yet() -> None:
    good = message("a", None, "user", "one")
    torn = message("b", "a", "assistant", "two")[:-5]
    parsed = parse_session(b"\xff\xfe\n" + b"[1]\n" + b"{}{}\n" + b"\n" + good + b"[" * 100_000 + b"\n" + torn)
    assert [m.content for m in parsed.messages] == ["one"]
    assert (parsed.entries, parsed.skipped_lines, parsed.torn_bytes) == (1, 4, len(torn))


def test_a_line_or_a_number_of_entries_over_the_bound_is_skipped() -> None:
    parser = SessionParser(max_line_bytes=200, max_entries=2)
    parser.feed(message("a", None, "user", "x" * 500) + message("b", None, "user", "y"))
    parser.feed(line(type="label", id="c", parentId="b") + line(type="label", id="d", parentId="c"))
    parsed = parser.finish()
    assert [m.content for m in parsed.messages] == ["y"]
    assert (parsed.entries, parsed.skipped_lines) == (2, 2)


def test_it_reads_what_our_own_workers_write(tmp_path: Any) -> None:
    path = tmp_path / "session.jsonl"
    session = SessionFile(str(path), str(tmp_path))
    for number in range(2):
        session.begin([f"q{number}"], again=False)
        session.finish(f"a{number}", "prov/mod", {"output": 7})
    parsed = parse_session(path.read_bytes())
    assert [(m.role, m.content) for m in parsed.messages] == [
        ("user", "q0"), ("assistant", "a0"), ("user", "q1"), ("assistant", "a1"),
    ]  # fmt: skip
    assert parsed.messages[1].model == "mod"
    assert usage_totals(parsed.messages) == {"output": 14}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[]), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["a", "b", "c", None, 1, ""])
ENTRIES = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "session", "label", None])},
    optional={
        "id": NAMES,
        "parentId": NAMES,
        "timestamp": JSON_VALUES,
        "message": JSON_VALUES
        | st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "", 3])},
            optional={"content": JSON_VALUES, "usage": JSON_VALUES, "timestamp": JSON_VALUES, "model": JSON_VALUES},
        ),
    },
).map(lambda entry: json.dumps(entry).encode())
FILES = st.lists(ENTRIES | st.binary(max_size=20), max_size=12).map(b"\n".join) | st.binary(max_size=200)


@given(data=FILES, cuts=st.lists(st.integers(0, 400), max_size=5))
def test_any_bytes_in_any_pieces_give_one_answer_that_can_be_sent(data: bytes, cuts: list[int]) -> None:
    whole = parse_session(data)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    assert parse_session([data[a:b] for a, b in itertools.pairwise(edges)]) == whole
    assert whole.whole_bytes + whole.torn_bytes == len(data)
    assert whole.whole_bytes == whole_length(data)
    assert whole.entries + whole.skipped_lines <= data.count(b"\n")
    text = json.dumps([m.to_json() for m in whole.messages], allow_nan=False, ensure_ascii=False)
    text.encode()
    offsets = [m.offset for m in whole.messages]
    assert offsets == sorted(set(offsets))


@given(data=FILES, more=FILES)
def test_what_has_ended_stays_where_it_is_while_the_file_grows(data: bytes, more: bytes) -> None:
    """Offsets of messages never change, so a cursor made from one stays good."""
    before = {m.offset: m for m in parse_session(data).messages}
    after = parse_session(data[: whole_length(data)] + more)
    for message in after.messages:
        if message.offset < whole_length(data) and message.offset in before:
            assert message == before[message.offset]
