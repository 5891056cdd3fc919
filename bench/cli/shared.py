"""What ``rfbench run`` and ``rfbench score`` share."""

from __future__ import annotations

import os
from pathlib import Path

import click


def settle_threads() -> None:
    """Say how threads and a GPU are used; called before anything loads numpy or torch."""
    # Waiting threads sleep instead of spinning. With a busy neighbour on the same cores, spinning made the same calls
    # 60 to 150 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable matrix products on a GPU


def _names(context: click.Context, option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(n.strip() for n in text.split(",") if n.strip())


metrics_option = click.option(
    "--metrics",
    metavar="NAMES",
    callback=_names,
    help="Comma-separated; 'default' and 'all' are understood, as is pyiqa:NAME.  [default: the paper's columns]",
)
weights_option = click.option(
    "--weights-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where pretrained weights of metrics and models lie.  [default: $RFBENCH_WEIGHTS, ~/.cache/rfbench/weights]",
)
