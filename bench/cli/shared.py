"""What several verbs share: how threads are settled, options, and what is said of metrics and failures."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import complete
from bench.core.reason import Reason

if TYPE_CHECKING:
    from bench.executors.cluster import Cluster


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
    shell_complete=complete.metrics_list,
    metavar="NAMES",
    callback=_names,
    help="Comma-separated; 'default', 'all', families such as 'opensr', and pyiqa:NAME are understood.  "
    "[default: the paper's columns]",
)
weights_option = click.option(
    "--weights-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where pretrained files lie (also: $RFBENCH_WEIGHTS, ~/.cache/rfbench/weights).",
)
exact_option = click.option(
    "--exact-libraries",
    is_flag=True,
    help="Compute metrics by the libraries that define them, not by our own kernels: slower; identities say which.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Where networks run; models also on several GPUs: cuda:0,cuda:1.",
)
workers_option = click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Processes that predict on a processor (this one among them), then as many that score; 0: all in this one. No "
    "number depends on it.  [default: one a core where that pays and memory allows, of those that score at most 4]",
)


def _shard(context: click.Context, option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    i, _, n = text.partition("/")
    if not (i.isascii() and i.isdigit() and n.isascii() and n.isdigit()) or len(text) > 12:
        raise click.BadParameter(f"found '{text:.20}', expected I/N, such as 1/3")
    return int(i), int(n)


def _batch_size(context: click.Context, option: click.Parameter, text: str) -> int | str:
    from bench.models.call import batch_size_of

    return batch_size_of(text, "--batch-size") or "auto"


_EXECUTOR = (
    click.option(
        "--executor", default="local", show_default=True, type=click.Choice(["local", "ray"]),
        help="ray: on a cluster (pip install 'rfbench[ray]', docs/scale.md).",
    ),
    click.option(
        "--address", metavar="auto|local|HOST:PORT",
        help="With ray: the cluster here, one of its own, or another machine's.  [default: auto]",
    ),
    click.option(
        "--actors", type=click.IntRange(min=1), metavar="N",
        help="With ray: processes at once.  [default: one a core, or a GPU]",
    ),
    click.option(
        "--gpus-per-model", type=click.FloatRange(min=0), metavar="G",
        help="With ray: GPUs of each process, such as 1 or 0.5.  [default: 0]",
    ),
    click.option("--allow-mixed", is_flag=True, help="With ray: devices of several kinds, whose last digits differ."),
)  # fmt: skip
_PREDICTING = (
    click.option(
        "--model", "models", multiple=True, shell_complete=complete.model, metavar="NAME[:KEY=VALUE,...]",
        help="A model; repeat for several. path/file.py:Class names a class of a file. Every model takes label=NAME, "
        "and dtype, draws and batch in place of the command's.",
    ),
    click.option(
        "--protocol", default="paired", show_default=True, shell_complete=complete.protocol,
        metavar="NAME[:KEY=VALUE,...]", help="What is asked of the models.",
    ),
    click.option(
        "--data", default="scenes", show_default=True, shell_complete=complete.dataset, metavar="DIR|NAME",
        help="A dataset folder, or a registered dataset.",
    ),
    click.option("--split", default="test", show_default=True, help="Which of the dataset's images."),
    device_option,
    workers_option,
    click.option(
        "--dtype", default="float32", show_default=True, type=click.Choice(["float32", "float16", "bfloat16"]),
        help="Arithmetic of networks; interpolation stays float32.",
    ),
    click.option(
        "--batch-size", default="1", show_default=True, metavar="N|auto", callback=_batch_size,
        help="Images a model gets at once; auto: the most that a GPU's memory holds, found once.",
    ),
    click.option(
        "--draws", default=4, show_default=True, metavar="K",
        help="Draws of a stochastic model; uncertainty metrics use all.",
    ),
    click.option(
        "--seed", default=0, show_default=True, metavar="S",
        help="Of the run; each image and draw has its own from it.",
    ),
    click.option("--limit", type=int, metavar="N", help="Only the first N images by id."),
    click.option(
        "--allow-train", is_flag=True, help="Also run a model on images that it was trained on; tables will say so."
    ),
    click.option(
        "--shard", metavar="I/N", callback=_shard,
        help="Only the I-th of N parts, 1/N to N/N, on any machines; 'rfbench merge' makes one run of them.",
    ),
    *_EXECUTOR,
    click.option(
        "--fresh", is_flag=True, help="Begin anew; an earlier run is set aside until 'rfbench runs prune'."
    ),
    weights_option,
    click.option(
        "--out", type=click.Path(path_type=Path), metavar="DIR",
        help="Run folders become DIR/MODEL.  [default: runs/, named by the plan, so the same command resumes]",
    ),
)  # fmt: skip


_OF_RAY = ("address", "actors", "gpus_per_model", "allow_mixed")


@contextmanager
def executor(options: dict[str, Any]) -> Iterator[Cluster | None]:
    """The cluster that the options ask for, None for this machine's own processes; takes what is of the executor from
    ``options``, and says in them where the models run."""
    from bench.core.errors import RfbenchError

    kind, of_ray = options.pop("executor"), {name: options.pop(name) for name in _OF_RAY}
    if kind == "local":
        given = next((name for name, value in of_ray.items() if value), None)
        if given is not None:
            raise RfbenchError(f"--{given.replace('_', '-')} goes with --executor ray; give that, or leave it out")
        yield None
        return
    from bench.executors.cluster import cluster

    gpus = of_ray["gpus_per_model"] or 0.0
    if options["device"] not in ("auto", "cuda" if gpus else "cpu"):
        raise RfbenchError(
            f"--device: found '{options['device']}' with --executor ray, where --gpus-per-model says what models run on"
        )
    if options["workers"] is not None:
        raise RfbenchError(
            f"--workers: found {options['workers']} with --executor ray, where --actors says how many there are"
        )
    with cluster(
        of_ray["address"] or "auto", actors=of_ray["actors"] or 0, gpus_each=gpus, allow_mixed=of_ray["allow_mixed"]
    ) as found:
        options |= {"device": found.device, "is_remote": True}
        yield found


def executor_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that ``executor`` takes."""
    for option in reversed(_EXECUTOR):
        command = option(command)
    return command


def predicting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of ``rfbench predict``, which are the fields of ``bench.predict.plan.Request``."""
    for option in reversed(_PREDICTING):
        command = option(command)
    return command


def say_skipped(skipped: Mapping[str, Reason], lacking_weights: Sequence[str]) -> None:
    """Say on stderr which metrics are not computed, and what gets them."""
    for name, why in skipped.items():
        print(f"{'note' if why.kind == 'slow' else 'warning'}: {name}: {why}", file=sys.stderr)
    if len(lacking_weights) > 1:
        print(
            f"'rfbench weights fetch --metrics {','.join(lacking_weights)}' gets all of these weights", file=sys.stderr
        )


def say_failed(failed: Counter[str]) -> None:
    """Say on stderr why images failed: each kind of reason once, with how many there are."""
    for why, count in failed.most_common(8):
        print(f"{count} image{'s' * (count != 1)} failed: {why}", file=sys.stderr)
    if len(failed) > 8:
        print(f"and {len(failed) - 8} other reasons; 'rfbench table --format json' has all", file=sys.stderr)
