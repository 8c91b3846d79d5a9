// The box in which messages are written. Keeps a draft for each conversation in this tab.

import { byId } from "./dom.js";

export class Composer {
  #key = "";

  constructor({ send, stop }) {
    this.form = byId("composer");
    this.field = byId("message");
    this.stopButton = byId("stop");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      const text = this.field.value;
      if (!text.trim()) return;
      this.field.value = "";
      this.#keep();
      this.#grow();
      send(text);
      this.field.focus();
    });
    this.field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.form.requestSubmit();
      } else if (event.key === "Escape") stop();
    });
    this.field.addEventListener("input", () => {
      this.#keep();
      this.#grow();
    });
    this.stopButton.addEventListener("click", stop);
  }

  /** Another conversation is open now. */
  turnTo(key) {
    this.#key = `lobu-draft-${key ?? "new"}`;
    this.field.value = sessionStorage.getItem(this.#key) ?? "";
    this.#grow();
  }

  /** `running`: there is something to stop; `open`: messages are taken. */
  show({ running, open, busy }) {
    this.stopButton.hidden = !running;
    this.field.disabled = !open;
    byId("send").disabled = !open;
    byId("send").textContent = busy ? "Queue" : "Send";
  }

  #keep() {
    if (this.field.value) sessionStorage.setItem(this.#key, this.field.value);
    else sessionStorage.removeItem(this.#key);
  }

  #grow() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
  }
}
