"""Attacks of a hostile worker: what it does, how its person meets it, and how its turn must end.

What they do themselves is in `tests/workers/hostile.py`, by their habit's name.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs
import trio

from lobu_actors.contract.ids import new_id
from tests.system.lobu_process import LobuRun
from tests.system.sse_client import Conversation, Frame, Transcript

TURN_SECONDS = 90.0  # longer than any deadline
CRASHES = 4  # of one conversation's worker that are no loop yet

Act = Callable[["Scene"], Awaitable[Frame]]


@attrs.frozen
class Scene:
    run: LobuRun
    conversation: Conversation
    neighbour_worker: str  # a living worker's id


@attrs.frozen
class Attack:
    """`habit` is what the program is told, and the name of its agent. `code` is how its
    turn must end: an error's code, or the name of another terminal event."""

    group: str
    habit: str
    what: str
    code: str
    bounded_by: str
    act: Act


def says(content: str) -> Act:
    async def act(scene: Scene) -> Frame:
        return await scene.conversation.ask(content, TURN_SECONDS)

    return act


async def cancelled(scene: Scene) -> Frame:
    """Its person gives up as soon as it speaks."""
    conversation, transcript, message_id = scene.conversation, Transcript(), new_id()
    with trio.fail_after(TURN_SECONDS):
        await conversation.send("go", message_id)
        await transcript.follow(conversation, lambda: transcript.texts.get(message_id))
        answer = await conversation.client.call("POST", f"{conversation.path}/cancel", {"messageId": message_id})
        assert answer.status == 202, answer
        await transcript.follow(conversation, lambda: message_id in transcript.terminals)
    return transcript.terminals[message_id]


async def steered(scene: Scene) -> Frame:
    """It is told more and more while it reads nothing."""
    conversation, transcript, message_id = scene.conversation, Transcript(), new_id()
    with trio.fail_after(TURN_SECONDS):
        await conversation.send("go", message_id)
        await transcript.follow(conversation, lambda: transcript.texts.get(message_id))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transcript.follow, conversation, lambda: message_id in transcript.terminals)
            while message_id not in transcript.terminals:
                await conversation.post("x" * 900_000, onBusy="steer")
            for ended in transcript.terminals.values():
                assert ended.data.get("errorCode") == "WORKER_UNRESPONSIVE", ended
    return transcript.terminals[message_id]


async def again_and_again(scene: Scene) -> Frame:
    for number in range(CRASHES + 1):
        frame = await scene.conversation.ask(str(number), TURN_SECONDS)
        assert frame.data["errorCode"] == "WORKER_CRASHED", frame
    return await scene.conversation.ask("1", TURN_SECONDS)


async def as_another(scene: Scene) -> Frame:
    return await scene.conversation.ask(scene.neighbour_worker, TURN_SECONDS)


GO = says("go")
ATTACKS = (
    Attack("processes", "fork_bomb", "fork bomb", "FIRST_OUTPUT_TIMEOUT", "`processes` (64), then the clock", GO),
    Attack("processes", "session_bomb", "fork bomb, each in a session of its own", "FIRST_OUTPUT_TIMEOUT",
        "`processes` (64), then the clock", GO),
    Attack("processes", "cpu_hog", "eight busy processes", "FIRST_OUTPUT_TIMEOUT", "priority, then the clock", GO),
    Attack("processes", "deaf", "ignores SIGTERM and every frame; its person cancels", "cancelled",
        "`cancel_grace_seconds` (0.5), then SIGKILL", cancelled),
    Attack("processes", "daemon", "daemonises with an empty environment, exits 0", "WORKER_CRASHED",
        "SIGKILL to what it left", GO),
    Attack("processes", "daemon_of_another", "daemonises and names a neighbour's worker as its own", "WORKER_CRASHED",
        "SIGKILL to what it left", as_another),
    Attack("processes", "crashes", f"exits with another code each turn, {CRASHES + 1} times", "WORKER_CRASH_LOOP",
        f"`crash_loop_crashes` ({CRASHES})", again_and_again),
    Attack("memory", "memory_hog", "memory hog", "WORKER_CRASHED", "`memory_mb` (128)", GO),
    Attack("memory", "shared_memory", "1 GiB of shared memory", "FIRST_OUTPUT_TIMEOUT",
        "the clock; nothing limits it", GO),
    Attack("files", "disk_filler", "disk filler", "WORKSPACE_FULL", "`workspace_max_bytes` (200 MB)", GO),
    Attack("files", "million_files", "a million small files", "WORKSPACE_FULL", "`workspace_max_files` (2,000)", GO),
    Attack("files", "link_storm", "1,500 links in `output/`", "complete", "1,000 are looked at, none is followed", GO),
    Attack("session file", "session_link", "session file is a link", "SESSION_FILE_INVALID", "never followed", GO),
    Attack("session file", "session_fifo", "session file is a pipe", "SESSION_FILE_INVALID", "never waited for", GO),
    Attack("session file", "session_device", "session file is a device", "complete", "its user may not make one", GO),
    Attack("session file", "session_sparse", "session file is 3 GiB of nothing", "SESSION_FILE_INVALID",
        "`session_file_max_bytes`", GO),
    Attack("socket and output", "text_flood", "floods its socket with text", "REPLY_TOO_LARGE",
        "`reply_max_bytes` (1 MB)", GO),
    Attack("socket and output", "question_flood", "asks without end", "TOO_MANY_QUESTIONS",
        "`run_max_open_questions` (100)", GO),
    Attack("socket and output", "frame_flood", "floods its socket with status frames", "TURN_TIMEOUT",
        "5,000 lines a second are read, the clock", GO),
    Attack("socket and output", "stale_flood", "floods its socket with frames that are dropped", "FIRST_OUTPUT_TIMEOUT",
        "5,000 lines a second are read, the clock", GO),
    Attack("socket and output", "never_reads", "never reads, is sent 900 kB a message", "WORKER_UNRESPONSIVE",
        "its send buffer (16 MiB)",
        steered),
    Attack("socket and output", "output_flood", "floods stdout", "FIRST_OUTPUT_TIMEOUT",
        "lines above a rate are dropped, the clock", GO),
)  # fmt: skip
