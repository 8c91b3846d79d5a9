"""A picture of the supervision tree at one moment.

Owns the snapshot's data and its printed form. Knows nothing of how supervisors and registries work: they fill it in.
"""

import enum

import msgspec

__all__ = ["NodeState", "TreeNode", "render"]


class NodeState(enum.StrEnum):
    """Where a supervisor, child or actor is in its life. Only the part of the runtime that runs it moves it."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    STOPPED = "stopped"
    FAILED = "failed"


class TreeNode(msgspec.Struct, frozen=True):
    """One line of the tree: `restarts` counts how often it was started again, `children` are in start order."""

    name: str
    kind: str
    state: NodeState
    restarts: int = 0
    children: tuple["TreeNode", ...] = ()


def render(node: TreeNode) -> str:
    """The tree as text, one line per node, children indented below their parent, without a final newline."""
    return "\n".join(_lines(node, "", ""))


def _lines(node: TreeNode, first: str, rest: str) -> list[str]:
    restarts = f", {node.restarts} restart{'s' if node.restarts != 1 else ''}" if node.restarts else ""
    lines = [f"{first}{node.name} ({node.kind}) {node.state}{restarts}"]
    for child in node.children:
        last = child is node.children[-1]
        branch, below = ("└─ ", "   ") if last else ("├─ ", "│  ")
        lines += _lines(child, rest + branch, rest + below)
    return lines
