"""The regression gate: does a run still give what a golden run gave? Read from run folders, never from a model.

A golden run is a run folder without its images, small enough to be kept beside the code, with ``golden.json``: why it
was made and renewed. ``rules.toml`` says how far each metric may move.
"""
