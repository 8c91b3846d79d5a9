// The chat page: signs in, opens conversations, and connects list, transcript and composer. Owns what is open.

import * as api from "./api.js";
import { advice } from "./codes.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId, theme, titleOf } from "./dom.js";
import { ask, signedIn } from "./signin.js";
import { Sidebar } from "./sidebar.js";
import { Transcript } from "./transcript.js";

const LIST_MS = 15_000; // other devices' conversations come into the list so late
const SAID_CHARS = 400; // of a reply, read out when it is there

let conversation = null;
let listed = [];
let boundTo = null;

const transcript = new Transcript({
  answer: (...arguments_) => conversation.answer(...arguments_),
  cancel: (turn) => conversation.cancel(turn),
  retry: (turn) => conversation.retry(turn),
  discard: (turn) => conversation.discard(turn),
  again: (turn) => conversation.again(turn),
});
const sidebar = new Sidebar((key) => pick(key));
const composer = new Composer({
  send: (text) => {
    notice(null);
    conversation.send(text);
  },
  stop: () => {
    const running = conversation?.running;
    if (running) conversation.cancel(running);
  },
});

async function pick(key) {
  location.hash = key === null ? "" : `c=${encodeURIComponent(key)}`;
  if (conversation !== null && conversation.key === key && key !== null) return;
  conversation?.close();
  notice(null);
  byId("connection").textContent = "";
  byId("earlier").hidden = true;
  const mine = new Conversation(key, sidebar.chosenAgent?.agentId, transcript, (what, value) => {
    if (conversation === mine) told(what, value);
  });
  conversation = mine;
  composer.turnTo(key);
  told("changed");
  sidebar.show(listed, key);
  if (key !== null && !listed.some((one) => one.agentId === key)) refreshList(); // a link to one that others began
  try {
    await mine.load();
  } catch (failure) {
    if (conversation === mine) notice(failure);
  }
  // Who chooses an agent with the arrow keys may not be at the last one yet.
  if (!sidebar.narrow.matches && document.activeElement !== sidebar.agent) composer.field.focus();
}

function told(what, value) {
  switch (what) {
    case "state":
      byId("connection").textContent = value === "lost" ? "Connection lost. Reconnecting…" : "";
      break;
    case "notice":
      notice(value);
      break;
    case "earlier":
      byId("earlier").hidden = !value;
      break;
    case "opened":
      location.hash = `c=${encodeURIComponent(conversation.key)}`;
      break;
    case "ended":
      conversation.isEnded = true;
      byId("connection").textContent = "This conversation was ended.";
      break;
    case "over":
      announce(value);
      refreshList();
  }
  const { running, busy, isEnded, turns, key } = conversation;
  composer.show({ running: running !== null, busy, open: !isEnded });
  byId("welcome").hidden = turns.length > 0 || key !== null;
  byId("welcome-agent").textContent = sidebar.chosenAgent ? `You are writing to ${sidebar.chosenAgent.agentId}.` : "";
  byId("fresh").hidden = byId("end").hidden = key === null || isEnded === true;
  const inList = listed.find((one) => one.agentId === key);
  if (inList && !inList.title && first()) showList();
  byId("title").textContent = titleOf(inList?.title || first()) || "New conversation";
  if (what === "opened") refreshList();
}

/** The open conversation's first message. */
const first = () => conversation.turns.find((turn) => turn.content.trim() !== "/new")?.content ?? null;

function showList() {
  const own = conversation && listed.find((one) => one.agentId === conversation.key);
  if (own) own.title ||= first(); // the list may be older than the message
  sidebar.show(listed, conversation?.key ?? null);
}

function announce(turn) {
  const said = { done: "Reply", failed: "Failed", stopped: "Stopped" }[turn.state];
  byId("announce").textContent =
    `${said}: ${(turn.state === "failed" ? turn.end.error : turn.text).slice(0, SAID_CHARS)}`;
}

function notice(failure) {
  const shown = failure !== null && failure.status !== 401;
  byId("notice").textContent = shown
    ? `${failure.message} ${advice(failure.code)}${failure.code ? ` (${failure.code})` : ""}`
    : "";
}

let refreshing = null;
function refreshList() {
  refreshing ??= (async () => {
    try {
      listed = boundTo === null ? await api.conversations() : listed;
      showList();
    } catch (failure) {
      if (!failure.passing) notice(failure);
    }
    refreshing = null;
  })();
  return refreshing;
}

async function begin(who) {
  boundTo = who.boundTo;
  byId("who").textContent = `${who.userId} · ${who.organizationId}`;
  byId("ops-link").hidden = who.role !== "admin" || boundTo !== null;
  byId("new").hidden = boundTo !== null;
  const [agents, conversations] = await Promise.all([api.agents(), api.conversations()]);
  listed = conversations;
  sidebar.showAgents(agents);
  byId("app").hidden = false;
  const wanted = new URLSearchParams(location.hash.slice(1)).get("c");
  await pick(boundTo ?? wanted ?? conversations[0]?.agentId ?? null);
}

api.onSignedOut(async () => {
  await ask("Your session is over. Sign in again to go on where you were.");
  if (conversation !== null) {
    conversation.resume();
    refreshList();
  }
});

byId("fresh").addEventListener("click", () => conversation.fresh());
byId("end").addEventListener("click", async () => {
  if (!confirm("End this conversation? What was said in it is deleted.")) return;
  await conversation.end();
  refreshList();
});
byId("earlier").firstElementChild.addEventListener("click", () => conversation.earlier().catch(notice));
byId("sign-out").addEventListener("click", async () => {
  await api.signOut();
  sessionStorage.clear();
  location.hash = "";
  location.reload();
});
const showTheme = (next) => (byId("theme").textContent = `Theme: ${theme(next)}`);
byId("theme").addEventListener("click", () => showTheme(true));
addEventListener("hashchange", () => {
  const wanted = new URLSearchParams(location.hash.slice(1)).get("c");
  if (wanted !== null && wanted !== conversation?.key) pick(wanted);
});
setInterval(() => {
  if (!document.hidden && conversation !== null && byId("sign-in").hidden) refreshList();
}, LIST_MS);

showTheme(false);
async function start() {
  for (;;) {
    try {
      return await begin(await signedIn());
    } catch (failure) {
      byId("sign-in").hidden = false;
      byId("sign-in").textContent = `${failure.message} ${advice(failure.code)}`;
      await new Promise((done) => setTimeout(done, 2_000));
      byId("sign-in").hidden = true;
    }
  }
}
start();
