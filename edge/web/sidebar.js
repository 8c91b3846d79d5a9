// The list of conversations and the choice of an agent. On a narrow page it is a drawer.

import { ago, byId, el, titleOf } from "./dom.js";

export class Sidebar {
  /** `pick(key | null)`: open that one, or begin a new one. */
  constructor(pick) {
    this.pick = pick;
    this.list = byId("conversations");
    this.agent = byId("agent");
    this.side = byId("sidebar");
    this.opener = byId("open-sidebar");
    this.narrow = matchMedia("(max-width: 46rem)");
    byId("new").addEventListener("click", () => this.#choose(null));
    this.agent.addEventListener("change", () => this.#choose(null));
    this.opener.addEventListener("click", () => this.toggle(true));
    byId("close-sidebar").addEventListener("click", () => this.toggle(false));
    byId("backdrop").addEventListener("click", () => this.toggle(false));
    this.side.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.narrow.matches) this.toggle(false);
    });
  }

  toggle(open) {
    this.side.classList.toggle("open", open);
    byId("backdrop").hidden = !open;
    byId("main").inert = open && this.narrow.matches;
    this.opener.setAttribute("aria-expanded", String(open));
    if (open) byId("close-sidebar").focus();
    else if (this.narrow.matches) this.opener.focus();
  }

  showAgents(agents) {
    this.agents = agents;
    this.agent.replaceChildren(
      ...agents.map((agent) =>
        el(
          "option",
          { value: agent.agentId, selected: agent.isDefault },
          agent.agentId + (agent.isDefault ? " (default)" : ""),
        ),
      ),
    );
    this.agent.disabled = agents.length < 2;
  }

  get chosenAgent() {
    return this.agents.find((agent) => agent.agentId === this.agent.value) ?? null;
  }

  /** `current` is the one that is open. */
  show(conversations, current) {
    const focused = document.activeElement?.dataset?.key;
    this.list.replaceChildren(...conversations.map((one) => this.#item(one, one.agentId === current)));
    if (focused) this.list.querySelector(`a[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  #item(one, isCurrent) {
    const busy = one.running + one.queued > 0;
    return el(
      "li",
      {},
      el(
        "a",
        {
          href: `#c=${encodeURIComponent(one.agentId)}`,
          "aria-current": isCurrent ? "page" : null,
          "data-key": one.agentId,
          onclick: (event) => {
            if (event.ctrlKey || event.metaKey || event.shiftKey) return;
            event.preventDefault();
            this.#choose(one.agentId);
          },
        },
        el("span", { className: "name" }, titleOf(one.title) || "Empty conversation"),
        el(
          "span",
          { className: "when" },
          busy ? el("span", { className: "dot", role: "img", "aria-label": "Working" }) : null,
          this.agents.length > 1 ? `${one.agent} · ` : "",
          ago(one.lastActivity),
        ),
      ),
    );
  }

  #choose(key) {
    if (this.narrow.matches) this.toggle(false);
    this.pick(key);
  }
}
