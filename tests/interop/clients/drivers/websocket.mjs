// One scenario of the npm package `ws` against a running server; called and answering as `clients.mjs` is.
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";

const { LOBU_URL: url, LOBU_KEY: key, LOBU_CHAT: chat, LOBU_AGENT: agent, LOBU_TEXT: text } = process.env;
const scenario = process.argv[3];
const WebSocket = createRequire(`${process.env.LOBU_MODULES}/x.js`)("ws");
const headers = { Authorization: `Bearer ${key}` };
const TOOL = { name: "look", description: "Looks.", parameters: { type: "object", properties: {} } };
const say = (line) => console.log(JSON.stringify(line));

let said = "", lastId = "", acted = false, over = false;
const end = (how, words, error = "") => {
  over = true;
  say({ end: how, text: words, error });
  process.exit(0);
};
const opened = await fetch(`${url}/api/v1/agents`, {
  method: "POST", headers: { ...headers, "Content-Type": "application/json" },
  body: JSON.stringify({ agentId: agent, thread: chat }),
});
const { agentId } = await opened.json();
const address = `${url.replace("http", "ws")}/api/v1/agents/${agentId}/socket`;

// A call without its reply is sent again on the next socket: with the same messageId it is the same turn.
const unanswered = new Map();
let socket = null;
const call = (fields) => {
  const ref = String(unanswered.size + Math.random());
  unanswered.set(ref, JSON.stringify({ ref, ...fields }));
  socket.send(unanswered.get(ref));
};
const send = (content, more = {}) => {
  said = "";
  const tools = scenario === "tool" ? [TOOL] : undefined;
  call({ call: "send", content, messageId: randomUUID(), tools, ...more });
};

const events = {
  output: ({ content }) => {
    said += content;
    say({ step: "text" });
    if (scenario === "cancel" && !acted) call({ call: "cancel" });
    if (scenario === "resume" && !acted) socket.terminate();
    acted = true;
  },
  restart: () => { said = ""; },
  question: ({ questionId }) => call({ call: "answer", questionId, answer: "blue" }),
  complete: ({ finalText, toolCalls }) => {
    if (!toolCalls) return end(finalText.startsWith(said) ? "complete" : "wrong", finalText);
    const toolResults = [{ toolCallId: toolCalls[0].id, content: "42" }];
    return send("42", { toolResults, onlyResults: true });
  },
  "agent-error": ({ errorCode, error }) => end("error", said, `${errorCode} ${error}`),
  cancelled: () => end("cancelled", said),
};

function listen() {
  socket = new WebSocket(lastId ? `${address}?since=${lastId}` : address, "lobu.v1", { headers });
  socket.on("open", () => unanswered.forEach((sent) => socket.send(sent)));
  socket.on("message", (data) => {
    const message = JSON.parse(data);
    if (message.id) lastId = message.id;
    if (message.reply && message.status >= 400) end("refused", said, JSON.stringify(message.body));
    if (message.reply) unanswered.delete(message.reply);
    events[message.event]?.(message.data);
  });
  socket.on("error", () => {}); // `close` follows
  socket.on("close", (code) => {
    if (code === 1000) end("closed", said);
    if (!over) setTimeout(listen, 200);
  });
}
listen();
await new Promise((resolve) => socket.once("open", resolve));
send(text);
