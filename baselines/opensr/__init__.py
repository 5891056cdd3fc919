"""OpenSR's LDSR-S2, run through its own package."""
