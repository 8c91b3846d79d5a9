// Making elements. Text becomes text nodes, never markup.

/** An element. `props`: properties, `on…` listeners, `aria-…`, `data-…` and `role` as attributes; children may be null. */
export function el(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** Follow the system's colours, or the one that was chosen here; `next` chooses the next of the three. */
export function theme(next = false) {
  const all = ["system", "light", "dark"];
  let now = localStorage.getItem("lobu-theme");
  if (!all.includes(now)) now = "system";
  if (next) {
    now = all[(all.indexOf(now) + 1) % all.length];
    localStorage.setItem("lobu-theme", now);
  }
  document.documentElement.dataset.theme = now;
  return now;
}

export function ago(ms, now = Date.now()) {
  const seconds = Math.max(0, (now - ms) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return new Date(ms).toLocaleDateString();
}

/** The first line of a message, without its Markdown's marks, as a name for what follows. */
export const titleOf = (text) =>
  (text ?? "")
    .trim()
    .split("\n")[0]
    .replace(/^[#>*\-\s]+|[*_`]/g, "")
    .trim();
