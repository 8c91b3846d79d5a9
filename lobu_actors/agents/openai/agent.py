"""A turn: the model is asked, its tools are called, it is asked again, until it has nothing more to call.

A call of a tool that the client carries out ends the turn, once the agent's own calls beside it are done.

Owns the loop and what of it is kept in the session file.
"""

from typing import Any

from lobu_actors.agents.openai import client_tools, history, settings
from lobu_actors.agents.openai.dialect import Answer, Call, Usage, request_body
from lobu_actors.agents.openai.provider import Provider
from lobu_actors.agents.openai.settings import Settings
from lobu_actors.agents.openai.tools import Toolbox
from lobu_actors.contract.errors import TurnError
from lobu_actors.worker import Fail, Steer, Turn

Json = dict[str, Any]
TOO_MANY_STEPS = "TOO_MANY_STEPS"
SUMMARY = "What was said in the conversation before:\n\n"


class Agent:
    """What lives as long as the worker: connections to the provider, and the MCP servers."""

    def __init__(self, provider: Provider, toolbox: Toolbox) -> None:
        self._provider = provider
        self._toolbox = toolbox

    async def reply(self, turn: Turn) -> None:
        await _Conversation(turn, self._provider, self._toolbox).run()


class _Conversation:
    """One turn of it."""

    def __init__(self, turn: Turn, provider: Provider, toolbox: Toolbox) -> None:
        self._turn = turn
        self._ask = provider.ask
        self._toolbox = toolbox
        self._settings: Settings = settings.read(turn.settings)
        self._provider, self._model = settings.model_of(turn.settings, turn.messages)
        self._messages = [
            *_instructions(self._settings.system_prompt, turn.instructions, turn.summary),
            *history.to_chat(turn.transcript()),
        ]
        self._client = client_tools.read(turn.tools, turn.tool_choice)
        self._usage = Usage()

    async def run(self) -> None:
        """Raises Fail."""
        body = await self._body()
        said = False
        for _ in range(self._settings.max_steps):
            answer = await self._ask(self._turn, body, self._settings, follows=said)
            said = said or bool(answer.text)
            self._usage.add(answer.usage)
            self._turn.usage = self._usage.total()
            if answer.calls:
                own, of_client = self._client.split(answer.calls)
                self._take(answer, usage=self._turn.usage if of_client else None)
                for call in own:
                    await self._call(call)
                if of_client:
                    self._turn.tool_calls = [call.to_client() for call in of_client]
                    return  # what the user added meanwhile is a message of its own
                self._take_steers(self._turn.take_steers())
                self._turn.status("thinking", phase="model")  # the tool's clock ends here
            elif steers := self._turn.take_steers():
                self._take(answer, usage=None)
                self._take_steers(steers)
            else:
                if not said and answer.finish_reason == "content_filter":
                    raise Fail(TurnError.PROVIDER_REFUSED, "The model provider's content filter took the whole reply.")
                self._take(answer, usage=self._turn.usage)
                return
        raise Fail(TOO_MANY_STEPS, f"The model was asked {self._settings.max_steps} times and wants to go on.")

    async def _body(self) -> Json:
        """Of every request of this turn: the messages in it grow. Raises Fail."""
        found = self._settings
        own = await self._toolbox.offer(found.mcp, found.tool_start_seconds, self._client.names)
        tools = self._client.beside(own)
        parameters = client_tools.parameters(self._turn.parameters, found.parameters, has_tools=bool(tools))
        return request_body(self._model, self._messages, tools, parameters)

    async def _call(self, call: Call) -> None:
        self._turn.status(f"calling {call.name}", phase="tool", tool=call.name)
        result = await self._toolbox.call(
            call, start_seconds=self._settings.tool_start_seconds, max_chars=self._settings.tool_result_chars
        )
        self._messages.append(history.tool_result(call.id, result.text))
        self._turn.record(history.entry_of_result(call, result.text, result.is_error))

    def _take(self, answer: Answer, usage: Json | None) -> None:
        for number, call in enumerate(answer.calls):
            call.id = call.id or f"call_{len(self._messages)}_{number}"
        self._messages.append(history.assistant(answer.text, answer.calls))
        self._turn.record(history.entry_of_answer(answer, self._provider, self._model, usage))

    def _take_steers(self, steers: list[Steer]) -> None:
        for steer in steers:
            self._messages.append({"role": "user", "content": steer.content})
            self._turn.record(history.entry_of_user(steer.content))


def _instructions(system_prompt: str, of_client: str, summary: str | None) -> list[Json]:
    text = "\n\n".join(part for part in (system_prompt, of_client, summary and SUMMARY + summary) if part)
    return [{"role": "system", "content": text}] if text else []
