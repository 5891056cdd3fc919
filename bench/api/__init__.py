"""What stands behind ``import rfbench``: runs, scores of arrays, and the door for plugins and notebooks."""
