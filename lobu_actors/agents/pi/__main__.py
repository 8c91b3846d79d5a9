"""The worker type `pi`: the pi coding agent (`@earendil-works/pi-coding-agent`) in its RPC mode.

    command = ["python", "-m", "lobu_actors.agents.pi", "--", "/opt/pi/bin/pi"]

What stands behind `--` is pi and its own options; `pi` unless given. See docs/agents.md.
"""

import sys

from lobu_actors.worker import serve


def main(arguments: list[str]) -> None:
    """Serve until the supervisor ends it. Raises SystemExit with a sentence."""
    if arguments and arguments[0] != "--":
        raise SystemExit(f"{arguments[0]!r} is no option; pi's command stands behind `--`.")
    from lobu_actors.agents.pi.agent import Agent

    serve(Agent(arguments[1:] or ["pi"]).reply, name="pi", steer=True, writes_session=True)


if __name__ == "__main__":
    main(sys.argv[1:])
