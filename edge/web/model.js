// What is known of one conversation's turns, and what each event changes in it. No page, no network: only what was
// told.

const OVER = new Set(["done", "failed", "stopped"]);

export const isOver = (turn) => OVER.has(turn.state);
export const isReset = (turn) => turn.content.trim() === "/new";

/** A turn that this page sent and nobody has confirmed yet. States: sending, unsent, waiting, running, done, failed, stopped. */
export function newTurn(messageId, content) {
  return {
    messageId,
    turnId: null,
    content,
    state: "sending",
    text: "",
    attempt: 1,
    note: "",
    questions: [],
    end: null,
  };
}

/** A turn as the server lists it. */
export function listedTurn(listed) {
  const turn = newTurn(listed.messageId, listed.content);
  turn.turnId = listed.turnId;
  turn.attempt = listed.attempt;
  turn.state = listed.status === "running" ? "running" : "waiting";
  for (const asked of listed.questions) applyQuestion(turn, asked);
  if (listed.end !== null) finish(turn, listed.end.event, listed.end.data);
  return turn;
}

/** Change `turn` as the event says. False: it changes nothing of it. */
export function apply(turn, kind, data) {
  if (isOver(turn)) return false;
  switch (kind) {
    case "output":
      turn.state = "running";
      turn.text += data.content;
      turn.note = "";
      return true;
    case "status":
      turn.state = "running";
      turn.note = data.status;
      return true;
    case "ephemeral":
      turn.note = data.content;
      return true;
    case "question":
      turn.state = "running";
      applyQuestion(turn, data);
      return true;
    case "restart":
      turn.text = "";
      turn.attempt = data.attempt;
      turn.note = `Began again, attempt ${data.attempt}`;
      return true;
    case "cancel":
      turn.note = "Stopping";
      return true;
    case "complete":
    case "agent-error":
    case "cancelled":
      finish(turn, kind, data);
      return true;
    default:
      return false;
  }
}

/** A question, or the answer to one of this turn's. */
export function applyQuestion(turn, data) {
  const known = turn.questions.find((question) => question.questionId === data.questionId);
  if (known) known.answer = data.answer ?? known.answer;
  else if (data.prompt !== undefined) turn.questions.push({ ...data, answer: null, first: turn.text === "" });
  return known !== undefined;
}

function finish(turn, kind, data) {
  turn.end = data;
  turn.note = "";
  if (kind === "agent-error") turn.state = "failed";
  else {
    turn.state = kind === "complete" ? "done" : "stopped";
    turn.text = data.finalText ?? turn.text;
  }
}
