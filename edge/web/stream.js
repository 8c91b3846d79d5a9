// One conversation's event stream: opened, resumed from the last id, and opened again for as long as it is wanted.
// EventSource would wait a second and give up on a refusal; here each loss is one try after another, sooner at first.

import * as api from "./api.js";

const KINDS = [
  "output",
  "status",
  "ephemeral",
  "question",
  "question-answered",
  "cancel",
  "restart",
  "complete",
  "agent-error",
  "cancelled",
  "gap",
  "closed",
];
const FIRST_MS = 150;
const MOST_MS = 8_000;
const TELL_MS = 700; // a loss shorter than this is nothing that a person should read of
const HIDDEN_MS = 60_000; // a page that nobody sees gives its connection back: browsers have six for each server
const STALE_MS = 45_000;

export class Stream {
  #source = null;
  #timer = null;
  #tell = null;
  #hide = null;
  #lost = 0;
  #closed = false;
  #heard = Date.now();

  /** `onEvent(kind, data)`; `onState("live" | "lost" | "refused", failure?)`. From the id `since` on. */
  constructor(key, since, onEvent, onState) {
    this.key = key;
    this.last = String(since);
    this.onEvent = onEvent;
    this.onState = onState;
    this.#connect();
    addEventListener("online", this.#again);
    document.addEventListener("visibilitychange", this.#seen);
  }

  close() {
    this.#closed = true;
    this.#source?.close();
    for (const timer of [this.#timer, this.#tell, this.#hide]) clearTimeout(timer);
    removeEventListener("online", this.#again);
    document.removeEventListener("visibilitychange", this.#seen);
  }

  #connect() {
    clearTimeout(this.#timer);
    this.#source?.close();
    const source = (this.#source = new EventSource(api.eventsAddress(this.key, this.last)));
    source.addEventListener("connected", () => {
      this.#lost = 0;
      this.#heard = Date.now();
      clearTimeout(this.#tell);
      this.#tell = null;
      this.onState("live");
    });
    for (const kind of KINDS) source.addEventListener(kind, (event) => this.#take(kind, event));
    source.addEventListener("drain", (event) => this.#retry(JSON.parse(event.data).reconnectInMs));
    source.addEventListener("error", (event) => {
      // `error` is also the older name of `agent-error`: that one has data, a lost connection has none.
      if (!(event instanceof MessageEvent) && source === this.#source) this.#refusedOrLost();
    });
  }

  #take(kind, event) {
    this.#heard = Date.now();
    if (event.lastEventId) this.last = event.lastEventId;
    if (kind === "closed") this.close();
    this.onEvent(kind, JSON.parse(event.data));
  }

  async #refusedOrLost() {
    this.#source.close();
    this.#tell ??= setTimeout(() => this.onState("lost"), TELL_MS);
    this.#lost += 1;
    if (this.#lost > 1) {
      try {
        await api.show(this.key); // says what EventSource does not: whether it was refused, and why
      } catch (failure) {
        if (!this.#closed && !failure.passing) {
          this.close();
          this.onState("refused", failure);
          return;
        }
      }
    }
    this.#retry(Math.min(MOST_MS, FIRST_MS * 2 ** Math.min(this.#lost, 6)) * (0.75 + Math.random() / 2));
  }

  #retry(ms) {
    this.#source?.close();
    clearTimeout(this.#timer);
    if (!this.#closed) this.#timer = setTimeout(() => this.#connect(), ms);
  }

  #again = () => {
    if (!this.#closed) this.#connect();
  };

  #seen = () => {
    clearTimeout(this.#hide);
    if (document.hidden) {
      this.#hide = setTimeout(() => {
        clearTimeout(this.#timer);
        this.#source?.close();
        this.#source = null;
      }, HIDDEN_MS);
    } else if (
      this.#source === null ||
      this.#source.readyState === EventSource.CLOSED ||
      Date.now() - this.#heard > STALE_MS
    ) {
      this.#again();
    }
  };
}
