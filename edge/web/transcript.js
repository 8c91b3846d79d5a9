// The turns of a conversation as elements: one article a turn, changed in place. Knows the model's turns and no
// network.

import { fileAddress } from "./api.js";
import { advice } from "./codes.js";
import { byId, el } from "./dom.js";
import { Markdown } from "./markdown.js";
import { isOver, isReset } from "./model.js";

const NEAR_PX = 80;

export class Transcript {
  #views = new Map(); // by message id
  #changed = new Set();
  #scheduled = false;

  /** `act`: what the buttons do: answer, cancel, retry, again. */
  constructor(act) {
    this.act = act;
    this.log = byId("log");
    this.scroller = byId("scroll");
  }

  clear(key) {
    this.key = key;
    this.#views.clear();
    this.#changed.clear();
    this.log.replaceChildren();
  }

  /** Turns that are newer than all that is shown. */
  append(turns) {
    const atEnd = this.atEnd;
    this.log.append(...turns.map((turn) => this.#make(turn)));
    if (atEnd) this.toEnd();
  }

  /** Turns that are older than all that is shown; what is looked at stays where it is. */
  prepend(turns) {
    const fromEnd = this.scroller.scrollHeight - this.scroller.scrollTop;
    this.log.prepend(...turns.map((turn) => this.#make(turn)));
    this.scroller.scrollTop = this.scroller.scrollHeight - fromEnd;
  }

  /** Show `turn` as it is now, with the next frame. */
  update(turn) {
    this.#changed.add(turn);
    if (this.#scheduled) return;
    this.#scheduled = true;
    // A page that is not seen gets no frames; its text must not pile up unseen either.
    const soon = document.hidden ? (draw) => setTimeout(draw, 250) : requestAnimationFrame;
    soon(() => {
      this.#scheduled = false;
      const atEnd = this.atEnd;
      for (const one of this.#changed) this.#views.get(one.messageId)?.draw();
      this.#changed.clear();
      if (atEnd) this.toEnd();
    });
  }

  remove(turn) {
    this.#views.get(turn.messageId)?.root.remove();
    this.#views.delete(turn.messageId);
  }

  get atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_PX;
  }

  toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #make(turn) {
    const view = new TurnView(turn, this.key, this.act);
    this.#views.set(turn.messageId, view);
    view.draw();
    return view.root;
  }
}

class TurnView {
  #asked = new Map(); // question id -> its element

  constructor(turn, key, act) {
    Object.assign(this, { turn, key, act });
    this.said = isReset(turn)
      ? el("p", { className: "mark" }, "New session")
      : el("p", { className: "said" }, turn.content);
    this.reply = el("div", { className: "reply prose" });
    this.markdown = new Markdown(this.reply);
    this.first = el("div"); // questions that were asked before anything was said
    this.then = el("div");
    this.end = el("div");
    this.state = el("div", { className: "state" });
    this.root = el(
      "article",
      { "aria-label": "Message and reply" },
      this.said,
      this.first,
      this.reply,
      this.then,
      this.end,
      this.state,
    );
  }

  draw() {
    const { turn } = this;
    this.root.className = `turn ${turn.state}`;
    this.root.dataset.message = turn.messageId;
    this.root.setAttribute("aria-busy", String(turn.state === "running"));
    this.markdown.update(isReset(turn) ? "" : turn.text, isOver(turn));
    for (const question of turn.questions) this.#drawQuestion(question);
    this.end.replaceChildren(...this.#ending());
    this.state.replaceChildren(...this.#stateLine());
    this.state.hidden = this.state.childNodes.length === 0;
  }

  #stateLine() {
    const { turn, act } = this;
    const button = (label, onclick, name = label) =>
      el("button", { className: "link", type: "button", onclick, "aria-label": name }, label);
    switch (turn.state) {
      case "sending":
        return ["Sending…"];
      case "unsent":
        return [turn.note, button("Send again", () => act.retry(turn)), button("Discard", () => act.discard(turn))];
      case "waiting":
        return ["Waits for its turn", button("Cancel", () => act.cancel(turn), "Cancel this message")];
      case "running": {
        const waits = turn.questions.some((question) => question.answer === null);
        const dots = el("span", { className: "thinking", "aria-hidden": "true" }, el("i"), el("i"), el("i"));
        return waits ? ["Waits for your answer"] : [dots, turn.note || (turn.text ? "" : "Thinking")];
      }
      case "stopped":
        return ["Stopped"];
      case "done":
        return turn.text.trim() || turn.end?.files?.length || isReset(turn) ? [] : ["An empty reply"];
      default:
        return [];
    }
  }

  #ending() {
    const { turn, act } = this;
    if (turn.state === "failed") {
      const { error, errorCode, errorContext } = turn.end;
      const settings = safeAddress(errorContext?.settingsUrl);
      return [
        el(
          "div",
          { className: "box failed", role: "group", "aria-label": "This failed" },
          el("p", {}, error),
          advice(errorCode) ? el("p", {}, advice(errorCode)) : null,
          el(
            "div",
            { className: "row" },
            el("button", { className: "button small", type: "button", onclick: () => act.again(turn) }, "Send again"),
            settings ? el("a", { href: settings, className: "button small" }, "Set up the agent") : null,
            el("span", { className: "code" }, errorCode),
          ),
        ),
      ];
    }
    const files = turn.end?.files ?? [];
    if (files.length === 0) return [];
    const links = files.map((file) =>
      el("a", { className: "button small", href: fileAddress(this.key, file.fileId), download: file.name }, file.name),
    );
    return [el("div", { className: "box" }, el("div", { className: "row" }, ...links))];
  }

  #drawQuestion(question) {
    const open = question.answer === null && !isOver(this.turn);
    const state = `${open} ${question.answer} ${question.problem ?? ""}`;
    const old = this.#asked.get(question.questionId);
    if (old?.state === state) return; // it may have the focus, or half an answer in it
    const made = el(
      "div",
      { className: "box asked", role: "group", "aria-label": "A question" },
      el("p", { className: "prompt" }, question.prompt),
      ...this.#answering(question, open),
    );
    if (old) old.made.replaceWith(made);
    else (question.first ? this.first : this.then).append(made);
    this.#asked.set(question.questionId, { made, state });
  }

  #answering(question, open) {
    if (!open)
      return [
        el("p", { className: "muted" }, question.answer === null ? "Not answered" : `Answered: ${question.answer}`),
      ];
    const answer = (text) => this.act.answer(this.turn, question, text);
    const problem = question.problem ? el("p", { role: "alert" }, question.problem) : null;
    if (question.options?.length) {
      const buttons = question.options.map((option) =>
        el("button", { className: "button", type: "button", onclick: () => answer(option) }, option),
      );
      return [el("div", { className: "row" }, ...buttons), problem];
    }
    const field = el("input", { "aria-label": "Your answer", required: true, autocomplete: "off" });
    const form = el(
      "form",
      {
        onsubmit: (event) => {
          event.preventDefault();
          answer(field.value);
        },
      },
      field,
      el("button", { className: "button", type: "submit" }, "Answer"),
    );
    return [form, problem];
  }
}

/** An address that a failure names; only of the web, whatever it says. */
function safeAddress(text) {
  if (typeof text !== "string") return null;
  const found = URL.parse?.(text, location.href) ?? null;
  return found !== null && ["http:", "https:"].includes(found.protocol) ? found.href : null;
}
