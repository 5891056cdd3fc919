"""Benchmarks of speed and memory, run by hand from the repository's root: ``python -m tests.bench.NAME``.

Each prints what it measured, on what machine, and against what. None is a test: time is no property of the code alone.
"""
