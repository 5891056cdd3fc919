"""rfbench: a reproducible benchmark of satellite-image super-resolution.

The data's way, and the folder of each step::

    data -> protocols -> models -> run (predictions, metrics) -> store -> tables

Import what you need from the sub-packages; nothing heavy is imported here.
"""

__version__ = "0.1.0"
