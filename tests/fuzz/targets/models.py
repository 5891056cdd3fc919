"""Checkpoints, the SD3 folder beneath one, and weights."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError
from tests.fuzz import mutate, seeds
from tests.fuzz.case import Case
from tests.fuzz.targets.damage import damage


def make_checkpoint(rng: random.Random) -> Case:
    files = damage(rng, "checkpoint")
    if rng.random() < 0.5:
        files = {"card.json": mutate.document(rng, seeds.tree("checkpoint")["card.json"])}
    return Case("checkpoint", "checkpoint", files, {"rehash": rng.random() < 0.6, "load": rng.random() < 0.5})


def rehash(folder: Path) -> None:
    """Make the card's hashes those of the files, so that what comes behind them is reached."""
    import hashlib

    card_path = folder / "card.json"
    with contextlib.suppress(Exception):
        card = json.loads(card_path.read_text())
        for name in card["files"]:
            with contextlib.suppress(OSError):
                if (folder / name).is_file() and not (folder / name).is_symlink():
                    card["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        card_path.write_text(json.dumps(card))


def run_checkpoint(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.models.call import Model
    from rareflow.checkpoint import load

    model = Model(f"rareflow:checkpoint={folder}", device="cpu", dtype="float32", weights_dir=None)
    model.identity()
    model.adapter.training_ids()
    model.adapter.input_side()
    model.adapter.output_side()
    if args["load"]:
        load(folder)
    return [model.label]


def make_base(rng: random.Random) -> Case:
    return Case("base", "base", damage(rng, "base"))


def run_base(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from rareflow.base import open_base

    open_base(folder, text=False)
    return ()


def make_weights(rng: random.Random) -> Case:
    return Case(
        "weights",
        "weights",
        damage(rng, "weights")
        | ({"spec.json": mutate.document(rng, seeds.tree("weights")["spec.json"])} if rng.random() < 0.7 else {}),
    )


def run_weights(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench import weights
    from bench.core.errors import Unavailable

    reasons = []
    for name in ("alexnet-owt-7be5be79.pth", "lpips_alex.pth"):
        try:
            weights.find(name, folder)
        except RfbenchError as error:
            reasons.append(str(error))
    try:
        declared = json.loads((folder / "spec.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return reasons
    if not isinstance(declared, dict) or not all(isinstance(v, dict) for v in declared.values()):
        return reasons  # a plugin's own type, not a file's: Python says it at import
    for entry in weights.of_model("mine", declared).values():
        try:
            weights.find(entry, folder)
        except Unavailable as error:
            reasons.append(str(error))
    return reasons
