"""Benchmarks: what a client waits for, beside the floor of its own parts, measured in the same run."""
