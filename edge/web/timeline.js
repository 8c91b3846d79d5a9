// A turn's timeline in a dialog: what happened when, from its acceptance on.

import * as api from "./api.js";
import { byId, el } from "./dom.js";
import { duration } from "./latencies.js";

export function prepare() {
  const dialog = byId("timeline");
  dialog.querySelector("button").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}

export async function show(key, turnId, messageId) {
  const dialog = byId("timeline");
  const place = dialog.lastElementChild;
  place.replaceChildren(el("p", { className: "empty" }, "Reading…"));
  dialog.showModal();
  try {
    const { entries } = await api.timeline(key, turnId);
    place.replaceChildren(
      el(
        "p",
        { className: "empty" },
        "Conversation ",
        el("code", {}, key),
        ", message ",
        el("code", {}, messageId),
        ", turn ",
        el("code", {}, turnId),
      ),
      el("ol", { className: "steps" }, ...entries.map((entry, n) => step(entry, entries[n - 1], entries.at(-1)))),
    );
  } catch (failure) {
    place.replaceChildren(el("p", { className: "empty" }, failure.message));
  }
}

function step(entry, before, last) {
  const whole = Math.max(1, last.sinceStartMs);
  const from = before?.sinceStartMs ?? 0;
  const bar = el("i");
  bar.style.marginLeft = `${(100 * from) / whole}%`;
  bar.style.width = `${(100 * (entry.sinceStartMs - from)) / whole}%`;
  return el(
    "li",
    {},
    el("span", { className: "at" }, `+${duration(entry.sinceStartMs / 1000)}`),
    el("span", {}, entry.name),
    el("span", { className: "detail" }, entry.detail ?? ""),
    el("span", { className: "track", "aria-hidden": "true" }, bar),
  );
}
