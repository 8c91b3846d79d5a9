"""The core library of an actor runtime for AI-agent conversations. Imports neither `supervisor` nor `edge`."""
