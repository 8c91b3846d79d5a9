"""A worker that gives back the trace contexts that it was told."""

from __future__ import annotations

import json
from collections.abc import Iterator

from lobu_actors.worker import BlockingTurn, serve


def reply(turn: BlockingTurn) -> Iterator[str]:
    yield json.dumps({"frame": turn.traceparent, "message": turn.messages[0].get("traceparent")})


if __name__ == "__main__":
    serve(reply, name="traces")
