"""``rfbench train``: a dataset folder in, a checkpoint out. What it needs is imported when it runs."""

from __future__ import annotations

import os

# Before anything loads numpy or torch: waiting threads sleep instead of spinning on cores that others use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable matrix products on a GPU

import shlex
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bench.records.folder import RunFolder
    from bench.reports.table.build import Table
    from rareflow.config import Config
    from rareflow.train.chips import Data

_Folder = click.Path(path_type=Path)
_EPILOG = """\b
Examples:
  rfbench data scenes scenes --count 5000 --seed 7 --split train
  rfbench train --config tiny --data scenes --out my-tiny
  rfbench run --model rareflow:checkpoint=my-tiny --protocol paired
  rfbench train --config sd3-medium --base stable-diffusion-3-medium \\
      --data my-pairs --out my-sd3

The same command goes on where a stop left it, and ends with the same weights (to the bit on a processor).
"""


@click.command("train", epilog=_EPILOG)
@click.option(
    "--config", default="tiny", show_default=True, metavar="NAME|FILE", help="tiny, sd3-medium or a TOML file."
)
@click.option("--data", "folder", required=True, type=_Folder, metavar="DIR", help="A dataset folder with both sides.")
@click.option("--out", required=True, type=_Folder, metavar="DIR", help="The checkpoint; also where a stop goes on.")
@click.option("--split", default="train", show_default=True, help="What to train on.")
@click.option(
    "--validation-split",
    default="validation",
    show_default=True,
    help="What to validate on; where the data has no such split, scenes of the training split are held out.",
)
@click.option("--base", metavar="DIR|HUB-ID", help="A diffusers SD3 folder, for configurations with a base.")
@click.option("--prior", type=_Folder, metavar="DIR", help="Take VAE, transformer and text from this checkpoint.")
@click.option("--chips", type=click.IntRange(2), metavar="N", help="Train on N of them only, chosen by the seed.")
@click.option("--seed", type=int, metavar="S", help="Of the training.  [default: the configuration's]")
@click.option("--start", type=_Folder, metavar="DIR", help="Go on from all weights of this checkpoint.")
@click.option("--weights-dir", type=_Folder, metavar="DIR", help="Where AlexNet for LPIPS lies, as for 'rfbench run'.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Of a processor.  [default: all cores but one]")
def train(
    config: str, folder: Path, out: Path, split: str, validation_split: str, base: str | None, prior: Path | None,
    start: Path | None, chips: int | None, seed: int | None, weights_dir: Path | None, device: str,
    threads: int | None,
) -> None:  # fmt: skip
    """Train RareFlow and write a checkpoint with its card.

    Without a base the VAE and the prior are trained first; then ControlNet and gates, as in the paper. Losses go to
    TensorBoard in DIR/training, pictures of held-out scenes to DIR/training/pictures.
    """
    from bench.core.errors import RfbenchError
    from rareflow.config import load_config, with_changes
    from rareflow.errors import RareflowError

    need_packages()
    set_up(device, threads)
    from rareflow.train.chips import some_of
    from rareflow.train.run import train as run_training

    warnings.showwarning = _say  # type: ignore[assignment]
    try:
        settings = load_config(config)
        if base:
            settings = with_changes(settings, {"base": base})
        if seed is not None:
            settings = with_changes(settings, {"train": {"seed": seed}})
        data = read_data(folder, split, validation_split, settings)
        if chips is not None:
            data = some_of(data, chips, settings.train.seed)
        with _alone(out), Report() as report:
            card = run_training(
                settings, data, out, prior=prior, start=start, weights=weights_folder(weights_dir), report=report,
                tick=report.tick, provenance=provenance(plain_command()), device=None if device == "auto" else device,
            )  # fmt: skip
    except RareflowError as error:
        raise RfbenchError(str(error)) from None
    numbers = ", ".join(f"{k} {v:g}" for k, v in card.validation.items())
    click.echo(f"{out}: {card.label}; held-out scenes: {numbers}")
    print(f"next: rfbench run --model rareflow:checkpoint={out} --model bicubic --protocol paired", file=sys.stderr)


_ABLATE_EPILOG = """\b
Examples:
  rfbench ablate --prior my-tiny/prior --data scenes --out ablation \\
      --steps 200
  rfbench ablate --prior my-tiny/prior --data scenes --out ablation \\
      --variants caption,caption-gate --format latex

The same command goes on where a stop left it; what is finished is not made again.
"""


@click.command("ablate", epilog=_ABLATE_EPILOG)
@click.option(
    "--prior", type=_Folder, metavar="DIR", help="What all variants start from: DIR/prior of a training without base."
)
@click.option("--data", "folder", required=True, type=_Folder, metavar="DIR", help="A dataset folder with both sides.")
@click.option("--out", required=True, type=_Folder, metavar="DIR", help="Checkpoints, runs, and the table (table.md).")
@click.option("--config", metavar="NAME|FILE", help="With everything on.  [default: the prior's own]")
@click.option("--base", metavar="DIR|HUB-ID", help="A diffusers SD3 folder, for configurations with a base.")
@click.option("--steps", type=click.IntRange(1), metavar="N", help="Of each control.  [default: the configuration's]")
@click.option("--seed", type=int, metavar="S", help="Of the trainings.  [default: the configuration's]")
@click.option("--variants", metavar="A,B,...", help="Some of them.  [default: Table 3 and Figure 1's two extremes]")
@click.option("--split", default="train", show_default=True, help="What to train on.")
@click.option("--validation-split", default="validation", show_default=True, help="As for 'rfbench train'.")
@click.option("--protocol", default="paired", show_default=True, metavar="NAME[:KEY=VALUE,...]", help="Of the scores.")
@click.option(
    "--test-data", default="scenes", show_default=True, metavar="DIR|NAME", help="The dataset that scores are made on."
)
@click.option("--test-split", default="test", show_default=True, help="Which of its images.")
@click.option("--limit", type=int, metavar="N", help="Only its first N images by id.")
@click.option("--draws", default=1, show_default=True, metavar="K", help="2 or more add NLL, ECE, and rows of means.")
@click.option(
    "--format",
    "form",
    default="markdown",
    show_default=True,
    type=click.Choice(["markdown", "latex", "csv", "json"]),
    help="Of the table on stdout.",
)
@click.option("--weights-dir", type=_Folder, metavar="DIR", help="Pretrained weights, as for 'rfbench run'.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Of a processor.  [default: all cores but one]")
def ablate(
    prior: Path | None, folder: Path, out: Path, config: str | None, base: str | None, steps: int | None,
    seed: int | None, variants: str | None, split: str, validation_split: str, protocol: str, test_data: str,
    test_split: str, limit: int | None, draws: int, form: str, weights_dir: Path | None, device: str,
    threads: int | None,
) -> int:  # fmt: skip
    """Table 3 of the paper: train a fresh control for each variant from one prior, score them, print the table.

    Variants share prior, chips, seed and steps; their scores are those of 'rfbench run'. The second table has each
    row's distance from row 6: what it shows is more than chance where the interval leaves out 0.

    \b
    1 from-scratch        random weights, no captions, no gates, loss of eq. 8
    2 pretrained-control  as 1, with the pre-trained control
    3 caption             2 with captions
    4 caption-gate        3 with the gates of eq. 2-3
    5 caption-loss        3 with the further losses of eq. 12
    6 full                captions, gates and losses
      spatial-only        6 without captions (Figure 1)
      text-only           the prior and the caption, no control (Figure 1)
    """
    from bench.core.errors import RfbenchError
    from bench.core.files import write_bytes
    from bench.predict.plan import Request
    from bench.reports.table.write import WRITERS
    from bench.score import execute
    from bench.score.run import run
    from rareflow.config import load_config, with_changes
    from rareflow.errors import RareflowError

    need_packages()
    set_up(device, threads)
    from rareflow.train.ablation import VARIANTS, start_config, train_variants

    warnings.showwarning = _say  # type: ignore[assignment]
    names = [n.strip() for n in variants.split(",") if n.strip()] if variants is not None else list(VARIANTS)
    metrics = ("psnr_rgb", "ssim_rgb", "fsim", "lpips_alex", "dists", "fid_tf", "niqe", "maniqa_koniq", "logspec_l1",
               "sam_rgb", "de00", *(("nll", "ece") if draws > 1 else ()))  # fmt: skip
    try:
        if config is not None:
            settings = load_config(config)
        elif prior is not None:
            settings = start_config(prior)
        else:
            raise RareflowError("found neither --prior nor --config, expected a prior, or a configuration with a base")
        if base:
            settings = with_changes(settings, {"base": base})
        if seed is not None:
            settings = with_changes(settings, {"train": {"seed": seed}})
        data = read_data(folder, split, validation_split, settings)
        with _alone(out), Report() as report:
            found = train_variants(
                settings, data, out / "models", names, prior=prior, steps=steps, weights=weights_folder(weights_dir),
                provenance=provenance(plain_command()), report=report, tick=report.tick,
                device=None if device == "auto" else device,
            )  # fmt: skip
    except RareflowError as error:
        raise RfbenchError(str(error)) from None
    request = Request(
        tuple(f"rareflow:checkpoint={path}{f',base={base}' if base else ''}" for path in found.values()),
        protocol=protocol, data=test_data, split=test_split, draws=draws, limit=limit, device=device,
        weights_dir=weights_dir, out=out / "runs",
    )  # fmt: skip
    outcome = run(request, execute.Request(metrics, device, weights_dir=weights_dir), sys.argv)
    table = _table3(outcome.folders, found)
    page = f"{WRITERS['markdown'](table)}\n\n{_differences(outcome.folders, list(found))}"
    write_bytes(out / "table.md", f"{page}\n".encode())
    click.echo(page if form == "markdown" else WRITERS[form](table))
    return 1 if outcome.failed else 0


def _alone(out: Path) -> AbstractContextManager[None]:
    """One training at a time in a folder: two would write into one another's latents and states.

    The lock lies beside the folder, which has to be empty before a training claims it.
    """
    from bench.core.files import safe_name
    from bench.core.lock import lock

    place = out.absolute()
    return lock(place.parent, f"trains {out.name}", name=safe_name(place.name))


def _table3(runs: Sequence[RunFolder], checkpoints: Mapping[str, Path]) -> Table:
    """The runs' table with the paper's names for its rows, and notes that say what the rows are."""
    import dataclasses

    from bench.reports.table.build import build_table
    from rareflow.card import read_card
    from rareflow.train.ablation import VARIANTS

    cards = {name: read_card(path) for name, path in checkpoints.items()}
    known = {card.label: VARIANTS[name].label for name, card in cards.items()}
    known |= {f"{label}@mean": f"{row} (mean)" for label, row in known.items()}
    table = build_table(runs)
    rows = tuple(dataclasses.replace(row, label=known.get(row.label, row.label)) for row in table.rows)
    footnotes = tuple(
        dataclasses.replace(f, concerns=tuple(known.get(c, c) for c in f.concerns)) for f in table.footnotes
    )
    steps = max(card.config["train"]["control"]["steps"] for card in cards.values())
    seed = next(iter(cards.values())).config["train"]["seed"]
    about = [
        f"{VARIANTS[name].label}: {VARIANTS[name].summary}"
        + (f" (left out for want of weights: {', '.join(card.left_out)})" if card.left_out else "")
        for name, card in cards.items()
    ]
    shared = f"all rows: one prior, training seed {seed}, {steps} steps of control"
    return dataclasses.replace(table, rows=rows, footnotes=footnotes, notes=(*table.notes, shared, *about))


def _differences(runs: Sequence[RunFolder], names: Sequence[str]) -> str:
    """A Markdown table: each row minus the fullest one, image by image, with the 95 % interval when scenes are drawn
    again."""
    from bench.stats.percentiles import mean_interval
    from rareflow.train.ablation import VARIANTS

    columns = (("psnr_rgb", "PSNR", "+.2f"), ("ssim_rgb", "SSIM", "+.3f"), ("fsim", "FSIM", "+.3f"),
               ("logspec_l1", "LogSpec", "+.3f"), ("de00", "ΔE00", "+.2f"))  # fmt: skip
    scored = [run.scores().query("estimate == 'sample' and error.isna()").set_index("id") for run in runs]
    against = names.index("full") if "full" in names else len(names) - 1
    heads = [f"minus {VARIANTS[names[against]].label}", *(title for _, title, _ in columns)]
    lines = [f"| {' | '.join(heads)} |", f"|:--{'|--:' * len(columns)}|"]
    for i, name in enumerate(names):
        if i == against:
            continue
        both = scored[i].join(scored[against], rsuffix="_against", how="inner")
        cells = [VARIANTS[name].label]
        for metric, _, form in columns:
            values = (both[metric] - both[f"{metric}_against"]).dropna()
            if len(values):
                mean, low, high = mean_interval(values, list(both.loc[values.index, "scene_id"]))
                cells.append(f"{mean:{form}} [{low:{form}}, {high:{form}}]")
            else:
                cells.append("–")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Means over images, with the 95 % interval when scenes are drawn again."])


def need_packages() -> None:
    """Unavailable where the packages of training are missing, before anything is read."""
    from bench.core.extras import need

    need("training", "train", "accelerate", "tensorboard")


def set_up(device: str, threads: int | None) -> None:
    """Torch's threads and repeatable arithmetic; RfbenchError where the device is not there."""
    import torch

    from bench.core import provenance as machine
    from bench.core.errors import RfbenchError

    if device == "cuda" and not torch.cuda.is_available():
        raise RfbenchError("--device: found no CUDA device, expected one; take --device cpu")
    torch.set_num_threads(threads or max(1, machine.cores() - 1))
    machine.deterministic()


def read_data(folder: Path, split: str, validation_split: str, config: Config) -> Data:
    """The chips of a dataset folder, both sides in display range by the dataset's declared normalisations."""
    from bench.core.errors import RfbenchError
    from bench.core.image import RGB
    from bench.data.dataset import FolderDataset, Record
    from rareflow.errors import RareflowError
    from rareflow.train.chips import Chip, Data
    from rareflow.train.chips import split as hold_out

    dataset = FolderDataset(folder)

    def chip(record: Record) -> Chip:
        def load() -> Any:
            pair = dataset.load(record, ("lr", "hr"))
            sides = []
            for side, image in (("lr", pair.lr), ("hr", pair.hr)):
                if image is None:
                    raise RfbenchError(f"{record.id}: found no {side} file, expected both sides; leave the row out")
                selected, meaning = image.select(RGB), record.sides[side]
                holes = int((~selected.valid).sum())
                if holes:
                    raise RareflowError(
                        f"{record.id}: the {side.upper()} has no data in {holes} of {selected.valid.size} pixels (NaN, "
                        "or what the file declares as nodata), expected a whole image; crop it or leave it out"
                    )
                sides.append(meaning.declared.fit(selected, meaning.gamma).apply(selected))
            return tuple(sides)

        return Chip(record.id, record.scene_id, record.caption, load)

    records = dataset.records(split)
    try:
        held = dataset.records(validation_split)
    except RfbenchError:
        held = []
    if held:
        train, validation = tuple(map(chip, records)), tuple(map(chip, held))
    else:
        train, validation = hold_out([chip(r) for r in records], config.train.validate, config.train.seed)
    fingerprint = dataset.fingerprint([*records, *held])
    sides = {
        name: {
            "unit": side.unit, "normalisation": str(side.declared), "gamma": side.gamma, "gsd_m": side.gsd_m,
            "sensor": side.sensor,
        }
        for name, side in records[0].sides.items() if name in ("lr", "hr")
    }  # fmt: skip
    return Data(dataset.name, fingerprint, train, validation, dataset.description, sides)


def weights_folder(weights_dir: Path | None) -> Path | None:
    """The first of the harness' weights folders that holds AlexNet; else one that can be named in a warning."""
    from bench.weights import folders

    places = folders(weights_dir)
    return next((p for p in places if any(p.glob("alexnet-*.pth"))), places[0])


def provenance(command: str) -> dict[str, Any]:
    """Who made a checkpoint: the command without the machine's paths, commit and versions."""
    from bench.core.provenance import software

    made = software()
    return {"command": command, "commit": made["commit"], "dirty": made["dirty"], "python": made["python"]}


def plain_command() -> str:
    """This command line with the last part of every path only: a card says how, not where."""
    return " ".join(["rfbench", *(shlex.quote(Path(w).name if "/" in w else w) for w in sys.argv[1:])])


class Report:
    """Progress of a training on stderr: a bar on a terminal, else a line now and then; a line for validation."""

    def __init__(self) -> None:
        self._what, self._done, self._shown_at = "", 0, 0.0
        self._bars: Any = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self._bars = Progress(*columns, TextColumn("{task.fields[text]}"), console=Console(stderr=True))

    def __enter__(self) -> Report:
        if self._bars:
            self._bars.start()
        return self

    def __exit__(self, *rest: object) -> None:
        if self._bars:
            self._bars.stop()

    def tick(self, what: str, total: int) -> None:
        """One more chip is prepared."""
        self._show(what, self._done % total + 1 if what == self._what else 1, total, "")

    def __call__(self, stage: str, step: int, steps: int, numbers: dict[str, float]) -> None:
        text = ", ".join(f"{k} {v:.4g}" for k, v in numbers.items() if k not in ("lr", "seconds", "grad_norm"))
        if any(k.startswith("val_") for k in numbers):
            line = f"{stage} {step} of {steps}: {text}"
            self._bars.console.print(line, markup=False, highlight=False) if self._bars else _print(line)
        else:
            self._show(stage, step, steps, text)

    def _show(self, what: str, done: int, total: int, text: str) -> None:
        if self._bars:
            if what != self._what:
                self._task = self._bars.add_task(what, total=total, text="")
            self._bars.update(self._task, completed=done, text=text)
        elif done == total or time.monotonic() - self._shown_at >= 10:
            self._shown_at = time.monotonic()
            _print(f"{what}: {done} of {total}{', ' + text if text else ''}")
        self._what, self._done = what, done


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _say(message: Warning | str, category: type[Warning], *rest: object) -> None:
    if issubclass(category, RuntimeWarning):
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
