// Calls of the HTTP interface with the browser's cookie. Knows addresses and failures, no page.

/** What a call came to when it was not done. `status` 0: no answer at all. */
export class Failure extends Error {
  constructor(status, code, sentence, retryAfter = null) {
    super(sentence);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }

  /** The same call again may well be done: nothing is wrong with it. */
  get passing() {
    return this.status === 0 || this.status === 503 || this.code === "RATE_LIMITED";
  }
}

const CALL_MS = 20_000;
let signedOut = () => {};

/** `listener` is called whenever a call finds that the session is over. */
export const onSignedOut = (listener) => (signedOut = listener);

/** The answer's JSON. Raises Failure. `quiet`: that nobody is signed in is no news. */
export async function call(method, path, body = undefined, headers = {}, quiet = false) {
  let answer;
  let found;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(CALL_MS),
    });
    found = await answer.json();
  } catch {
    if (answer?.ok === false) throw new Failure(answer.status, "", `The server answered ${answer.status}.`);
    throw new Failure(0, "UNREACHABLE", "The server cannot be reached.");
  }
  if (answer.ok) return found;
  const failure = new Failure(
    answer.status,
    found.code,
    found.error,
    Number(answer.headers.get("Retry-After")) || null,
  );
  if (failure.status === 401 && !quiet) signedOut(failure);
  throw failure;
}

const at = (key, tail = "") => `api/v1/agents/${encodeURIComponent(key)}${tail}`;

export const who = () => call("GET", "api/v1/session", undefined, {}, true);
export const signIn = (key) => call("POST", "api/v1/session", undefined, { Authorization: `Bearer ${key}` }, true);
export const signOut = () => call("DELETE", "api/v1/session");
export const agents = async () => (await call("GET", "api/v1/agents")).agents;
export const conversations = async () => (await call("GET", "api/v1/conversations?limit=100")).conversations;
export const open = async (agentId) => (await call("POST", "api/v1/agents", { agentId, forceNew: true })).agentId;
export const show = (key) => call("GET", at(key));
export const end = (key) => call("DELETE", at(key));
export const turns = (key, before = null) =>
  call("GET", at(key, `/turns?limit=40${before === null ? "" : `&before=${before}`}`));
export const timeline = (key, turnId) => call("GET", at(key, `/turns/${encodeURIComponent(turnId)}/timeline`));
export const send = (key, content, messageId) =>
  call("POST", at(key, "/messages"), { content, messageId, platform: "web" });
export const cancel = (key, messageId) => call("POST", at(key, "/cancel"), { messageId });
export const reset = (key) => call("POST", at(key, "/reset"), {});
export const answer = (key, questionId, text) =>
  call("POST", at(key, `/questions/${encodeURIComponent(questionId)}/answer`), { answer: text });
export const eventsAddress = (key, since) => at(key, `/events?since=${encodeURIComponent(since)}`);
export const fileAddress = (key, fileId) => at(key, `/files/${encodeURIComponent(fileId)}`);

/** An id that nobody has used; `randomUUID` is there on secure pages only. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
