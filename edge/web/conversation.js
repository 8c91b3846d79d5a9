// One open conversation: its turns, what is sent to it and what its stream tells. Shows through a Transcript.

import * as api from "./api.js";
import { apply, applyQuestion, isOver, listedTurn, newTurn } from "./model.js";
import { Stream } from "./stream.js";

const TRIES_MS = 25_000; // a message that could not be sent is tried for so long: a server that restarts is back by then
const FIRST_WAIT_MS = 300;

export class Conversation {
  turns = []; // oldest first
  #byId = new Map();
  #before = null;
  #stream = null;
  #closed = false;
  #sending = Promise.resolve(); // messages go one after another, so that they are taken in as they were written
  #looking = null;

  /** `key` null: it is opened with its first message. `tell(what, value)`: state, ended, notice, opened, earlier, changed. */
  constructor(key, agentId, transcript, tell) {
    Object.assign(this, { key, agentId, transcript, tell });
    transcript.clear(key);
  }

  get running() {
    return this.turns.find((turn) => turn.state === "running") ?? null;
  }

  get busy() {
    return this.turns.some((turn) => !isOver(turn) && turn.state !== "unsent");
  }

  /** Read what is there and follow what comes. Raises Failure. */
  async load() {
    if (this.key === null) return;
    const page = await api.turns(this.key);
    if (this.#closed) return;
    this.#take(page.turns.map(listedTurn));
    this.#setBefore(page.before);
    this.transcript.toEnd();
    this.#follow(page.since);
    this.tell("changed");
  }

  close() {
    this.#closed = true;
    this.#stream?.close();
  }

  /** Follow again, after signing in. */
  resume() {
    if (this.#stream !== null) this.#follow(this.#stream.last);
    for (const turn of this.turns) if (turn.state === "unsent") this.retry(turn);
  }

  async earlier() {
    if (this.#before === null) return;
    const page = await api.turns(this.key, this.#before);
    if (this.#closed) return;
    const older = page.turns.map(listedTurn).filter((turn) => !this.#byId.has(turn.messageId));
    for (const turn of older) this.#byId.set(turn.messageId, turn);
    this.turns.unshift(...older);
    this.transcript.prepend(older);
    this.#setBefore(page.before);
  }

  // --- what a person does

  send(content) {
    const turn = newTurn(api.newId(), content);
    this.#take([turn]);
    this.transcript.toEnd();
    this.#queue(turn);
  }

  retry = (turn) => {
    turn.state = "sending";
    this.#show(turn);
    this.#queue(turn); // under the same id: taken in once, however often it was sent
  };

  discard = (turn) => {
    this.turns = this.turns.filter((one) => one !== turn);
    this.#byId.delete(turn.messageId);
    this.transcript.remove(turn);
    this.tell("changed");
  };

  again = (turn) => this.send(turn.content);

  cancel = async (turn) => {
    turn.note = "Stopping";
    this.#show(turn);
    await this.#attempt(() => api.cancel(this.key, turn.messageId));
  };

  fresh = () => this.send("/new");

  answer = async (turn, question, text) => {
    try {
      await api.answer(this.key, question.questionId, text);
      question.answer = text;
      question.problem = null;
    } catch (failure) {
      question.problem = failure.message;
    }
    this.#show(turn);
  };

  end = () => this.#attempt(() => api.end(this.key));

  async #attempt(act) {
    try {
      await act();
    } catch (failure) {
      this.tell("notice", failure);
    }
  }

  #queue(turn) {
    this.#sending = this.#sending.then(() => this.#send(turn));
  }

  async #send(turn) {
    const until = Date.now() + TRIES_MS;
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, 3_000)) {
      try {
        if (this.key === null) await this.#open();
        const receipt = await api.send(this.key, turn.content, turn.messageId);
        turn.turnId = receipt.turnId;
        if (turn.state === "sending") turn.state = "waiting";
        break;
      } catch (failure) {
        if (failure.passing && Date.now() + wait < until && !this.#closed) {
          await new Promise((done) => setTimeout(done, Math.max(wait, (failure.retryAfter ?? 0) * 1000)));
          continue;
        }
        turn.state = "unsent";
        turn.note = failure.status === 401 ? "Not sent: sign in first." : `Not sent. ${failure.message}`;
        this.tell("notice", failure);
        break;
      }
    }
    this.#show(turn);
  }

  async #open() {
    this.key = await api.open(this.agentId);
    this.transcript.key = this.key;
    this.#follow(0);
    this.tell("opened");
  }

  // --- what is told

  #follow(since) {
    this.#stream?.close();
    this.#stream = new Stream(
      this.key,
      since,
      (kind, data) => this.#hear(kind, data),
      (state, failure) => this.#link(state, failure),
    );
  }

  #link(state, failure) {
    if (state === "refused" && failure.status !== 401) this.tell("notice", failure);
    this.tell("state", state);
  }

  #hear(kind, data) {
    if (kind === "closed") this.tell("ended");
    else if (kind === "gap") this.#look();
    else if (kind === "question-answered") {
      const turn = this.turns.find((one) => applyQuestion(one, data));
      if (turn) this.#show(turn);
    } else if (data.messageId && !this.#byId.has(data.messageId))
      this.#look(); // sent elsewhere: from another tab, say
    else if (data.messageId) this.#change(kind, data);
  }

  #change(kind, data) {
    const turn = this.#byId.get(data.messageId);
    if (!apply(turn, kind, data)) return;
    this.#show(turn);
    if (isOver(turn)) this.tell("over", turn);
  }

  /** Read anew what this page has not seen, and hear again what was told of it meanwhile. */
  #look() {
    this.#looking ??= this.#read().finally(() => (this.#looking = null));
  }

  async #read() {
    try {
      const page = await api.turns(this.key);
      if (this.#closed) return;
      for (const turn of page.turns.map(listedTurn)) {
        const known = this.#byId.get(turn.messageId);
        if (!known) this.#take([turn]);
        else if (!isOver(known)) {
          Object.assign(known, {
            turnId: turn.turnId,
            state: turn.state,
            end: turn.end,
            text: isOver(turn) ? turn.text : "",
          });
          this.#show(known);
        }
      }
      for (const turn of this.turns) if (!isOver(turn)) turn.text = "";
      this.#follow(page.since);
    } catch (failure) {
      this.tell("notice", failure);
    }
  }

  #take(turns) {
    const fresh = turns.filter((turn) => !this.#byId.has(turn.messageId));
    for (const turn of fresh) this.#byId.set(turn.messageId, turn);
    this.turns.push(...fresh);
    this.transcript.append(fresh);
    this.tell("changed");
  }

  #setBefore(before) {
    this.#before = before;
    this.tell("earlier", before !== null);
  }

  #show(turn) {
    this.transcript.update(turn);
    this.tell("changed");
  }
}
