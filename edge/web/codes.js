// What a person can do about a failure, by its code. What happened, the server's own sentence says.

const AGAIN = "Nothing else of the conversation is lost.";
const OPERATOR = "Tell whoever runs this server; its log says more.";

const ADVICE = {
  WORKER_CRASHED: AGAIN,
  WORKER_STARTUP_FAILED: OPERATOR,
  WORKER_UNRESPONSIVE: AGAIN,
  WORKER_PROTOCOL_ERROR: OPERATOR,
  WORKER_CRASH_LOOP: "Wait a minute. If it goes on, tell whoever runs this server.",
  WORKER_FAILED: "Send it again; if it fails again, write it in another way.",
  SESSION_TIMEOUT: AGAIN,
  FIRST_OUTPUT_TIMEOUT: "The model may be busy. Send it again.",
  NO_PROGRESS: "Send it again, perhaps as a smaller task.",
  TOOL_TIMEOUT: "Ask for a smaller step.",
  TURN_TIMEOUT: "Ask for it in smaller parts.",
  QUESTION_TIMEOUT: "Send it again when you can answer.",
  REPLY_TOO_LARGE: "Ask for a shorter reply.",
  TOO_MANY_QUESTIONS: OPERATOR,
  SESSION_FILE_INVALID: "Start fresh: the agent left a session that cannot be stored.",
  WORKSPACE_FULL: "Start fresh, or ask the agent to delete files.",
  PROVIDER_AUTH: OPERATOR,
  PROVIDER_QUOTA: "The quota of the model's provider is used up. Try later, or tell whoever runs this server.",
  PROVIDER_UNAVAILABLE: "The model's provider is away. Try again soon.",
  PROVIDER_REFUSED: "Write it in another way, or pick another agent.",
  GUARDRAIL_REJECTED: "Write it in another way.",
  GUARDRAIL_FAILED: OPERATOR,
  NO_MODEL_CONFIGURED: "The agent needs a model first.",
  AGENT_DISABLED: "Pick another agent.",
  HOST_LOST: AGAIN,
  MARKER_CORRUPT: OPERATOR,
  SNAPSHOT_CORRUPT: "Start fresh: the stored session is damaged.",
  DISK_FULL: OPERATOR,
  INTERNAL_ERROR: OPERATOR,
  UNREACHABLE: "Check your connection. What was sent already is safe.",
  STORE_UNAVAILABLE: "It is usually back within seconds.",
  BODY_TOO_LARGE: "Shorten the message.",
  RATE_LIMITED: "Wait a moment.",
  QUEUE_FULL: "Wait for a reply, or cancel messages that wait.",
  TOO_MANY_STREAMS: "Close this conversation somewhere else.",
  CONVERSATION_CLOSED: "Begin a new conversation.",
  CONVERSATION_NOT_FOUND: "Begin a new conversation.",
  AGENT_NOT_FOUND: "Pick another agent.",
  NO_DEFAULT_AGENT: "Pick an agent.",
};

export const advice = (code) => ADVICE[code] ?? "";
