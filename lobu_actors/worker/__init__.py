"""What a worker program in Python imports: `serve(handler)`, and the turn that the handler is given.

Standard library only, no trio; asyncio is loaded only for asynchronous handlers, because the start-up time of a worker
is what a person waits for. Heartbeats, cancellation, reattaching and the session file are done here.
"""

from lobu_actors.worker.serve import serve
from lobu_actors.worker.turn import BlockingTurn, Cancelled, Fail, Steer, Turn, crash

__all__ = ["BlockingTurn", "Cancelled", "Fail", "Steer", "Turn", "crash", "serve"]
