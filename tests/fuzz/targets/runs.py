"""Run folders in tables, citations and by themselves, and folders of pictures to score."""

from __future__ import annotations

import functools
import io
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError
from tests.fuzz import formats, mutate, seeds
from tests.fuzz.case import Case, Link
from tests.fuzz.targets.damage import damage, damaged_file


def make_run(target: str) -> Callable[[random.Random], Case]:
    def make(rng: random.Random) -> Case:
        metrics = rng.choice((None, None, ["psnr_rgb"], [mutate.text(rng)]))
        return Case(target, "run", run_files(rng, target), {"metrics": metrics})

    return make


def run_files(rng: random.Random, target: str) -> dict[str, bytes | Link | None]:
    parts = {"files": ("scores.parquet", "predictions/", "items/", "host.json")}.get(
        target, ("run.json", "summary.json")
    )
    files = seeds.tree("run")
    names = [n for n in sorted(files) if n.partition("/")[2].startswith(parts)]
    changed: dict[str, bytes | Link | None] = {}
    for name in rng.sample(names, rng.choice((1, 1, 2))):
        changed[name] = damaged_file(rng, name, files[name])
        if name.endswith(".parquet") and rng.random() < 0.4:
            changed[name] = _parquet(rng)
    return changed


def _parquet(rng: random.Random) -> bytes:
    """A readable parquet file of other columns and types than a run's."""

    import pandas as pd

    columns = {
        rng.choice(("id", "estimate", "psnr_rgb", mutate.text(rng).encode("utf-8", "replace").decode())): [
            rng.choice((1, "x", None, 2.5)) if rng.random() < 0.5 else "x"
        ]
        * 3
        for _ in range(3)
    }
    buffer = io.BytesIO()
    pd.DataFrame(columns).astype(str).to_parquet(buffer, compression=rng.choice(("snappy", "gzip", "zstd", None)))
    return buffer.getvalue()


def run_table(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.records.run import find_runs
    from bench.reports.table.build import build_table
    from bench.reports.table.write import WRITERS

    table = build_table(find_runs([folder]), args["metrics"])
    texts = {form: write(table) for form, write in WRITERS.items()}
    for text in texts.values():
        text.encode()
    json.loads(texts["json"])
    return ()


def run_cite(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.records.run import find_runs
    from bench.reports.cite.collect import collect
    from bench.reports.cite.write import WRITERS

    methods = collect(find_runs([folder]))
    texts = {form: write(methods) for form, write in WRITERS.items()}
    for text in texts.values():
        text.encode()
    json.loads(texts["json"])
    return methods.notes


def run_files_of_runs(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.records.run import find_runs

    errors = []
    ids = [f"scene-{i:02}" for i in range(3)]
    for run in find_runs([folder]):
        run.sessions()
        calls: list[Callable[[], object]] = [run.is_intact, run.scores, run.images, run.predictions.table]
        for i in ids:
            calls += [
                functools.partial(f, i)
                for f in (
                    run.predictions.read,
                    run.predictions.item,
                    run.predictions.is_done,
                    run.scored.image_features,
                )
            ]
            calls.append(functools.partial(run.scored.image, i, "0" * 64))
        for call in calls:
            try:
                call()
            except RfbenchError as error:
                errors.append(str(error))
    return errors


def make_score(rng: random.Random) -> Case:
    files = damage(rng, "pictures")
    for _ in range(rng.choice((0, 0, 1))):
        ending, data = formats.image(rng, share=0.5)
        files[f"{rng.choice(('pred', 'ref'))}/{mutate.text(rng)}{ending}"] = data
    options = {
        "scale": (65535.0, 1.0, 1e-300, 1e308),
        "ref_scale": (1.0, 0.0),
        "bands": ("R G B NIR", "x"),
        "border_px": (0, 2, 9, -1, 10**9),
        "quantise": ("none", "8"),
        "pred_name": ("{id}_x", "x", "{id}{id}"),
        "unit": ("reflectance",),
        "metrics": (["nll"], [mutate.text(rng)]),
    }
    args = {k: rng.choice(v) for k, v in options.items() if rng.random() < 0.1}
    return Case("score", "pictures", files, args)


def run_score(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.records.run import read_run
    from bench.reports.scores import WRITERS, document
    from bench.score import execute, foreign

    metrics = tuple(args.get("metrics", ("psnr_rgb", "sam_rgb")))
    given = {k: v for k, v in args.items() if k != "metrics"}
    run = foreign.import_images(foreign.Request(folder / "pred", folder / "ref", **given), out / "run")
    outcome = execute.score([run], execute.Request(metrics, "cpu", 0))
    found = document(read_run(run), outcome.names)
    for write in WRITERS.values():
        write(found).encode()
    return [image["error"] for image in found["images"] if image["error"]] + [
        n for i in found["images"] for n in i["notes"]
    ]
