"""One scenario of our own Python client against a running server; called and answering as `clients.py` is."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import anyio

from lobu_actors.client import Client, ClientError

AGENT, TEXT = os.environ["LOBU_AGENT"], os.environ["LOBU_TEXT"]
LOOK = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}
Json = dict[str, Any]


class Talk:
    def __init__(self, client: Client, key: str, scenario: str) -> None:
        self.client, self.key, self.scenario = client, key, scenario
        self.acted = False

    async def ask(self, content: str, **fields: Any) -> tuple[str, str, Json]:
        """How it ended, with which text, and the terminal event's data."""
        receipt = await self.client.send(self.key, content, **fields)
        said, since = "", None
        while True:
            async with self.client.stream(self.key, message_id=receipt.message_id, since=since) as events:
                async for event in events:
                    since = events.last_id or since
                    if event.type == "restart":
                        said = ""
                    if event.type == "question":
                        await self.client.answer(self.key, event.data["questionId"], "blue")
                    if event.type == "output":
                        said += event.content
                        print(json.dumps({"step": "text"}), flush=True)
                        if await self.acts():
                            break  # and goes on where it left
                    if event.type == "complete":
                        return (
                            ("complete" if event.final_text.startswith(said) else "wrong"),
                            event.final_text,
                            event.data,
                        )
                    if event.terminal:
                        how = "error" if event.type == "agent-error" else event.type
                        return how, said, event.data

    async def acts(self) -> bool:
        """Whether the stream is to be left; once."""
        if self.acted or self.scenario not in ("cancel", "resume"):
            return False
        self.acted = True
        if self.scenario == "cancel":
            await self.client.cancel(self.key)
        return self.scenario == "resume"


async def main(scenario: str) -> None:
    async with Client(os.environ["LOBU_URL"], os.environ["LOBU_KEY"]) as client:
        try:
            talk = Talk(client, (await client.open(AGENT, thread=os.environ["LOBU_CHAT"])).key, scenario)
            tools = {"tools": [LOOK]} if scenario == "tool" else {}
            end, text, data = await talk.ask(TEXT, **tools)
            if calls := data.get("toolCalls"):
                results = [{"toolCallId": calls[0]["id"], "content": "42"}]
                end, text, data = await talk.ask("42", toolResults=results, onlyResults=True, **tools)
            error = f"{data.get('errorCode', '')} {data.get('error', '')}".strip()
        except ClientError as failed:
            end, text, error = "error", "", repr(failed)
    print(json.dumps({"end": end, "text": text, "error": error}), flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[2], backend="trio")
