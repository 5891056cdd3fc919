"""Comparisons with the original code of wrapped systems, run by hand by whoever has a checkout of it."""
