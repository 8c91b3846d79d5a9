"""The single steps of `decide` that a whole-life property cannot pin down: what is dropped, what is counted, codes."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from lobu_actors.contract.frames import Answer, Ask, Complete, Delta, Fail, Heartbeat, Status
from lobu_actors.contract.ids import ConversationRef
from lobu_actors.contract.states import OnBusy, RunStatus, TurnStatus
from lobu_actors.conversation import messages as m
from lobu_actors.conversation import question_messages as asking
from lobu_actors.conversation.clocks import next_deadline
from lobu_actors.conversation.decide import decide
from lobu_actors.conversation.drain_messages import BeginAnew, DrainRequest, LeaseReleased, ReleaseLease
from lobu_actors.conversation.policy import Deadlines, FailurePolicy
from lobu_actors.conversation.standby_messages import OpenRun, StandbySettled, StandbyTaken
from lobu_actors.conversation.state import Limits, Moment, RunPhase, State, WorkerPhase
from lobu_actors.conversation.worker_port import Gone, WorkerFrames, WorkerGone, WorkerReady
from lobu_actors.gateway.protocol import CancelResult
from lobu_actors.store.records import Turn

REF = ConversationRef("org", "echo", "echo_u_org")
START = 1000.0


def turn(number: int = 1, **changes: object) -> Turn:
    at = datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC)
    made = Turn(
        REF, f"t{number}", f"m{number}", "hi", OnBusy.ENQUEUE, {}, TurnStatus.QUEUED, 1, 0, 0, 0, accepted_at=at
    )
    return replace(made, **changes)


def fresh(**changes: object) -> State:
    return replace(State(REF, Deadlines(), FailurePolicy(), Limits(), has_agent=True), **changes)


def tell(state: State, *messages: m.Message, now: float = START) -> tuple[State, list[m.Effect]]:
    effects: list[m.Effect] = []
    for message in messages:
        state, more = decide(state, message, Moment(now, "r1"))
        effects += more
    return state, effects


def ready(capabilities: frozenset[str] = frozenset({"cancel", "ask"})) -> WorkerReady:
    return WorkerReady("w1", 7, 1.0, capabilities)


def running(**changes: object) -> State:
    """A state in which turn 1 runs as r1 in worker w1."""
    state, _ = tell(
        fresh(**changes), m.TurnAccepted(turn()), m.WorkerStarting("w1"), ready(), m.RunBegun("r1"), now=START
    )
    assert state.run is not None
    assert state.run.phase is RunPhase.LIVE
    return state


def frames(*said: object) -> WorkerFrames:
    return WorkerFrames("w1", said)  # type: ignore[arg-type]


def only(effects: list[m.Effect], kind: type) -> list[m.Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def test_a_turn_starts_a_worker_then_a_run_then_is_sent() -> None:
    state, effects = tell(fresh(), m.TurnAccepted(turn()))
    assert effects == [m.StartWorker()]
    state, effects = tell(state, m.WorkerStarting("w1"))
    assert effects == []
    state, effects = tell(state, ready())
    assert effects == [m.BeginRun("r1", (turn(),), 1, 7, 1.0)]
    state, effects = tell(state, m.RunBegun("r1"))
    assert effects == [m.SendTurn("r1", (turn(),), 1)]


def test_frames_of_one_read_are_shown_as_one_text_and_end_the_run_once() -> None:
    _, effects = tell(
        running(),
        frames(
            Delta(run_id="r1", text="a"),
            Delta(run_id="r1", text="b"),
            Complete(run_id="r1", usage={"n": 1}),
            Complete(run_id="r1"),
            Delta(run_id="r1", text="late"),
            Fail(run_id="r1", code="X"),
        ),
    )
    assert effects == [
        m.ShowText("ab"),
        m.FinishTurns("r1", (turn(),), TurnStatus.COMPLETED, RunStatus.COMPLETED, usage={"n": 1}),
        m.Dropped("after terminal"),
        m.Dropped("after terminal"),
        m.Dropped("after terminal"),
    ]


def test_a_frame_of_another_run_is_dropped_and_changes_nothing() -> None:
    state = running()
    after, effects = tell(state, frames(Complete(run_id="r0"), Delta(run_id="r0", text="x")), now=START + 9)
    assert effects == [m.Dropped("other run"), m.Dropped("other run")]
    assert after == state


def test_frames_of_a_worker_that_is_not_ours_are_dropped() -> None:
    state = running()
    assert tell(state, WorkerFrames("w0", (Complete(run_id="r1"),))) == (state, [m.Dropped("stale worker", 1)])


@pytest.mark.parametrize(
    ("gone", "code"),
    [
        (WorkerGone("w1", Gone.EXITED, "", exit_code=1), "WORKER_CRASHED"),
        (WorkerGone("w1", Gone.EXITED, "", exit_code=0), "WORKER_CRASHED"),
        (WorkerGone("w1", Gone.EXITED, "", signal=9), "WORKER_CRASHED"),
        (WorkerGone("w1", Gone.SOCKET_CLOSED, ""), "WORKER_CRASHED"),
        (WorkerGone("w1", Gone.SPAWNER_LOST, ""), "WORKER_CRASHED"),
        (WorkerGone("w1", Gone.PROTOCOL, ""), "WORKER_PROTOCOL_ERROR"),
        (WorkerGone("w1", Gone.STALLED, ""), "WORKER_UNRESPONSIVE"),
        (WorkerGone("w1", Gone.WORKSPACE_FULL, ""), "WORKSPACE_FULL"),
    ],
)
def test_a_worker_that_goes_ends_its_turn_with_the_right_code(gone: WorkerGone, code: str) -> None:
    state, effects = tell(running(), gone)
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert finish.code == code
    state, effects = tell(state, m.TurnsFinished(("t1",)), m.TurnAccepted(turn(2)))
    assert effects == [m.StartWorker()], "the next message gets a fresh worker"


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Gone.NOT_STARTED, "WORKER_STARTUP_FAILED"),
        (Gone.WORKSPACE_FULL, "WORKSPACE_FULL"),
        (Gone.DISK_FULL, "DISK_FULL"),
    ],
)
def test_a_worker_that_does_not_come_up_ends_one_turn_with_the_right_code(reason: str, code: str) -> None:
    _state, effects = tell(
        fresh(), m.TurnAccepted(turn()), m.TurnAccepted(turn(2)), m.WorkerStarting("w1"), WorkerGone("w1", reason, "")
    )
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert (finish.code, finish.turns) == (code, (turn(),))
    assert effects[-1] == m.StartWorker(), "the next one is tried with a fresh worker"


def test_exit_124_is_a_timeout_and_is_tried_again_silently() -> None:
    state, effects = tell(running(), WorkerGone("w1", Gone.EXITED, "", exit_code=124))
    [requeue] = only(effects, m.RequeueTurns)
    assert requeue == m.RequeueTurns("r1", (turn(),), failed=True, code="SESSION_TIMEOUT", exit_status="exit 124")
    again = turn(attempt=2, failures=1)
    state, effects = tell(state, m.TurnsRequeued((again,)))
    assert effects == [], "a backoff first"
    assert next_deadline(state) == START + 1
    state, effects = tell(state, m.Tick(), now=START + 1)
    assert effects == [m.StartWorker()]
    state, _ = tell(state, m.WorkerStarting("w1"), ready(), m.RunBegun("r1"), now=START + 1)
    state, effects = tell(state, WorkerGone("w1", Gone.EXITED, "", exit_code=124), now=START + 2)
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert (finish.code, finish.status) == ("SESSION_TIMEOUT", TurnStatus.TIMEOUT)


def test_a_worker_that_cannot_start_fails_the_oldest_turn_only() -> None:
    state, _ = tell(fresh(), m.TurnAccepted(turn(1)), m.TurnAccepted(turn(2)), m.WorkerStarting("w1"))
    state, effects = tell(state, WorkerGone("w1", Gone.NOT_STARTED, "no such program"))
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert (finish.run_id, finish.turns, finish.code) == (None, (turn(1),), "WORKER_STARTUP_FAILED")
    assert state.queue == (turn(2),)


def test_a_crash_loop_fails_all_that_wait_and_starts_nothing() -> None:
    state = fresh(crashes=tuple(START - n for n in range(11)))
    state, effects = tell(state, m.TurnAccepted(turn()))
    [finish] = effects
    assert isinstance(finish, m.FinishTurns)
    assert finish.code == "WORKER_CRASH_LOOP"
    state, effects = tell(fresh(crashes=state.crashes), m.TurnAccepted(turn()), now=START + 61)
    assert effects == [m.StartWorker()], "the window has passed"


@pytest.mark.parametrize(
    ("said", "after", "code"),
    [
        ((), 15, "WORKER_UNRESPONSIVE"),
        ((Heartbeat(),), 120, "FIRST_OUTPUT_TIMEOUT"),
        ((Heartbeat(), Delta(run_id="r1", text="x")), 301, "NO_PROGRESS"),
        ((Heartbeat(), Status(run_id="r1", status="s", phase="tool", tool="bash")), 601, "TOOL_TIMEOUT"),
    ],
)
def test_each_clock_has_its_code(said: tuple[object, ...], after: int, code: str) -> None:
    state = running()
    if said:
        state, _ = tell(state, frames(*said), now=START + 1)
    for second in range(2, after):  # heartbeats prove life, not progress
        if said:
            state, effects = tell(state, frames(Heartbeat()), m.Tick(), now=START + second)
            assert effects == []
    state, effects = tell(state, m.Tick(), now=START + after)
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert (finish.code, finish.status) == (code, TurnStatus.TIMEOUT)
    assert effects[0] == m.KillWorker()


def test_a_question_stops_all_clocks_but_its_own() -> None:
    state, effects = tell(running(), frames(Ask(run_id="r1", question_id="q", prompt="Sure?", options=["y"])))
    assert effects == [asking.RecordQuestion(turn(), "r1", "r1-0", "q", "Sure?", ("y",))]
    state, effects = tell(state, m.Tick(), now=START + 5000)
    assert effects == [asking.LoadAnswers(("r1-0",))], "nobody told, so look; but no clock has passed"
    state, effects = tell(state, asking.AnswersLoaded((("r1-0", "y"),)), now=START + 5000)
    assert effects == [
        asking.RecordAnswer(turn(), "r1-0", "y"),
        m.SendFrame(Answer(run_id="r1", question_id="q", answer="y")),
    ]
    assert state.run is not None
    assert state.run.started_at == START + 5000, "the turn's clock stood still"
    assert tell(state, asking.QuestionAnswered("r1-0", "y"), now=START + 5001)[1] == [], "handed over once"


def test_several_questions_may_be_open_and_each_has_an_id_of_its_own() -> None:
    ask = Ask(run_id="r1", question_id="same", prompt="?")
    state, effects = tell(running(), frames(ask, ask))
    assert [effect.question_id for effect in effects if isinstance(effect, asking.RecordQuestion)] == ["r1-0", "r1-1"]
    state, _ = tell(state, asking.QuestionAnswered("r1-1", "b"), now=START + 10)
    state, effects = tell(state, m.Tick(), now=START + 86_400)
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert finish.code == "QUESTION_TIMEOUT"


@pytest.mark.parametrize("reason", [Gone.STALE, Gone.SPAWNER_LOST])
def test_another_worker_is_started_when_this_one_was_lost_to_no_fault_of_the_program(reason: str) -> None:
    state, _ = tell(fresh(), m.TurnAccepted(turn()), m.WorkerStarting("w1"))
    state, effects = tell(state, WorkerGone("w1", reason, "it is gone"))
    assert effects[-1] == m.StartWorker()
    assert len(state.crashes) == (reason == Gone.SPAWNER_LOST), "a spawner that dies for ever ends in a crash loop"


def test_cancel_is_bounded_by_its_grace() -> None:
    state, effects = tell(running(), m.CancelRequest("m1"))
    assert isinstance(effects[0], m.SendFrame)
    assert effects[1:] == [m.RequestCancel("r1"), m.Reply(CancelResult.ACCEPTED)], "accepted once it is on record"
    assert next_deadline(state) == START + 5
    state, effects = tell(state, m.Tick(), now=START + 5)
    assert effects[0] == m.KillWorker()
    assert effects[1] == m.RecordCancelStage((turn(),), "worker-stopped")
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert finish.status is TurnStatus.CANCELLED


def test_a_completion_after_an_accepted_cancel_is_a_cancellation() -> None:
    state, _ = tell(running(), m.CancelRequest(None))
    _, effects = tell(state, frames(Complete(run_id="r1", text="done")))
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert finish.status is TurnStatus.CANCELLED


def test_a_worker_without_cancel_is_killed_at_once() -> None:
    state, _ = tell(fresh(), m.TurnAccepted(turn()), m.WorkerStarting("w1"), ready(frozenset()), m.RunBegun("r1"))
    _, effects = tell(state, m.CancelRequest(None))
    assert m.KillWorker() in effects


def test_cancelling_what_is_not_owed_says_so() -> None:
    assert tell(running(), m.CancelRequest("m9"))[1] == [m.Reply(CancelResult.NOTHING_TO_CANCEL)]


def test_drain_begins_nothing_and_hands_over_at_its_end() -> None:
    state, effects = tell(running(), m.TurnAccepted(turn(2)), DrainRequest(START + 20))
    assert effects == []
    state, effects = tell(state, m.Tick(), now=START + 20)
    assert m.RequeueTurns("r1", (turn(),), failed=False, code="DRAINED") in effects


def test_what_is_being_stopped_when_the_drain_ends_is_looked_at_when_its_grace_ends() -> None:
    state, _ = tell(running(), DrainRequest(START + 1), m.CancelRequest("m1"))
    state, effects = tell(state, m.Tick(), now=START + 1)
    assert (effects, next_deadline(state)) == ([], START + 5)


def test_an_actor_looks_at_no_clock_while_an_edge_commits() -> None:
    state, _ = tell(fresh(), m.TurnAccepted(turn(0)), m.WorkerStarting("w1"), ready(), m.RunBegun("r1"))
    state, _ = tell(state, frames(Complete(run_id="r1")), m.TurnsFinished(("t0",)), StandbyTaken())
    state, effects = tell(state, m.TurnAccepted(turn(2)))
    assert (effects, next_deadline(state)) == ([], None), "what it waits for is told to it"


def test_drain_gives_up_what_does_not_run() -> None:
    """At once: what is owed goes on at another host while other runs here still use their grace."""
    state, effects = tell(fresh(), DrainRequest(START + 20))
    assert effects == [ReleaseLease(owes=False)]
    state, effects = tell(fresh(), m.TurnAccepted(turn()), m.WorkerStarting("w1"), DrainRequest(START + 20))
    assert effects[-2:] == [m.ShutdownWorker(5.0), ReleaseLease(owes=True)]
    state, effects = tell(state, LeaseReleased())
    assert (state.over, state.queue, effects) == (True, (), [])
    assert tell(running(), DrainRequest(START + 20))[1] == [], "its run uses the grace"


@pytest.mark.parametrize(
    ("meanwhile", "effect"),
    [
        ([], OpenRun("r2", (turn(),), 1)),
        ([DrainRequest(START + 20)], m.RequeueTurns("r2", (turn(),), failed=False, code="DRAINED")),
        ([WorkerGone("w1", Gone.EXITED, "")], m.RequeueTurns("r2", (turn(),), failed=False, code="NOT_SENT")),
    ],
)
def test_a_run_that_began_with_its_message_goes_back_if_nothing_may_begin_any_more(
    meanwhile: list[m.Message], effect: m.Effect
) -> None:
    state, _ = tell(fresh(), m.TurnAccepted(turn(0)), m.WorkerStarting("w1"), ready(), m.RunBegun("r1"))
    state, _ = tell(state, frames(Complete(run_id="r1")), m.TurnsFinished("r1"))
    state, _ = tell(state, StandbyTaken(), *meanwhile)
    state, effects = tell(state, StandbySettled("r2", turn(), known=True))
    assert effect in effects


def test_what_ends_while_its_host_drains_gives_the_rest_up() -> None:
    state, _ = tell(running(), m.TurnAccepted(turn(2)), DrainRequest(START + 20))
    _, effects = tell(state, m.TurnsFinished(("t1",)))
    assert effects[-1] == ReleaseLease(owes=True)


def test_what_runs_goes_on_as_it_began_and_what_is_next_begins_anew_when_its_worker_is_gone() -> None:
    state, effects = tell(running(), m.TurnAccepted(turn(2)), BeginAnew())
    assert effects == []
    state, effects = tell(state, m.TurnsFinished(("t1",)))
    assert effects == [m.ShutdownWorker(5.0)], "no other worker may be in its workspace"
    assert state.worker is not None
    state, effects = tell(state, WorkerGone(state.worker.worker_id, Gone.EXITED, "shut down", 0))
    assert effects[-1] == ReleaseLease(owes=True)
    state, effects = tell(state, LeaseReleased())
    assert (state.over, state.renewing, effects) == (True, True, [])
    state, effects = tell(fresh(), BeginAnew())
    assert effects == [ReleaseLease(owes=False)]
    assert not tell(state, LeaseReleased())[0].renewing, "nothing is owed, so nothing begins"


def test_a_lost_lease_ends_the_worker_and_all_writing() -> None:
    state, effects = tell(running(), m.LeaseLost())
    assert effects == [m.KillWorker(), m.Note("lease lost")]
    assert state.over
    assert state.worker is not None
    assert state.worker.phase is WorkerPhase.ENDING
    assert tell(state, frames(Complete(run_id="r1")))[1] == [m.Dropped("other run")]


def test_a_lost_host_s_turn_runs_again_until_its_attempts_are_used_up() -> None:
    lost = turn(status=TurnStatus.RUNNING)
    _, effects = tell(fresh(), m.Recovered((lost,)))
    assert effects == [m.RequeueTurns(None, (lost,), failed=True, code="HOST_LOST")]
    lost = turn(status=TurnStatus.RUNNING, failures=1)
    _, effects = tell(fresh(), m.Recovered((lost,)))
    [finish] = effects
    assert isinstance(finish, m.FinishTurns)
    assert finish.code == "HOST_LOST"


def test_a_provider_failure_stops_progress_and_gives_its_code() -> None:
    state, _ = tell(running(), frames(Delta(run_id="r1", text="x")), now=START + 1)
    state, _ = tell(state, frames(Status(run_id="r1", status="429", code="PROVIDER_QUOTA")), now=START + 2)
    for second in range(3, 301):  # the worker goes on saying that it is busy
        state, effects = tell(state, frames(Status(run_id="r1", status="waiting")), m.Tick(), now=START + second)
        assert only(effects, m.FinishTurns) == []
    _, effects = tell(state, m.Tick(), now=START + 301)
    [finish] = only(effects, m.FinishTurns)
    assert isinstance(finish, m.FinishTurns)
    assert finish.code == "PROVIDER_QUOTA"
    state, _ = tell(state, frames(Delta(run_id="r1", text="y")), now=START + 300)
    assert tell(state, m.Tick(), now=START + 302)[1] == [], "output is progress again"


def test_an_agent_that_is_gone_fails_its_turns() -> None:
    _, effects = tell(fresh(has_agent=False), m.TurnAccepted(turn()))
    [finish] = effects
    assert isinstance(finish, m.FinishTurns)
    assert finish.code == "AGENT_DISABLED"
