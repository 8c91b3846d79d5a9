"""Child specs are validated, restart rules are a table, and the tree prints."""

import math

import pytest

from lobu_actors.runtime.child_spec import ChildContext, ChildSpec, Restart
from lobu_actors.runtime.errors import InvalidChildSpec, RuntimeFault
from lobu_actors.runtime.intensity import Backoff, Intensity
from lobu_actors.runtime.strategy import affected, wants_restart
from lobu_actors.runtime.supervisor import Strategy, Supervisor
from lobu_actors.runtime.tree import NodeState, TreeNode, render


async def nothing(context: ChildContext) -> None:
    context.started()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id": ""}, "non-empty"),
        ({"id": 7}, "non-empty"),
        ({"run": None}, "async function"),
        ({"restart": "permanent"}, "Restart"),
        ({"shutdown_seconds": -1}, "shutdown_seconds"),
        ({"shutdown_seconds": math.inf}, "shutdown_seconds"),
        ({"shutdown_seconds": math.nan}, "shutdown_seconds"),
        ({"start_timeout_seconds": 0}, "start_timeout_seconds"),
        ({"start_timeout_seconds": math.inf}, "start_timeout_seconds"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused_in_one_sentence(changes, words):
    with pytest.raises(InvalidChildSpec, match=words) as caught:
        ChildSpec(**{"id": "a", "run": nothing, **changes})
    assert isinstance(caught.value, RuntimeFault)
    assert "\n" not in str(caught.value)


def test_a_supervisor_refuses_children_of_the_same_name():
    with pytest.raises(InvalidChildSpec, match="several children called a"):
        Supervisor("s", [ChildSpec("a", nothing), ChildSpec("b", nothing), ChildSpec("a", nothing)])


def test_a_supervisor_refuses_a_backoff_that_would_make_it_retry_for_ever():
    with pytest.raises(InvalidChildSpec, match="retry for ever"):
        Supervisor("s", [], intensity=Intensity(3, 5.0), backoff=Backoff(1.0, 2.0, 10.0))


def test_started_may_be_called_once():
    context = ChildContext("a")
    context.started("value")
    assert (context.is_started, context.value) == (True, "value")
    with pytest.raises(RuntimeError, match="twice"):
        context.started()


@pytest.mark.parametrize(
    ("restart", "after_end", "after_error"),
    [(Restart.PERMANENT, True, True), (Restart.TRANSIENT, False, True), (Restart.TEMPORARY, False, False)],
)
def test_restart_types(restart, after_end, after_error):
    assert wants_restart(restart, None) is after_end
    assert wants_restart(restart, ValueError()) is after_error


@pytest.mark.parametrize(
    ("strategy", "positions"),
    [(Strategy.ONE_FOR_ONE, [1]), (Strategy.REST_FOR_ONE, [1, 2, 3]), (Strategy.ONE_FOR_ALL, [0, 1, 2, 3])],
)
def test_strategies(strategy, positions):
    assert list(affected(strategy, 1, 4)) == positions


def test_the_tree_is_printed_indented_with_states_and_restarts():
    tree = TreeNode(
        "host",
        "supervisor",
        NodeState.RUNNING,
        0,
        (
            TreeNode("database", "child", NodeState.RUNNING, 1),
            TreeNode("actors", "supervisor", NodeState.BACKOFF, 2, (TreeNode("x", "child", NodeState.STARTING),)),
            TreeNode("links", "supervisor", NodeState.STOPPED, 0, (TreeNode("y", "child", NodeState.STOPPED),)),
        ),
    )
    assert render(tree).splitlines() == [
        "host (supervisor) running",
        "├─ database (child) running, 1 restart",
        "├─ actors (supervisor) backoff, 2 restarts",
        "│  └─ x (child) starting",
        "└─ links (supervisor) stopped",
        "   └─ y (child) stopped",
    ]
