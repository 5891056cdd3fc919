"""``rfbench predict``"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import click

from bench.cli.run import say_prepared, shown_path
from bench.cli.shared import executor, predicting_options, say_failed, settle_threads

settle_threads()

_EPILOG = """\b
Examples:
  rfbench predict --model rareflow --model bicubic --out today
  rfbench score today --metrics psnr_rgb,ssim_rgb
  rfbench predict --model seesr --data my-pairs --out results --shard 1/3
  rfbench predict --model seesr:dtype=float16,draws=1 --model bicubic \\
      --batch-size auto
"""


@click.command("predict", epilog=_EPILOG)
@predicting_options
@click.option("--strict", is_flag=True, help="Stop before anything is computed if a model lacks packages or weights.")
def command(**options: Any) -> int:
    """Let models answer a dataset's images under a protocol, and keep the answers; nothing is scored.

    What is predicted already is not predicted again, unless the model's code, its options or the data have changed.
    'rfbench score DIR' scores the runs, as often as wanted.
    """
    from bench.predict.execute import predict
    from bench.predict.plan import NotReady, Request, make_plan

    with executor(options) as cluster:
        try:
            prepared = make_plan(Request(**options))
        except NotReady as error:
            for why in error.reasons:
                print(f"error: {why}", file=sys.stderr)
            return error.exit_code
        say_prepared(prepared)
        outcome = predict(prepared, sys.argv, cluster)
    for why in outcome.left_out.values():
        print(f"warning: left out: {why}", file=sys.stderr)
    failed = Counter[str]()
    for folder in outcome.folders.values():
        items = folder.predictions.committed(r.id for r in prepared.records)  # a part has no table
        failed.update(item.error for item in items.values() if item.error)
        click.echo(shown_path(folder.path))
    say_failed(failed)
    return 1 if failed else 2 if outcome.left_out or prepared.not_ready else 0
