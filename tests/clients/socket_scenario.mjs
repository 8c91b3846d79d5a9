// A conversation's WebSocket as somebody else's page or program uses it, with the platform's own WebSocket class.
// `open(since)` makes a socket that goes on behind that id. What was seen is said in a last message.

const TERMINAL = new Set(["complete", "agent-error", "cancelled"]);

function fresh() {
  return { last: "", text: "", ids: new Set(), twice: [], codes: [], sockets: 0 };
}

function note(state, message) {
  if (message.id) {
    if (state.ids.has(message.id)) state.twice.push(message.id);
    state.ids.add(message.id);
    state.last = message.id;
  }
  if (message.event === "output") state.text += message.data.content;
  if (message.event === "restart") state.text = "";
}

// The first message that `enough` says yes to, over as many sockets as it takes.
async function follow(state, open, enough) {
  for (;;) {
    const socket = await open(state.last);
    state.sockets += 1;
    const { found, code } = await new Promise((resolve) => {
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        note(state, message);
        if (enough(message, (call) => socket.send(JSON.stringify(call)))) resolve({ found: message });
      };
      socket.onclose = ({ code }) => resolve({ code });
      socket.onerror = () => setTimeout(resolve, 50, { code: "refused" }); // some say no more than that
    });
    socket.onclose = socket.onmessage = null;
    socket.close();
    if (found) return found;
    state.codes.push(code);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function ask(state, open, content, messageId, each = () => false) {
  let sent = false;
  state.text = "";
  return follow(state, open, (message, call) => {
    if (!sent) call({ call: "send", ref: messageId, content, messageId });
    sent = true;
    return TERMINAL.has(message.event) || each(message, call);
  });
}

export async function short(open) {
  const state = fresh();
  // Long enough for a busy machine to open a second socket meanwhile: what nobody heard comes in the whole text alone.
  const piece = await ask(state, open, "stream 40 100", "m1", (message) => message.event === "output");
  const whole = await follow(state, open, (message) => TERMINAL.has(message.event));
  const same = state.text === whole.data.finalText;
  const answered = await ask(state, open, "ask Go on?", "m2", (message, call) => {
    if (message.event === "question") call({ call: "answer", questionId: message.data.questionId, answer: "yes" });
  });
  const cancelled = await ask(state, open, "sleep 60", "m3", (message, call) => {
    if (message.reply === "m3") call({ call: "cancel", messageId: "m3" });
  });
  const crashed = await ask(state, open, "crash mid", "m4");
  const seen = {
    piece: piece.event,
    whole: whole.data.finalText,
    same,
    answer: answered.data.finalText,
    cancelled: cancelled.event,
    crashed: crashed.data.errorCode,
    twice: state.twice,
    sockets: state.sockets,
  };
  await ask(state, open, `seen ${JSON.stringify(seen)}`, "m5");
}

export async function long(open, content) {
  const state = fresh();
  const end = await ask(state, open, content, "long");
  // What was said while nobody could be asked comes in the whole text alone, if the reply is complete by then.
  const begins = end.data.finalText.startsWith(state.text);
  return { event: end.event, begins, twice: state.twice, codes: state.codes };
}

if (globalThis.process) {
  const [url, key, content] = globalThis.process.argv.slice(2);
  const headers = { Authorization: `Bearer ${key}` };
  const open = (since) => new WebSocket(since ? `${url}?since=${since}` : url, { headers });
  if (content) console.log(JSON.stringify(await long(open, content)));
  else await short(open);
  globalThis.process.exit(0);
} else {
  const [url, ...tickets] = decodeURIComponent(globalThis.location.hash.slice(1)).split(" ");
  await short((since) => new WebSocket(`${url}?ticket=${tickets.shift()}${since ? `&since=${since}` : ""}`));
}
