"""Satlas's ESRGAN: a generator that reads one or several dates of Sentinel-2 at once."""
