// Signing in with an API key, for both pages. The key goes to the server once and is kept nowhere.

import * as api from "./api.js";
import { byId, el } from "./dom.js";

let shown = null;

/** Who is signed in; asks for a key until somebody is. `reason`: why it asks. */
export async function signedIn(reason = "") {
  if (shown === null) {
    try {
      return await api.who();
    } catch (failure) {
      if (failure.status !== 401) throw failure;
    }
  }
  return ask(reason);
}

/** Ask for a key now, over whatever the page shows; the same question when it is asked already. */
export function ask(reason = "") {
  shown ??= new Promise((resolve) => show(reason, resolve)).finally(() => (shown = null));
  return shown;
}

function show(reason, done) {
  const place = byId("sign-in");
  const key = el("input", {
    id: "key",
    type: "password",
    name: "key",
    autocomplete: "off",
    spellcheck: false,
    required: true,
    "aria-describedby": "key-help",
  });
  const wrong = el("p", { className: "wrong", role: "alert" });
  const button = el("button", { className: "button primary", type: "submit" }, "Sign in");
  const form = el(
    "form",
    {
      className: "card",
      onsubmit: async (event) => {
        event.preventDefault();
        button.disabled = true;
        wrong.textContent = "";
        try {
          await api.signIn(key.value.trim());
          const who = await api.who();
          place.hidden = true;
          place.replaceChildren();
          byId("app").inert = false;
          done(who);
        } catch (failure) {
          wrong.textContent =
            failure.status === 401 ? "This key is not valid; check that all of it was pasted." : failure.message;
          key.focus();
        }
        button.disabled = false;
      },
    },
    el("h2", {}, "Sign in"),
    el("p", { className: "muted" }, reason || "With an API key of your organization."),
    el("label", { htmlFor: "key" }, "API key"),
    key,
    wrong,
    button,
    el(
      "p",
      { id: "key-help", className: "help" },
      "The first ",
      el("code", {}, "lobu run"),
      " left one in ",
      el("code", {}, ".lobu/admin_key"),
      "; ",
      el("code", {}, "lobu token create"),
      " makes more.",
    ),
  );
  place.replaceChildren(el("div", { role: "dialog", "aria-modal": "true", "aria-label": "Sign in" }, form));
  place.hidden = false;
  byId("app").inert = true;
  key.focus();
}
