"""A worker that works with files. The first word of the message says what it does; it replies with what it found."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lobu_actors.worker import BlockingTurn, serve


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tricks(output: Path, secret: str) -> None:
    """Every way to make somebody else's bytes ours, beside one honest file."""
    (output / "honest.txt").write_text("honest")
    (output / "link").symlink_to(secret)
    (output / "folder-link").symlink_to("/etc")
    (output / "dangling").symlink_to("nowhere")
    (output / "folder").mkdir()
    (output / "folder" / "inner").write_text("inner")
    os.mkfifo(output / "pipe")
    (output / "twin").write_text("twin")
    os.link(output / "twin", output.parent / "temp" / "twin")
    with (output / "large").open("wb") as file:
        file.truncate(60_000_000)
    (output / "rtl\u202egpj.\x1b[1m.html").write_text("name")


def reply(turn: BlockingTurn) -> Iterator[str]:
    command, *words = turn.content.split()
    workspace = Path(turn.workspace)
    source, output = workspace / "input", workspace / "output"
    if command == "copy-next-time" and turn.attempt == 1:
        yield str(sum(path.stat().st_size for path in source.iterdir()))
        turn.sleep(1000)
    if command in ("copy", "copy-next-time"):
        for path in source.iterdir():
            shutil.copyfile(path, output / f"copy of {path.name}")
    elif command == "tricks":
        tricks(output, words[0])
    elif command == "away":
        output.rmdir()
        output.symlink_to(words[0])
    elif command == "many":
        for number in range(15):
            (output / f"{number:02}").write_text("x")
    sums = {path.name: digest(path) for path in source.iterdir()}
    told = [message.get("files") for message in turn.messages]
    yield json.dumps({"sums": sums, "attempt": turn.attempt, "told": told})


if __name__ == "__main__":
    serve(reply, name="files")
