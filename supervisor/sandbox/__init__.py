"""The sandbox of a worker type with `sandbox = "bwrap"`: its command line, its one way out, the proof that it holds.

`command` says what a sandbox consists of. `destinations`, `proxy` and `egress` are the way out: a proxy in the
supervisor that knows a list. `relay` and `probe` are programs that run inside; standard library only, and nothing of
this project. `self_test` starts a probe in a real sandbox when the supervisor starts.
"""
