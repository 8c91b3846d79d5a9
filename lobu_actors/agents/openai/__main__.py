"""The worker type `openai`: any endpoint that speaks OpenAI's chat completions, with the tools of MCP servers.

    command = ["python", "-m", "lobu_actors.agents.openai", "--mcp", "/etc/lobu/mcp.json"]

The endpoint is OPENAI_BASE_URL, its key OPENAI_API_KEY; `--base-url` and `--key-env` name others, so that several
worker types can have providers of their own. See docs/agents.md.
"""

import argparse
import os
import sys
from pathlib import Path

from lobu_actors.worker import serve

BASE_URL = "https://api.openai.com/v1"
MISSING = "The worker type `openai` needs packages that are not installed ({name}): pip install 'lobu-actors[openai]'."


def main(arguments: list[str]) -> None:
    """Serve until the supervisor ends it. Raises SystemExit with a sentence."""
    options = _options().parse_args(arguments)
    base_url = options.base_url or os.environ.get("OPENAI_BASE_URL") or BASE_URL
    if not base_url.startswith(("https://", "http://")):
        raise SystemExit(f"OPENAI_BASE_URL is {base_url!r}; it must begin with https:// or http://.")
    try:
        # Found out before the first turn; and what is loaded here is shared by all workers that a zygote forks.
        from lobu_actors.agents.mcp_servers import parse
        from lobu_actors.agents.openai.agent import Agent
        from lobu_actors.agents.openai.provider import Provider
        from lobu_actors.agents.openai.tools import Toolbox

        commands = {} if options.mcp is None else parse(_text_of(options.mcp))
        if commands:
            import mcp  # noqa: F401
    except ModuleNotFoundError as error:
        raise SystemExit(MISSING.format(name=error.name)) from None
    except ValueError as error:
        raise SystemExit(f"{options.mcp} {error}.") from None
    agent = Agent(Provider(base_url, os.environ.get(options.key_env, "")), Toolbox(commands))
    serve(agent.reply, name="openai", steer=True)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lobu_actors.agents.openai", description="A worker for chat completions.")
    parser.add_argument("--mcp", metavar="FILE", help="MCP servers, as {'mcpServers': {name: {command, args, env}}}")
    parser.add_argument("--base-url", metavar="URL", help="default: OPENAI_BASE_URL")
    parser.add_argument("--key-env", metavar="NAME", default="OPENAI_API_KEY", help="the variable with the key")
    return parser


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as error:
        raise SystemExit(f"The file of MCP servers cannot be read: {error}.") from None


if __name__ == "__main__":
    main(sys.argv[1:])
