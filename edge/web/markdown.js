// A model's Markdown as elements. What a model writes is nobody's to trust: HTML in it is shown as text, and what is
// made of the rest goes through the sanitiser, which lets a short list of elements and safe links pass. Pictures become
// links: loading one would tell its server who reads.

import { marked } from "./marked.esm.js";
import "./purify.min.js";
import { el } from "./dom.js";

const ALLOWED = {
  ALLOWED_TAGS: [
    "a",
    "blockquote",
    "br",
    "code",
    "del",
    "em",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "strong",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
  ],
  ALLOWED_ATTR: ["href", "title", "start", "data-language"],
  ALLOW_DATA_ATTR: false,
  ADD_URI_SAFE_ATTR: ["data-language", "start"], // no addresses
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};
const LONG = 200_000; // characters; a longer reply is not gone through again as a whole

const escaped = (text) => text.replace(/[&<>"']/g, (found) => `&#${found.codePointAt(0)};`);

marked.use({
  gfm: true,
  renderer: {
    html: (token) => escaped(token.raw ?? token.text),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
    heading({ tokens, depth }) {
      const level = Math.min(6, depth + 2);
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    code: ({ text, lang }) =>
      `<pre data-language="${escaped((lang ?? "").split(/\s/)[0].slice(0, 30))}"><code>${escaped(text)}</code></pre>`,
  },
});

function elements(tokens) {
  const fragment = globalThis.DOMPurify.sanitize(marked.parser(tokens), ALLOWED);
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const pre of fragment.querySelectorAll("pre")) frame(pre);
  for (const table of fragment.querySelectorAll("table")) table.tabIndex = 0;
  return [...fragment.childNodes];
}

/** A head above the code, with its language and a button. */
function frame(pre) {
  const text = pre.textContent;
  const language = pre.dataset.language;
  pre.removeAttribute("data-language");
  const copy = el(
    "button",
    {
      className: "link",
      type: "button",
      "aria-label": "Copy the code",
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(text);
          copy.textContent = "Copied";
        } catch {
          copy.textContent = "Not allowed here";
        }
        setTimeout(() => (copy.textContent = "Copy"), 1500);
      },
    },
    "Copy",
  );
  const box = el(
    "div",
    { className: "snippet" },
    el("div", { className: "snippet-head" }, el("span", {}, language || "text"), copy),
  );
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
  pre.replaceWith(box);
  box.append(pre);
}

/** A growing text in `root`. Blocks that nothing can change any more stay as they are; only the end is made again. */
export class Markdown {
  #settled = 0; // characters whose blocks stay
  #open = []; // nodes of the blocks behind them
  #text = "";

  constructor(root) {
    this.root = root;
  }

  /** Show `text`; `whole`: nothing more comes. */
  update(text, whole = false) {
    if (text === this.#text && !whole) return;
    if (!text.startsWith(this.#text) || (whole && text.length <= LONG)) this.#clear();
    this.#text = text;
    const tokens = marked.lexer(text.slice(this.#settled));
    for (const node of this.#open) node.remove();
    // The last two may still change: a paragraph becomes a heading by the line below it.
    const settling = whole ? tokens.length : Math.max(0, tokens.length - 2);
    const settled = tokens.slice(0, settling);
    this.root.append(...elements(settled));
    this.#settled += settled.reduce((sum, token) => sum + token.raw.length, 0);
    this.#open = elements(tokens.slice(settling));
    this.root.append(...this.#open);
  }

  #clear() {
    this.#settled = 0;
    this.#open = [];
    this.#text = "";
    this.root.replaceChildren();
  }
}
