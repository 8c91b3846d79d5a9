"""Pure wire vocabulary: ids, states, events, worker frames, error codes. Standard library only, no I/O.

Clients, workers and other hosts are written against these names. Nothing here may import another part of the project.
"""
