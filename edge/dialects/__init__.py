"""Other people's protocols over the one event log: each is a pure encoder, and none keeps anything of its own."""
