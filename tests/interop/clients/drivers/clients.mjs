// One scenario of one Node client against a running server, as a program of its user would do it.
// Called as `node clients.mjs CLIENT SCENARIO` with LOBU_URL, LOBU_KEY, LOBU_CHAT (a name of its own), LOBU_AGENT and
// LOBU_TEXT in the environment. Prints a line of JSON when the first text is there, and one with how it ended.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { LOBU_URL: url, LOBU_KEY: key, LOBU_CHAT: chat, LOBU_AGENT: agent, LOBU_TEXT: text } = process.env;
const [, , client, scenario] = process.argv;
const require = createRequire(`${process.env.LOBU_MODULES}/x.js`);
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const bearer = { Authorization: `Bearer ${key}` };
const say = (line) => console.log(JSON.stringify(line));
let begun = false;
const first = () => {
  if (!begun) say({ step: "text" });
  begun = true;
};
const end = (how, said = "", error = "") => {
  say({ end: how, text: said, error: String(error?.message ?? error) });
  process.exit(0);
};
process.on("unhandledRejection", (error) => end("unhandled", "", error));
const TOOL = { name: "look", description: "Looks.", parameters: { type: "object", properties: {} } };

async function openaiClient() {
  const { default: OpenAI } = await load("openai");
  return new OpenAI({ baseURL: `${url}/v1`, apiKey: key, defaultHeaders: { "X-Lobu-Conversation": chat } });
}

async function openaiChat() {
  const openai = await openaiClient();
  const messages = [{ role: "user", content: text }];
  const ask = async () => {
    const tools = scenario === "tool" ? [{ type: "function", function: TOOL }] : undefined;
    const stream = await openai.chat.completions.create({ model: agent, stream: true, messages, tools });
    let said = "", reason = null;
    const calls = [];
    try {
      for await (const chunk of stream) {
        const [choice] = chunk.choices;
        said += choice?.delta?.content ?? "";
        calls.push(...(choice?.delta?.tool_calls ?? []));
        reason = choice?.finish_reason ?? reason;
        if (said) first();
        if (said && scenario === "cancel") return stream.controller.abort(), { end: "cancelled", said };
      }
    } catch (error) {
      return { end: "error", said, error: `${error.code ?? ""} ${error.message}` };
    }
    return { end: reason ? "complete" : "cut", said, calls };
  };
  let got = await ask();
  if (scenario === "tool" && got.calls?.length) {
    messages.push({ role: "assistant", content: got.said, tool_calls: got.calls.map(({ index, ...call }) => call) });
    messages.push({ role: "tool", tool_call_id: got.calls[0].id, content: "42" });
    got = await ask();
  }
  if (scenario === "question") {
    messages.push({ role: "assistant", content: got.said }, { role: "user", content: "blue" });
    got = await ask();
  }
  end(got.end, got.said, got.error);
}

async function openaiResponses() {
  const openai = await openaiClient();
  const ask = async (input, previous_response_id) => {
    const tools = scenario === "tool" ? [{ type: "function", strict: false, ...TOOL }] : undefined;
    const stream = await openai.responses.create({ model: agent, stream: true, input, tools, previous_response_id });
    let said = "", response = null;
    try {
      for await (const event of stream) {
        if (event.type === "response.output_text.delta") (said += event.delta), first();
        if (event.type === "response.completed") response = event.response;
        if (said && scenario === "cancel") return stream.controller.abort(), { end: "cancelled", said };
      }
    } catch (error) {
      return { end: "error", said, error: `${error.code ?? ""} ${error.message}` };
    }
    return { end: response ? "complete" : "cut", said, response };
  };
  let got = await ask(text);
  if (scenario === "tool" && got.response) {
    const call = got.response.output.find((item) => item.type === "function_call");
    got = await ask([{ type: "function_call_output", call_id: call.call_id, output: "42" }], got.response.id);
  }
  if (scenario === "question" && got.response) got = await ask("blue", got.response.id);
  end(got.end, got.said, got.error);
}

async function aiSdk(module) {
  const { AbstractChat, DefaultChatTransport } = await load(module);
  // What useChat keeps in React, in a plain object.
  class State {
    status = "ready";
    error = undefined;
    #messages = [];
    get messages() { return this.#messages; }
    set messages(list) { this.#messages = list; }
    pushMessage = (message) => { this.#messages = [...this.#messages, message]; };
    popMessage = () => { this.#messages = this.#messages.slice(0, -1); };
    replaceMessage = (index, message) => {
      this.#messages = this.#messages.map((old, n) => (n === index ? this.snapshot(message) : old));
    };
    snapshot = (value) => structuredClone(value);
  }
  class Chat extends AbstractChat {
    constructor(options) { super({ ...options, state: new State() }); }
  }
  const api = `${url}/api/v1/ui/${agent}/chat`;
  const seen = [];
  const make = (messages) => {
    const made = new Chat({
      id: chat,
      messages,
      transport: new DefaultChatTransport({ api, headers: bearer, body: scenario === "tool" ? { tools: [TOOL] } : {} }),
      onData: (part) => seen.push(part),
      sendAutomaticallyWhen: scenario === "tool" ? ({ messages }) => answered(messages.at(-1)) : undefined,
      onToolCall: ({ toolCall }) => {
        made.addToolResult({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output: "42" });
      },
    });
    return made;
  };
  const answered = (message) =>
    message?.parts.at(-1)?.state === "output-available" && message.parts.filter((p) => p.type === "text").length < 2;
  const textOf = (used) => {
    const last = used.messages.at(-1);
    const parts = last?.role === "assistant" ? last.parts.filter((part) => part.type === "text") : [];
    return (scenario === "tool" ? parts.slice(-1) : parts).map((part) => part.text).join("");
  };
  let used = make([]);
  const over = used.sendMessage({ text });
  let done = false;
  over.then(() => { done = true; });
  const until = async (condition) => {
    while (!condition() && !done) await new Promise((resolve) => setTimeout(resolve, 20));
  };
  if (scenario === "question") {
    await until(() => seen.some((part) => part.type === "data-question"));
    const { data } = seen.find((part) => part.type === "data-question");
    const body = JSON.stringify({ answer: "blue" });
    await fetch(data.answerUrl, { method: "POST", headers: { ...bearer, "Content-Type": "application/json" }, body });
  } else {
    await until(() => textOf(used));
    if (textOf(used)) first();
  }
  if (scenario === "cancel") {
    const stopped = await fetch(`${api}/${chat}/stop`, { method: "POST", headers: bearer });
    await over;
    if (seen.some((part) => part.type === "data-cancelled") && stopped.status === 202) end("cancelled", textOf(used));
    end("not told", textOf(used), used.error ?? "");
  }
  if (["resume", "server-restarted", "server-killed"].includes(scenario)) {
    const before = textOf(used);
    if (scenario === "resume") await used.stop();
    await over;
    const how = used.error ? `error, then resumed` : "resumed";
    // A page that is loaded again, with the user's message as it was kept. Until the server is back, it tries again.
    used = make(used.messages.slice(0, 1));
    for (let tries = 0; tries < 100; tries++) {
      used.clearError();
      await used.resumeStream();
      if (used.status === "ready" && textOf(used)) break;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    if (!before) end("nothing before", "");
    end(used.status === "ready" ? "complete" : "error", textOf(used), used.error ?? how);
  }
  await over;
  while (used.status === "submitted" || used.status === "streaming") await new Promise((r) => setTimeout(r, 20));
  end(used.status === "error" ? "error" : "complete", textOf(used), used.error ?? "");
}

async function agUi() {
  const { HttpAgent } = await load("@ag-ui/client");
  const made = new HttpAgent({ url: `${url}/api/v1/ag-ui/${agent}`, headers: bearer, threadId: chat });
  let finished = null, failed = null;
  const texts = () => made.messages.filter((message) => message.role === "assistant").map((m) => m.content ?? "");
  made.subscribe({
    onTextMessageContentEvent: () => {
      first();
      if (scenario === "cancel") made.abortRun();
    },
    onRunFinishedEvent: ({ event }) => { finished = event; },
    onRunErrorEvent: ({ event }) => { failed = event; },
  });
  made.addMessage({ id: "u1", role: "user", content: text });
  const tools = scenario === "tool" ? [TOOL] : [];
  const run = async (parameters) => {
    finished = failed = null;
    try {
      await made.runAgent(parameters);
    } catch (error) {
      failed ??= error;
    }
  };
  await run({ tools });
  if (scenario === "cancel") end("cancelled", texts().join(""));
  if (scenario === "question" && finished?.outcome?.type === "interrupt") {
    const [interrupt] = finished.outcome.interrupts;
    await run({ resume: [{ interruptId: interrupt.id, status: "resolved", payload: "blue" }] });
  }
  if (scenario === "tool" && finished) {
    const call = made.messages.findLast((message) => message.toolCalls?.length).toolCalls[0];
    made.addMessage({ id: "t1", role: "tool", toolCallId: call.id, content: "42" });
    await run({ tools });
  }
  if (failed) end("error", texts().at(-1), `${failed.code ?? ""} ${failed.message}`);
  end(finished ? "complete" : "cut", texts().at(-1));
}

async function eventSource() {
  const { EventSource } = await load("eventsource");
  const post = async (path, body) => {
    const headers = { ...bearer, "Content-Type": "application/json" };
    const answer = await fetch(`${url}${path}`, { method: "POST", headers, body: JSON.stringify(body) });
    return answer.json();
  };
  const { agentId } = await post("/api/v1/agents", { agentId: agent, thread: chat });
  const path = `/api/v1/agents/${agentId}`;
  const { messageId } = await post(`${path}/messages`, { content: text });
  let said = "", lastId = null, dropped = false, source = null;
  const listen = () => {
    const since = lastId ? `&since=${lastId}` : "";
    source = new EventSource(`${url}${path}/events?messageId=${messageId}${since}`, {
      fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...bearer } }),
    });
    const on = (name, act) => source.addEventListener(name, (event) => {
      lastId = event.lastEventId || lastId;
      act(JSON.parse(event.data));
    });
    on("output", (data) => {
      said += data.content;
      first();
      if (scenario === "resume" && !dropped) {
        dropped = true;
        source.close();
        listen();
      }
      if (scenario === "cancel" && !dropped) (dropped = true), post(`${path}/cancel`, {});
    });
    source.addEventListener("error", (event) => {
      if (event.target.readyState === EventSource.CLOSED) end("closed", said, `${event.code} ${event.message}`);
    });
    on("restart", () => { said = ""; });
    on("question", (data) => post(`${path}/questions/${data.questionId}/answer`, { answer: "blue" }));
    on("complete", (data) => end(data.finalText.startsWith(said) ? "complete" : "wrong", data.finalText));
    on("agent-error", (data) => end("error", said, `${data.errorCode} ${data.error}`));
    on("cancelled", () => end("cancelled", said));
  };
  listen();
  setInterval(() => {}, 1000); // its timer before a reconnect does not keep a program alive, so the program must
}

const CLIENTS = {
  "openai-npm-chat": openaiChat,
  "openai-npm-responses": openaiResponses,
  ai5: () => aiSdk("ai5"),
  ai6: () => aiSdk("ai6"),
  ai7: () => aiSdk("ai7"),
  "ag-ui": agUi,
  "eventsource-npm": eventSource,
};
await CLIENTS[client]();
