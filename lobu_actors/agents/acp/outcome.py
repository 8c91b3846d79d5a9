"""How an agent's answer to a prompt ends the turn. Pure.

Owns the table from the protocol's stop reasons and errors to our codes. Agents differ in how they tell that their model
provider failed: by an error, by `refusal` with a sentence, or by nothing at all, which must not pass for a reply.
"""

import json
import re
from typing import Any

from lobu_actors.agents import provider_errors
from lobu_actors.contract.errors import TurnError
from lobu_actors.worker import Fail

AUTH_REQUIRED = -32000
EMPTY_REPLY = "AGENT_EMPTY_REPLY"
TOO_MANY_STEPS = "TOO_MANY_STEPS"
LAST_CHARS = 500


def failure_of_stop(reason: str, said: str, did_something: bool, pattern: str = "") -> Fail | None:
    """None when the turn is answered. `said`: the text of the reply; `pattern`: what in its last lines is a failure."""
    match reason:
        case "end_turn" | "max_tokens":
            if pattern and (found := re.search(pattern, said[-LAST_CHARS:])):
                error = provider_errors.of_text(said[-LAST_CHARS:][found.start() :])
                return Fail(error.code, error.message, retryable=error.may_retry)
            if said or did_something:
                return None
            return Fail(EMPTY_REPLY, "The agent ended its turn without a word; its log may say why.")
        case "max_turn_requests":
            return Fail(TOO_MANY_STEPS, "The agent has asked its model as often as it may and wants to go on.")
        case "refusal":
            error = provider_errors.of_text(said)
            unknown = error.code == TurnError.PROVIDER_UNAVAILABLE
            return Fail(TurnError.PROVIDER_REFUSED if unknown else error.code, error.message)
        case "cancelled":
            return Fail(TurnError.WORKER_FAILED, "The agent says that it was cancelled, and nobody did.")
    return Fail(TurnError.WORKER_FAILED, f"The agent ended its turn with {reason:.100}, which is unknown here.")


def failure_of_error(code: int, message: str, data: Any) -> Fail:
    """Of a JSON-RPC error."""
    if code == AUTH_REQUIRED:
        return Fail(TurnError.PROVIDER_AUTH, provider_errors.of_status(401, None).message)
    text = message if data is None else f"{message}: {data if isinstance(data, str) else json.dumps(data)}"
    error = provider_errors.of_text(text)
    return Fail(error.code, error.message, retryable=error.may_retry)
