"""The spawner: the small program that starts, watches and reaps worker processes, and the supervisor's link to it.

`protocol` is what both sides share. `__main__`, `loop`, `launch`, `orphans` and `output` are the program: synchronous,
single-threaded, standard library only, so that it starts fast and never needs a restart. `link` and `connection` are
the supervisor's side, on trio. The program must never import them; this package re-exports nothing, to keep it so.
"""
