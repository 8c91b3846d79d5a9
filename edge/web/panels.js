// The parts of the operations page, each made from what the hosts told. Elements are made anew at each look, but not
// while a person is in them: what has the focus, or is being selected, stays.

import { ago, byId, el } from "./dom.js";
import { duration, merged, plot, quantile, together, total } from "./latencies.js";

const SHOWN = 50; // of actors and of workers, whatever the number of hosts
const NEAR = 0.15; // of a clock's time; below it a person should look

// A click is one on the element that was pressed: it must not be another one when it is let go.
let pressed = null;
addEventListener("pointerdown", (event) => (pressed = event.target));
for (const over of ["pointerup", "pointercancel"]) addEventListener(over, () => (pressed = null));

/** Put `children` into the element `id`, unless somebody is in it. */
function put(id, ...children) {
  const place = byId(id);
  if (pressed && place.contains(pressed)) return;
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && place.contains(selection.anchorNode)) return;
  const focused = place.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  place.replaceChildren(...children.filter((child) => child !== null));
  if (focused) [...place.querySelectorAll("[data-id]")].find((one) => one.dataset.id === focused)?.focus();
}

const empty = (text) => el("p", { className: "empty" }, text);
const badge = (text, kind = "") => el("span", { className: `badge ${kind}` }, text);
const megabytes = (bytes) => (bytes === null ? "–" : `${(bytes / 1048576).toFixed(bytes < 104857600 ? 1 : 0)} MB`);

/** Of all hosts; one of an earlier release may lack it. */
const sum = (house, name) => house.hosts.reduce((all, host) => all + (host[name] ?? 0), 0);

/** What a table leaves out, in words. `all` counts those of other organizations too. */
const more = (shown, all, what) =>
  all > shown ? el("p", { className: "legend" }, `and ${all - shown} more ${what}`) : null;

/** A conversation's id, of which the beginning and the end tell most. */
const named = (id) => el("span", { title: id }, id.length > 20 ? `${id.slice(0, 10)}…${id.slice(-8)}` : id);

/** `columns`: [heading, kind]; `rows`: cells that are texts or elements. */
function table(label, columns, rows) {
  const head = el("tr", {}, ...columns.map(([name, kind]) => el("th", { scope: "col", className: kind ?? "" }, name)));
  const body = rows.map((cells) =>
    el("tr", {}, ...cells.map((cell, n) => el("td", { className: columns[n][1] ?? "" }, cell))),
  );
  return el(
    "div",
    { className: "table", tabIndex: 0, role: "region", "aria-label": label },
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...body)),
  );
}

function turnButton(key, turnId, messageId, show) {
  return el(
    "button",
    {
      className: "link",
      type: "button",
      "data-id": turnId,
      onclick: () => show(key, turnId, messageId),
      "aria-label": `Timeline of message ${messageId}`,
    },
    "Timeline",
  );
}

export function tiles(house) {
  const { totals } = house;
  const failures = house.hosts.reduce((all, host) => all + host.failures.length, 0);
  const slots = together(house.hosts.map((host) => host.terminal));
  const lately = slots.slice(-7, -1);
  const rate = lately.length ? total(merged(lately)) / (lately.length * house.hosts[0].terminal.slotSeconds) : null;
  const tile = (name, value, bad = false) =>
    el(
      "div",
      { className: `tile ${bad ? "bad" : ""}` },
      el("span", { className: "value" }, value),
      el("span", { className: "name" }, name),
    );
  put(
    "tiles",
    tile("running turns", String(totals?.running ?? "–")),
    tile("queued turns", String(totals?.queued ?? "–")),
    tile("oldest turn", duration(totals?.oldestOwedSeconds)),
    ...(house.seesHosts
      ? [tile("turns a second", rate === null ? "–" : rate < 10 ? rate.toFixed(1) : String(Math.round(rate)))]
      : []),
    tile("actors", String(sum(house, "activeActors"))),
    tile("workers", String(sum(house, "workersInAll"))),
    tile("failures lately", `${failures}${failures < SHOWN ? "" : "+"}`, failures > 0),
    tile("database", house.store, house.store !== "ready"),
  );
}

export function latencies(id, house, name, what) {
  const all = house.hosts.map((host) => host[name]);
  const slots = together(all);
  if (!house.seesHosts) return put(id, empty("Shown to the organization whose hosts these are."));
  if (slots.length === 0) return put(id, empty("None in the last six minutes."));
  const counts = merged(slots);
  const [p50, p90, p99] = [0.5, 0.9, 0.99].map((share) => duration(quantile(counts, share)));
  const label = `${what}, last six minutes: ${total(counts)} of them, median ${p50}, 99th percentile ${p99}`;
  const value = (title, text) => el("span", {}, `${title} `, el("b", {}, text));
  return put(
    id,
    plot(slots, all[0].slotSeconds, Date.now() / 1000, label),
    el(
      "p",
      { className: "legend" },
      value("—  p50", p50),
      value("p90", p90),
      value("- -  p99", p99),
      value("in all", String(total(counts))),
    ),
  );
}

/** `wholes` keeps how long each clock was when it was first seen, for its bar. */
export function turns(house, elapsed, wholes, show) {
  const all = house.hosts.flatMap((host) => host.turns.map((turn) => [host, turn]));
  const rows = all
    .sort(([, a], [, b]) => b.ageSeconds - a.ageSeconds)
    .slice(0, SHOWN)
    .map(([host, turn]) => [
      el("span", {}, named(turn.conversationId), turn.joined ? ` +${turn.joined}` : ""),
      turnButton(turn.conversationId, turn.turnId, turn.messageId, show),
      badge(turn.phase + (turn.attempt > 1 ? `, attempt ${turn.attempt}` : ""), turn.attempt > 1 ? "warn" : ""),
      turn.doing ?? (turn.textLength ? `${turn.textLength} characters` : "–"),
      duration(turn.ageSeconds + (host.frozen ? 0 : elapsed)),
      el(
        "div",
        { className: "clocks" },
        ...turn.clocks.map((clock) => {
          const key = `${turn.turnId} ${turn.attempt} ${clock.code}`;
          const left = Math.max(0, clock.leftSeconds - (host.frozen ? 0 : elapsed));
          const whole = Math.max(wholes.get(key) ?? 0, clock.leftSeconds, 0.1);
          wholes.set(key, whole);
          const bar = el("i");
          bar.style.width = `${(100 * left) / whole}%`;
          return el(
            "div",
            { className: `clock ${left / whole < NEAR ? "near" : ""}` },
            el("div", { className: "label" }, el("span", {}, clock.code), el("span", {}, duration(left))),
            el("div", { className: "bar" }, bar),
          );
        }),
      ),
    ]);
  put(
    "turns",
    rows.length === 0
      ? empty("Nothing runs.")
      : table(
          "Turns in flight",
          [
            ["Conversation", "wide"],
            ["Details"],
            ["Phase"],
            ["Doing"],
            ["For", "number"],
            ["Ends unless heard of within", "clocked"],
          ],
          rows,
        ),
    more(rows.length, sum(house, "running"), "runs"),
  );
}

export function failures(house, chosen, choose, show) {
  const all = house.hosts.flatMap((host) => host.failures).sort((a, b) => b.atMs - a.atMs);
  if (all.length === 0) return put("failures", empty("None since these hosts started."));
  const byCode = new Map();
  for (const one of all) byCode.set(one.code, (byCode.get(one.code) ?? 0) + 1);
  const codes = [...byCode]
    .sort((a, b) => b[1] - a[1])
    .map(([code, count]) =>
      el(
        "button",
        {
          className: "button small",
          type: "button",
          "data-id": code,
          "aria-pressed": String(code === chosen),
          onclick: () => choose(code === chosen ? null : code),
        },
        `${code} · ${count}`,
      ),
    );
  const rows = all
    .filter((one) => chosen === null || one.code === chosen)
    .slice(0, 30)
    .map((one) => [
      badge(one.code, "bad"),
      turnButton(one.conversationId, one.turnId, one.messageId, show),
      ago(one.atMs),
      named(one.conversationId),
    ]);
  return put(
    "failures",
    el("div", { className: "codes", role: "group", "aria-label": "By code" }, ...codes),
    table("Recent failures", [["Code"], ["Details"], ["When"], ["Conversation", "wide"]], rows),
  );
}

export function hosts(house, elapsed) {
  byId("hosts-panel").hidden = byId("tree-panel").hidden = !house.seesHosts;
  if (house.store !== "ready") return put("hosts", empty("The database is away; leases cannot be read."));
  const told = new Set(house.hosts.map((host) => host.hostId));
  const silent = house.leases.filter((host) => host.state !== "dead" && !told.has(host.hostId)).length;
  const rows = house.leases.map((host) => {
    const left = host.expiresInSeconds - elapsed;
    const linked = house.hosts.find((one) => one.hostId === host.hostId);
    const state = linked?.frozen ? "frozen" : host.state;
    return [
      host.name,
      el("code", {}, host.hostId.slice(0, 8)),
      badge(state, state === "active" ? "" : state === "dead" ? "bad" : "warn"),
      left > 0 ? duration(left) : "expired",
      String(host.leases),
      String(host.taken),
      String(host.running),
      String(host.queued),
      duration(host.upSeconds),
      `${host.linksUp}/${host.linksUp + host.linksDown}`,
      host.version,
    ];
  });
  return put(
    "hosts",
    rows.length === 0
      ? empty("No host.")
      : table(
          "Hosts and leases",
          [
            ["Name"],
            ["Id"],
            ["State"],
            ["Lease", "number"],
            ["Holds", "number"],
            ["Taken over", "number"],
            ["Running", "number"],
            ["Queued", "number"],
            ["Up", "number"],
            ["Links", "number"],
            ["Version"],
          ],
          rows,
        ),
    more(rows.length, rows.length + house.moreLeases, "hosts"),
    silent ? el("p", { className: "legend" }, `${silent} of them not asked, or without an answer, below`) : null,
  );
}

export function workers(house) {
  const all = house.hosts.flatMap((host) => host.workers).sort((a, b) => b.ageSeconds - a.ageSeconds);
  const remote = all.some((worker) => typeof worker.machine === "string");
  const rows = all
    .slice(0, SHOWN)
    .map((worker) => [
      worker.worker,
      typeof worker.machine === "string" ? worker.machine || "none yet" : String(worker.pid ?? "–"),
      badge(worker.state, worker.state === "ready" ? "" : "warn"),
      megabytes(worker.memoryBytes),
      duration(worker.ageSeconds),
      named(worker.conversationId),
    ]);
  const where = remote ? ["Pid or machine"] : ["Pid", "number"];
  const places = sum(house, "idlePlaces");
  put(
    "workers",
    rows.length === 0
      ? empty("No conversation has a worker.")
      : table(
          "Workers",
          [["Type"], where, ["State"], ["Memory", "number"], ["Age", "number"], ["Conversation", "wide"]],
          rows,
        ),
    more(rows.length, sum(house, "workersInAll"), "workers"),
    house.seesHosts ? el("p", { className: "legend" }, `${sum(house, "idleWorkers")} idle, kept ready`) : null,
    places ? el("p", { className: "legend" }, `${places} idle places on other machines`) : null,
  );
}

export function actors(house) {
  const rows = house.hosts
    .flatMap((host) => host.actors)
    .sort((a, b) => b.waiting - a.waiting || b.running - a.running)
    .slice(0, SHOWN)
    .map((actor) => [
      named(actor.conversationId),
      actor.running ? badge("running") : "idle",
      String(actor.waiting),
    ]);
  put(
    "actors",
    rows.length === 0
      ? empty("No conversation is in memory.")
      : table("Actors", [["Conversation", "wide"], ["State"], ["Mailbox", "number"]], rows),
    more(rows.length, sum(house, "activeActors"), "actors"),
  );
}

export function tree(house) {
  const item = (node) =>
    el(
      "li",
      {},
      el(
        "div",
        {},
        el("span", { className: `light ${node.state}`, "aria-hidden": "true" }),
        node.name,
        el("span", { className: "kind" }, node.state === "running" ? "" : node.state),
        node.restarts ? badge(`${node.restarts} restart${node.restarts === 1 ? "" : "s"}`, "warn") : null,
      ),
      node.children.length ? el("ul", {}, ...node.children.map(item)) : null,
    );
  put(
    "tree",
    ...house.hosts.map((host) =>
      el(
        "div",
        { className: "host" },
        house.hosts.length > 1 ? el("h3", {}, `${host.name} ${host.hostId.slice(0, 8)}`) : null,
        el("ul", { className: "tree" }, item(host.tree)),
      ),
    ),
  );
}
