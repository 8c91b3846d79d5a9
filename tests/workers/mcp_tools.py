"""An MCP server over stdio, made with the official package.

Its tools: `add`, `where`, `fail`, `big`, `die`, `bash`, and a deaf `hang`, which first writes its pid to the file that
it is given, so that a test knows that it runs.
"""

import json
import os
import subprocess
import time
from pathlib import Path

from mcp.server.mcpserver import MCPServer

server = MCPServer("tools")


@server.tool()
def add(a: int, b: int) -> str:
    """The sum of two numbers."""
    return str(a + b)


@server.tool()
def where() -> str:
    """This process: its pid, folder and environment."""
    return json.dumps({"pid": os.getpid(), "cwd": os.getcwd(), "env": dict(os.environ)})


@server.tool()
def fail() -> str:
    """Always fails."""
    raise ValueError("no such luck")


@server.tool()
def big(chars: int) -> str:
    """A long text."""
    return "x" * chars


@server.tool()
def die() -> str:
    """Ends this server in the middle of the call."""
    os._exit(3)


@server.tool()
def bash(command: str) -> str:
    """What a command in a shell prints."""
    return subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True).stdout


@server.tool()
def hang(file: str) -> str:
    """Never answers, and reads nothing meanwhile."""
    Path(file).write_text(str(os.getpid()))
    time.sleep(1000)
    return ""


if __name__ == "__main__":
    server.run("stdio")
