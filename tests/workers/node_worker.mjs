// A worker in Node, to show that the worker protocol needs no SDK: replies with what it was told before and the message.

import { Socket } from "node:net";
import { createInterface } from "node:readline";

const link = new Socket({ fd: Number(process.env.LOBU_WORKER_FD), readable: true, writable: true });
const say = (frame) => link.write(JSON.stringify(frame) + "\n");
let last = "nothing";

for await (const line of createInterface({ input: link })) {
  const frame = JSON.parse(line);
  if (frame.type === "hello") {
    say({ type: "ready", protocol: 1, name: "node", version: process.version, capabilities: [] });
  } else if (frame.type === "turn") {
    const content = frame.messages.map((message) => message.content).join("\n\n");
    console.log("turn", frame.runId);
    say({ type: "delta", runId: frame.runId, text: `before: ${last}, ` });
    say({ type: "delta", runId: frame.runId, text: `now: ${content}` });
    say({ type: "complete", runId: frame.runId });
    last = content;
  } else if (frame.type === "shutdown") {
    process.exit(0);
  }
}
