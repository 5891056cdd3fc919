"""Models that cannot live in rfbench's process: their environments, their checkouts, and the worker that talks to them.

``environment`` and ``checkout`` keep what a guest needs on this machine, ``worker`` starts and ends the guest's
process and hands arrays over, ``guest`` is what runs in there: one file that needs numpy and nothing of rfbench.
"""
