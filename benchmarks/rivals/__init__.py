"""Other people's systems on the same work, by the same load generator: `make bench-rivals`; docs/benchmarks/rivals.md.

`lobu.py` and the modules of the runner run in this project's environment; `web.py`, `pool.py`, `worker.py` and one
service for each rival run in the rival's own and import nothing of this project.
"""
