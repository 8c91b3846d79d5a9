"""The worker type `acp`: any agent of the Agent Client Protocol over stdio.

    command = ["python", "-m", "lobu_actors.agents.acp", "--mcp", "/etc/lobu/mcp.json", "--", "opencode", "acp"]

What stands behind `--` is the agent and its options. See docs/agents.md.
"""

import argparse
import sys
from pathlib import Path

from lobu_actors.worker import serve

MISSING = "The worker type `acp` needs packages that are not installed ({name}): pip install 'lobu-actors[acp]'."


def main(arguments: list[str]) -> None:
    """Serve until the supervisor ends it. Raises SystemExit with a sentence."""
    options = _options().parse_args(arguments)
    if not options.agent:
        raise SystemExit("Which agent? Its command stands behind `--`.")
    try:
        # Found out before the first turn; and what is loaded here is shared by all workers that a zygote forks.
        from lobu_actors.agents.acp.agent import Agent
        from lobu_actors.agents.mcp_servers import parse

        servers = {} if options.mcp is None else parse(_text_of(options.mcp))
    except ModuleNotFoundError as error:
        raise SystemExit(MISSING.format(name=error.name)) from None
    except ValueError as error:
        raise SystemExit(f"{options.mcp} {error}.") from None
    serve(Agent(options.agent, servers).reply, name="acp")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lobu_actors.agents.acp", description="A worker for agents that speak ACP.")
    parser.add_argument("--mcp", metavar="FILE", help="MCP servers, as {'mcpServers': {name: {command, args, env}}}")
    parser.add_argument("agent", nargs="*", metavar="-- AGENT …", help="the agent's command line")
    return parser


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise SystemExit(f"The file of MCP servers cannot be read: {error}.") from None


if __name__ == "__main__":
    main(sys.argv[1:])
