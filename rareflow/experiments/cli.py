"""``rfbench ood``: what u and v say of inputs out of distribution, and what the gates make of it."""

from __future__ import annotations

import os

# Before anything loads numpy or torch: waiting threads sleep instead of spinning on cores that others use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable matrix products on a GPU

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from bench.data.dataset import Dataset
    from rareflow.experiments.scores import Image

_Folder = click.Path(path_type=Path)
_BANK_SEED = 5150  # neither the benchmark's nor the one that the embedded model was trained on
_EPILOG = """\b
Examples:
  rfbench ood --out ood
  rfbench ood --checkpoint my-tiny --data my-pairs --bank my-pairs \\
      --bank-split train --out ood
"""


@click.command("ood", epilog=_EPILOG)
@click.option("--checkpoint", type=_Folder, metavar="DIR", help="Of 'rfbench train'.  [default: the embedded one]")
@click.option("--base", metavar="DIR|HUB-ID", help="The SD3 folder beneath it, if it has one.")
@click.option("--data", default="scenes", show_default=True, metavar="DIR|NAME", help="Known images with HR.")
@click.option("--split", default="test", show_default=True, help="Which of them; the model must not have seen them.")
@click.option("--limit", default=24, show_default=True, type=click.IntRange(2), metavar="N", help="The first N by id.")
@click.option(
    "--bank", type=_Folder, metavar="DIR", help="Known images to fit scores on.  [default: new procedural scenes]"
)
@click.option("--bank-split", default="train", show_default=True, help="Which images of the bank.")
@click.option("--bank-limit", default=48, show_default=True, type=click.IntRange(12), metavar="N", help="As --limit.")
@click.option(
    "--levels",
    metavar="S,S",
    help="The noise levels that v is measured at, for instance 1,0.5; the scale of u is then the bank's.  [default: "
    "the checkpoint's]",
)
@click.option("--out", required=True, type=_Folder, metavar="DIR", help="Gets ood.md, ood.json and ood.png.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Of a processor.  [default: all cores but one]")
def ood(
    checkpoint: Path | None, base: str | None, data: str, split: str, limit: int, bank: Path | None, bank_split: str,
    bank_limit: int, levels: str | None, out: Path, device: str, threads: int | None,
) -> None:  # fmt: skip
    """Hold images of six kinds that the model was not trained for against ones that it was.

    Each known image gets a counterpart that is city-like, noise, inverted, flat, blurred or under snow. A table says
    how well u, v and what else the T passes give tell them apart (AUROC), what the gates make of u, and whether u
    changes the samples. Everything is seeded by names: the same command makes the same files.
    """
    from bench.core.device import resolve_device
    from bench.core.errors import RfbenchError, one_line
    from bench.core.files import write_bytes, write_json
    from bench.data.find import resolve_dataset
    from bench.reports.figures import save
    from rareflow.errors import RareflowError
    from rareflow.train.cli import Report, plain_command, provenance, set_up

    set_up(device, threads)
    from rareflow.card import EMBEDDED, card_identity
    from rareflow.checkpoint import load
    from rareflow.config import with_changes
    from rareflow.experiments.figure import draw_study
    from rareflow.experiments.run import markdown, study

    folder = checkpoint or EMBEDDED
    try:
        model = load(folder, base=base, device=resolve_device(device))
        if levels is not None:
            model.config = with_changes(model.config, {"uncertainty": {"levels": _levels(levels)}})
        known, facts = _images(resolve_dataset(data), split, limit)
        _refuse_trained(folder, known)
        others, other_facts = _images(
            resolve_dataset(str(_bank(out, bank_limit) if bank is None else bank)), bank_split, bank_limit
        )
        both = {image.scene for image in known} & {image.scene for image in others}
        if both:
            raise RareflowError(
                f"the scene {one_line(min(both), 60)} is in the bank and among the images; choose another --bank-split"
            )
        with Report() as report:
            found = study(model, others, known, tick=report.tick, refit=levels is not None)
    except RareflowError as error:
        raise RfbenchError(str(error)) from None
    document = {
        **found.document,
        "checkpoint": {"label": model.card.label, "identity": card_identity(model.card)},
        "data": facts,
        "bank_data": other_facts,
        "scores": found.scores,
        **provenance(plain_command()),
    }
    text = f"{markdown(found.document)}\n\n{_about(document)}\n"
    write_bytes(out / "ood.md", text.encode())
    write_json(out / "ood.json", document)
    save(draw_study(found), out / "ood.png")
    click.echo(text, nl=False)
    print(f"figure: {out / 'ood.png'}", file=sys.stderr)


_DEGRADED_EPILOG = """\b
Examples:
  rfbench degraded --out degraded
  rfbench degraded --checkpoint my-tiny --limit 12 --out degraded
"""


@click.command("degraded", epilog=_DEGRADED_EPILOG)
@click.option("--checkpoint", type=_Folder, metavar="DIR", help="Of 'rfbench train'.  [default: the embedded one]")
@click.option("--base", metavar="DIR|HUB-ID", help="The SD3 folder beneath it, if it has one.")
@click.option("--data", default="scenes", show_default=True, metavar="DIR|NAME", help="Images with HR.")
@click.option("--split", default="test", show_default=True, help="Which of them; the model must not have seen them.")
@click.option("--limit", default=24, show_default=True, type=click.IntRange(2), metavar="N", help="The first N by id.")
@click.option("--out", required=True, type=_Folder, metavar="DIR", help="Gets degraded.md and degraded.json.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Of a processor.  [default: all cores but one]")
def degraded(
    checkpoint: Path | None, base: str | None, data: str, split: str, limit: int, out: Path, device: str,
    threads: int | None,
) -> None:  # fmt: skip
    """Is u of any use on inputs that are worse than those of training?

    Each image's LR is taken as it is, and with noise, haze, blur and a shift against its HR. A table holds the loss
    with u as measured against u forced to 0 and to 1 and another image's u, and against gates turned down by hand; a
    second one says whether u, and five plain statistics of the LR, tell which images come out badly.
    """
    from bench.core.device import resolve_device
    from bench.core.errors import RfbenchError
    from bench.core.files import write_bytes, write_json
    from bench.data.find import resolve_dataset
    from rareflow.errors import RareflowError
    from rareflow.train.cli import Report, plain_command, provenance, set_up

    set_up(device, threads)
    from rareflow.card import EMBEDDED, card_identity
    from rareflow.checkpoint import load
    from rareflow.experiments.degraded import degraded_study, markdown

    folder = checkpoint or EMBEDDED
    try:
        model = load(folder, base=base, device=resolve_device(device))
        known, facts = _images(resolve_dataset(data), split, limit)
        _refuse_trained(folder, known)
        if model.config.text.captions:
            model.captions.prepare(sorted({"", *(image.caption for image in known)}))
        with Report() as report:
            found = degraded_study(model, known, report.tick)
    except RareflowError as error:
        raise RfbenchError(str(error)) from None
    document = {
        **found,
        "checkpoint": {"label": model.card.label, "identity": card_identity(model.card)},
        "data": facts,
        **provenance(plain_command()),
    }
    text = f"{markdown(found)}\n\n{_about(document)}\n"
    write_bytes(out / "degraded.md", text.encode())
    write_json(out / "degraded.json", document)
    click.echo(text, nl=False)


def _refuse_trained(folder: Path, images: list[Image]) -> None:
    from bench.core.errors import one_line
    from rareflow.card import id_hash, training_ids
    from rareflow.errors import RareflowError

    seen = training_ids(folder)
    trained = [image.id for image in images if id_hash(image.id) in seen]
    if trained:
        raise RareflowError(
            f"found {len(trained)} of {len(images)} images that the model was trained on "
            f"({one_line(trained[0], 60)}), expected new ones; choose another --data or --split"
        )


def _levels(text: str) -> list[float]:
    from rareflow.errors import RareflowError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise RareflowError(f"--levels: found '{text[:40]}', expected numbers in (0, 1], for instance 1,0.5") from None


def _images(dataset: Dataset, split: str, limit: int) -> tuple[list[Image], dict[str, Any]]:
    """The first images of a split as the protocol ``paired`` shows them to a model, and what they are."""
    import numpy as np

    from bench.models import Paired
    from rareflow.experiments.scores import Image

    protocol = Paired()
    records = sorted(dataset.records(split), key=lambda r: r.id)[:limit]
    images = []
    for record in records:
        task = protocol.prepare(dataset.load(record, protocol.reads))
        lr, hr = np.asarray(task.lr_display, np.float32), task.reference.display
        high = None if hr is None else np.asarray(hr, np.float32)
        images.append(Image(task.id, task.scene_id, task.caption, lr, task.size, high))
    return images, {"name": dataset.name, "split": split, "fingerprint": dataset.fingerprint(records)}


def _bank(out: Path, count: int) -> Path:
    """Procedural scenes of their own seed, in ``out/bank-COUNT``; made once."""
    from bench.data.make import write_scenes

    folder = out / f"bank-{count}"
    if not (folder / "dataset.json").is_file():
        command = f"rfbench data scenes DST --count {count} --seed {_BANK_SEED} --split train"
        prefix = f"scene{_BANK_SEED}"
        write_scenes(folder, count=count, seed=_BANK_SEED, split="train", prefix=prefix, command=command)
    return folder


def _about(document: dict[str, Any]) -> str:
    data, bank = document["data"], document.get("bank_data")
    beside = f"; bank: {bank['name']}, {bank['split']}, fingerprint {bank['fingerprint'][:12]}" if bank else ""
    commit = f"commit {str(document['commit'])[:10]}{' with changes' if document['dirty'] else ''}"
    return (
        f"Made by `{document['command']}` with {document['checkpoint']['label']} "
        f"({document['checkpoint']['identity'][:12]}); images: {data['name']}, {data['split']}, fingerprint "
        f"{data['fingerprint'][:12]}{beside}; "
        f"{commit if document['commit'] else 'no commit'}."
    )
