"""The models that rfbench wraps: one small folder or file each, a declarative spec and a thin adapter."""
