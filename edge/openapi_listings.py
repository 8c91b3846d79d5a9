"""What lists, and the pages themselves, as the OpenAPI document describes them. Pure data."""

from __future__ import annotations

from edge.openapi_parts import KEY, KEY_PARAMETER, OPEN, Json, answer, operation, path_parameter, query, refusals

_FRAME: Json = {"type": "object", "properties": {"event": {"const": "house"}, "data": {"type": "string"}}}


def listings() -> Json:
    """By path; some of the paths have other operations elsewhere."""
    return {
        "/api/v1/agents": {
            "get": operation(
                "listAgents",
                "List the agents that the caller may open conversations with",
                "Of a conversation token: its own one's.",
                answer("Agents") | refusals(401, 403, 503),
            ),
        },
        "/api/v1/session": {
            "get": operation(
                "showCaller",
                "Show who the caller is",
                "`boundTo` is the conversation that a token opens, null for an API key.",
                answer("Caller") | refusals(401, 403, 503),
            ),
        },
        "/api/v1/conversations": {
            "get": operation(
                "listConversations",
                "List the caller's own open conversations",
                "The last active first, of the newest 500 that the caller's user began.",
                answer("Conversations") | refusals(400, 401, 403, 503),
                parameters=[query("limit", "At most so many: 1 to 200, 50 if absent.")],
            ),
        },
        f"{KEY}/turns": {
            "parameters": [KEY_PARAMETER],
            "get": operation(
                "listTurns",
                "List a conversation's turns",
                "Each message with what became of it, oldest first: the newest that ended, and behind them those that "
                "are owed. A page holds fewer when replies are long.",
                answer("Turns") | refusals(400, 401, 403, 404, 503),
                parameters=[
                    query("before", "`before` of an earlier answer: the turns that ended before those, and none owed."),
                    query("limit", "At most so many that ended: 1 to 100, 30 if absent."),
                ],
            ),
        },
    }


def pages() -> Json:
    def page(name: str, summary: str) -> Json:
        content = {"text/html": {"schema": {"type": "string"}}}
        shown = {"200": {"description": "A page.", "content": content}}
        return {"get": {**OPEN, "operationId": name, "summary": summary, "responses": shown}}

    asset = {"200": {"description": "The file.", "content": {"*/*": {"schema": {"type": "string"}}}}}
    unchanged = {"304": {"description": "It is what `If-None-Match` says."}}
    return {
        "/": page("chatPage", "The chat page"),
        "/ops": page("operationsPage", "The operations page; what it shows needs an administrator's session"),
        "/api/v1/ops/events": {
            "get": operation(
                "watchHouse",
                "Watch how hosts, actors, workers and turns are",
                "Server-Sent Events for administrators: `house` once a second: the organization's conversations, "
                "the hosts only for the organization whose they are. Made for `/ops`; its fields may change.",
                {
                    "200": {
                        "description": "The stream.",
                        "content": {"text/event-stream": {"schema": _FRAME}},
                    }
                }
                | refusals(401, 403, 429, 503),
            )
        },
        "/web/{name}": {
            "parameters": [path_parameter("name", "A file of the pages.")],
            "get": {
                **OPEN,
                **operation(
                    "pageFile",
                    "A file of the pages",
                    "No credentials; the same for all.",
                    asset | unchanged | refusals(404),
                ),
            },
        },
    }
