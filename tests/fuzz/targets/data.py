"""Image files, series, dataset folders and imports."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import formats, mutate, seeds
from tests.fuzz.case import Case
from tests.fuzz.targets.damage import damage


def make_image(rng: random.Random) -> Case:
    ending, data = formats.image(rng)
    side: dict[str, Any] = {"unit": rng.choice(("display", "reflectance", "relative"))}
    if rng.random() < 0.5:
        side |= {
            "scale": rng.choice((None, 1.0, 255.0, 1e-300, 1e308)),
            "bands": rng.choice((None, "R G B", "R G B NIR", "PAN")),
        }
        side |= {"nodata": rng.choice((None, 0.0, -9999.0)), "offset": rng.choice((0.0, -1000.0, 1e308))}
    return Case("image", files={f"x{ending}": data}, args={"side": side, "name": f"x{ending}"})


def run_image(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.data import readers
    from bench.data.dataset import Side, read_image

    path = folder / args["name"]
    readers.georeference(path)
    image = read_image(path, Side(**args["side"]))
    assert np.isfinite(image.values).all() and not image.values[~image.valid].any(), "as bench.core.image.Image says"
    return ()


def make_series(rng: random.Random) -> Case:
    return Case("series", files={"s.npz": formats.series(rng)})


def run_series(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.data import checks, readers
    from bench.data.dataset import Side

    series = readers.read_series(folder / "s.npz")
    return [text for _, _, text in checks.check_series(series, None, Side())]


def make_dataset(target: str) -> Callable[[random.Random], Case]:
    def make(rng: random.Random) -> Case:
        files = damage(rng, "dataset")
        for name, edit in (("pairs.csv", mutate.table), ("dataset.json", mutate.document)):
            if rng.random() < 0.45:
                with contextlib.suppress(IndexError):
                    files[name] = edit(rng, seeds.tree("dataset")[name])
        return Case(
            target, "dataset", files, {"protocol": rng.choice(("paired", "bicubic-4x", "paired:captions=template"))}
        )

    return make


def run_dataset(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.core.errors import ItemError
    from bench.data.dataset import FolderDataset
    from bench.predict.unit import prepare_task
    from bench.protocols.find import resolve_protocol

    dataset, protocol = FolderDataset(folder), resolve_protocol(args["protocol"])
    records = dataset.records("test")
    dataset.fingerprint(records)
    tasks = [prepare_task(protocol, dataset, record) for record in records[:4]]
    return [str(task) for task in tasks if isinstance(task, ItemError)]


def run_validate(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.data.validate import Problem, validate

    found: list[Problem] = []
    report = validate(folder, found.append)
    json.dumps(report.to_dict(), allow_nan=False, ensure_ascii=False).encode()
    return map(str, found)


def make_import(rng: random.Random) -> Case:
    seed = rng.choice(sorted(seeds.layouts()))
    files = damage(rng, seed)
    names = sorted(seeds.tree(seed))
    if rng.random() < 0.1:  # a file under another name
        name = rng.choice(names)
        parent = name.rpartition("/")[0]
        files[f"{parent}/{mutate.text(rng)}{Path(name).suffix}".lstrip("/")] = seeds.tree(seed)[name]
    options: dict[str, Any] = {}
    for key, values in (
        ("offset", (-1000.0, 1e308, 5.0)),
        ("scale", (1.0, 1e-300, 4095.0)),
        ("bands", ("B G R", "", "x\ny")),
        ("unit", ("display", "relative", "reflectance", "x")),
        ("dates", ("all", "clearest", "series", "x")),
        ("level", ("L1C", "x")),
        ("reference", ("raw", "x")),
        ("hr_gsd_m", (4.0,)),
    ):
        if rng.random() < 0.06:
            options[key] = rng.choice(values)
    name = mutate.text(rng) if rng.random() < 0.1 else "x"
    return Case("import", seed, files, {"layout": seeds.layouts()[seed], "options": options, "name": name})


def run_import(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.data.layouts import import_layout

    notes: list[str] = []
    import_layout(args["layout"], folder, out / "made", name=args["name"], note=notes.append, **args["options"])
    return notes
