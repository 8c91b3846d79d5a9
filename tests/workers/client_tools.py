"""A worker that has the client's first tool carried out, and then says what came of it."""

from collections.abc import Iterator

from lobu_actors.worker import BlockingTurn, serve


def reply(turn: BlockingTurn) -> Iterator[str]:
    if turn.tool_results:
        yield "The tool said: " + turn.tool_results[0]["content"]
    elif turn.tools:
        yield "I look. "
        turn.tool_calls.append({"id": f"call_{turn.run_id[-12:]}", "name": turn.tools[0]["name"], "arguments": "{}"})
    else:
        yield f"{len(turn.history())} before; {turn.instructions}; {turn.content}"


serve(reply)
