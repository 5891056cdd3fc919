"""Small valid folders of everything that rfbench reads, as dicts of file contents; made once a process."""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.fuzz import formats

Tree = dict[str, bytes]


def read_tree(folder: Path) -> Tree:
    """The files below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@functools.cache
def tree(name: str) -> Tree:
    """The seed ``name``: ``layout:FAKE`` for the fake of a layout, or a name of ``_MAKERS``."""
    with tempfile.TemporaryDirectory(prefix="rfbench-seed-") as temporary:
        folder = Path(temporary) / "seed"
        if name.startswith("layout:"):
            _layouts()[name.removeprefix("layout:")][1](folder)
        else:
            _MAKERS[name](folder)
        return read_tree(folder)


def layouts() -> dict[str, str]:
    """The fakes of layouts: name of the seed -> LAYOUT of ``rfbench data import``."""
    return {f"layout:{name}": layout for name, (layout, _) in _layouts().items()}


@functools.cache
def _layouts() -> dict[str, tuple[str, Callable[[Path], None]]]:
    from tests.unit.test_layouts import FAKES

    known = {name: (layout, make) for name, (layout, make, _, _) in FAKES.items()}
    return known | {"pair folders": ("folder", _pair_folders), "catalogue": ("catalogue", _catalogue)}


def _dataset(folder: Path) -> None:
    """Two pairs, one in each of npy and TIFF, with mask, series, PAN and captions."""
    from tests.conftest import write_dataset, write_rows

    write_dataset(folder, count=2, hr_px=(60, 80))
    for kind, data in (("mask", formats.seeds()[".png"][2]), ("pan", formats.seeds()[".tif"][3])):
        (folder / kind).mkdir()
        (folder / kind / f"im0.{'png' if kind == 'mask' else 'tif'}").write_bytes(data)
    (folder / "series.npz").write_bytes(formats.series_seeds()[0])
    (folder / "lr/im1.tif").write_bytes(formats.seeds()[".tif"][1])
    write_rows(
        folder,
        [
            {
                "id": "im0",
                "scene_id": "s0",
                "split": "test",
                "lr": "lr/im0.npy",
                "hr": "hr/im0.npy",
                "pan": "pan/im0.tif",
                "mask": "mask/im0.png",
                "series": "series.npz",
                "caption": "a lake",
                "lr_date": "2021-08-01",
                "hr_date": "2021-08-03",
                "licence": "CC0",
                "hr_unit": "",
                "lr_gsd_m": "10",
            },
            {
                "id": "im1",
                "scene_id": "s1",
                "split": "test",
                "lr": "lr/im1.tif",
                "hr": "hr/im1.npy",
                "pan": "",
                "mask": "",
                "series": "",
                "caption": "thaw",
                "lr_date": "",
                "hr_date": "",
                "licence": "",
                "hr_unit": "",
                "lr_gsd_m": "",
            },
        ],
    )


def _run(folder: Path) -> None:
    """Two finished runs of one plan with all their files, written by the store itself."""
    from bench.records.scores import ImageScores
    from bench.records.types import ItemRecord
    from tests.unit.test_tables import fake

    for name, label in (("a", "bicubic"), ("b", "rareflow-tiny")):
        mean = {"psnr_rgb": 24.5, "sam_rgb": 3.0, "nll": None} if name == "b" else None
        values = {"psnr_rgb": 23.5, "sam_rgb": 3.8, "nll": None if name == "a" else -1.2}
        run = fake(folder, name, values, mean=mean, label=label)
        ids = [f"scene-{i:02}" for i in range(3)]
        for i in ids:
            arrays = {"mean": np.zeros((6, 8, 3), np.float32)}
            header = {"unit": "display", "bands": ["R", "G", "B"], "normalised": True}
            sha = run.predictions.write(i, arrays, header)
            run.predictions.commit(ItemRecord(id=i, scene_id=i, prediction_sha256=sha))
            kept = {"fid_tf|r1/sample/prediction": np.ones(8, np.float32)}
            run.scored.commit(ImageScores(id=i, prediction_sha256=sha), kept)


def _pictures(folder: Path) -> None:
    """Two folders of pictures of one size and the same names."""
    for side, shift in (("pred", 3), ("ref", 0)):
        (folder / side).mkdir(parents=True)
        for ending, k in ((".png", 0), (".png", 1), (".jpg", 0), (".npy", 0), (".tif", 0)):
            stem = f"{ending[1:]}{k}"
            data = formats.flat_png(15, 20, shift) if k == 1 else formats.seeds()[ending][k]
            (folder / side / f"{stem}{ending}").write_bytes(data)


def _checkpoint(folder: Path) -> None:
    from rareflow.card import Card, Stage, TrainingData
    from rareflow.checkpoint import save
    from rareflow.uncertainty import Scale
    from tests.small_rareflow import small_model

    model = small_model()
    model.scale = Scale(3e-5, 2e-5, model.config.uncertainty.form)
    card = Card(stages={"control": Stage(4)}, data=TrainingData(sides={"lr": {"unit": "display"}}))
    save(folder, model, card, ["a", "b"])


def _base(folder: Path) -> None:
    from tests.sd3_folder import make_sd3_folder

    make_sd3_folder(folder, layers=1)
    for path in sorted(folder.rglob("*")):
        keep = {"transformer", "vae", "scheduler"}
        if path.is_file() and path.relative_to(folder).parts[0] not in keep:
            path.unlink()


def _weights(folder: Path) -> None:
    """A spec's ``weights`` and the files of a weights folder."""
    files = {"mine_x4.pth": b"weights of mine", "other.safetensors": b"\x08\0\0\0\0\0\0\0{}      "}
    folder.mkdir(parents=True)
    declared = {}
    for name, data in files.items():
        (folder / name).write_bytes(data)
        declared[name] = {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "licence": "Apache-2.0",
            "source": f"https://example.org/{name}",
        }
    (folder / "spec.json").write_text(json.dumps(declared))
    (folder / "alexnet-owt-7be5be79.pth").write_bytes(b"not these weights")


def _pair_folders(folder: Path) -> None:
    for kind, factor in (("lr", 1), ("hr", 4)):
        (folder / kind).mkdir(parents=True)
        for i in range(2):
            values = np.random.default_rng(i).integers(0, 255, (12 * factor, 14 * factor, 3)).astype(np.uint8)
            np.save(folder / f"{kind}/p{i}.npy", values)


def _catalogue(folder: Path) -> None:
    from tests.unit.test_layouts import rows

    _pair_folders(folder)
    columns = ("id", "role", "kind", "file", "scene", "bands", "gsd_m", "value_meaning", "dtype", "acq_date", "licence")
    rows(
        folder / "manifest.csv",
        [
            dict(
                zip(
                    columns,
                    (
                        f"p{i}",
                        "paired",
                        kind,
                        f"{kind}/p{i}.npy",
                        f"s{i}",
                        "R,G,B",
                        "10",
                        "8-bit display",
                        "uint8",
                        "2021-08-01",
                        "CC0",
                    ),
                    strict=True,
                )
            )
            for i in range(2)
            for kind in ("lr", "hr")
        ],
    )
    rows(folder / "captions.csv", [{"id": "p0", "caption": "a slump"}, {"id": "p1", "caption": "a lake"}])


def _study(folder: Path) -> None:
    """A closed study of two models with an answer of each reviewer to each of his trials."""
    from bench.study.plan import ANSWERS, close, read_plan
    from bench.study.store import Store
    from tests.studies import small_study, two_runs

    with tempfile.TemporaryDirectory(prefix="rfbench-seed-") as temporary:
        study = small_study(Path(temporary), two_runs(Path(temporary)))
        plan = read_plan(study)
        store, at, count = Store(study / ANSWERS, plan.sha256), "2026-01-01T00:00:00+00:00", 0
        for reviewer, trials in plan.trials.items():
            store.add(at, reviewer, "profile", {"answers": {"role": "scientist"}})
            for trial in trials:
                answers = {"caption": {"validity": "valid"}, "parity": {"parity": "0"}}.get(
                    trial.kind, {"clarity": "1"}
                )
                body = {"answers": answers, "view": {"elapsed_ms": 1500}}
                store.add(at, reviewer, "answer", body, trial=trial.id)
                count += 1
        close(study, at, count)
        for name in ("-wal", "-shm"):  # what SQLite has not yet put into its file
            assert not (study / f"{ANSWERS}{name}").exists()
        folder.mkdir(parents=True)
        for path in study.glob("*.*"):
            (folder / path.name).write_bytes(path.read_bytes())


_MAKERS: dict[str, Callable[[Path], None]] = {
    "dataset": _dataset,
    "run": _run,
    "pictures": _pictures,
    "checkpoint": _checkpoint,
    "base": _base,
    "weights": _weights,
    "study": _study,
}
