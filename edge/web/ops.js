// The operations page: hears how the hosts are once a second while it is seen, and shows it. Owns the stream and the
// choices.

import * as api from "./api.js";
import { byId, el, theme } from "./dom.js";
import * as panels from "./panels.js";
import { ask, signedIn } from "./signin.js";
import * as timeline from "./timeline.js";

const TICK_MS = 250; // clocks run down between two looks
const FIRST_MS = 300;
const MOST_MS = 10_000;

let source = null;
let house = null;
let heardAt = 0;
let code = null;
let lost = 0;
let retry = null;
const wholes = new Map();

function state(text, live) {
  byId("state").textContent = text;
  byId("state").classList.toggle("live", live);
  byId("app").querySelector("main").classList.toggle("stale", !live && house !== null); // what is shown is from before
}

function connect() {
  clearTimeout(retry);
  source?.close();
  const mine = (source = new EventSource("api/v1/ops/events"));
  mine.addEventListener("house", (event) => {
    house = JSON.parse(event.data);
    heardAt = performance.now();
    lost = 0;
    state("Live", true);
    draw();
  });
  mine.addEventListener("drain", (event) => again(JSON.parse(event.data).reconnectInMs));
  mine.addEventListener("error", async () => {
    if (mine !== source) return;
    mine.close();
    lost += 1;
    state("Connection lost. Reconnecting…", false);
    if (lost > 1)
      await api.who().catch((failure) => failure.status === 401 && ask("Your session is over. Sign in again."));
    again(Math.min(MOST_MS, FIRST_MS * 2 ** lost));
  });
}

function again(ms) {
  source?.close();
  clearTimeout(retry);
  retry = setTimeout(() => !document.hidden && connect(), ms);
}

function draw() {
  panels.tiles(house);
  panels.latencies("terminal", house, "terminal", "Message to terminal event");
  panels.latencies("crash", house, "crash", "Crash to terminal event");
  panels.failures(
    house,
    code,
    (chosen) => {
      code = chosen;
      draw();
    },
    timeline.show,
  );
  panels.workers(house);
  panels.actors(house);
  panels.tree(house);
  running();
  if (wholes.size > 5_000) wholes.clear();
}

function running() {
  const elapsed = (performance.now() - heardAt) / 1000;
  panels.turns(house, elapsed, wholes, timeline.show);
  panels.hosts(house, elapsed);
}

/** The address that a failure for want of a model gives people: `#agent=…`. */
async function showAgent() {
  const wanted = new URLSearchParams(location.hash.slice(1)).get("agent");
  byId("agent-panel").hidden = wanted === null;
  if (wanted === null) return;
  byId("agent-head").textContent = `Agent ${wanted}`;
  const found = (await api.agents()).find((agent) => agent.agentId === wanted);
  const place = byId("agent-panel").lastElementChild;
  place.replaceChildren(
    found
      ? el(
          "p",
          { className: "empty" },
          `Worker type ${found.worker}, model ${found.model ?? "none yet"}. It is set up in lobu.toml under [[agents]]: `,
          el("code", {}, 'model = "provider/name"'),
          ", then ",
          el("code", {}, "systemctl reload"),
          " or SIGHUP.",
        )
      : el("p", { className: "empty" }, "There is no such agent for you."),
  );
}

async function begin() {
  const who = await signedIn("With an administrator's API key.");
  if (who.role !== "admin" || who.boundTo !== null) {
    state("This page is for administrators. Sign in with an admin key.", false);
    byId("app").hidden = false;
    await ask("This page is for administrators.");
    return begin();
  }
  byId("app").hidden = false;
  await showAgent();
  connect();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    // Nobody looks: the server computes nothing.
    clearTimeout(retry);
    source?.close();
    source = null;
    state("Paused", false);
  } else if (house !== null) connect();
});
setInterval(() => {
  if (house !== null && source !== null && !document.hidden) running();
}, TICK_MS);
addEventListener("hashchange", showAgent);
const showTheme = (next) => (byId("theme").textContent = `Theme: ${theme(next)}`);
byId("theme").addEventListener("click", () => showTheme(true));
showTheme(false);
timeline.prepare();
begin();
