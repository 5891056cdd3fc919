"""``python -m baselines.slumps``: train ``slumps-tiny``."""

from baselines.slumps import main

main()
