"""Experiments in files: what a command would be told, written down; and those that come with rfbench."""
