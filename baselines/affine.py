"""``bicubic-affine``: bicubic, then the one colour map that fits a training split best. The honest baseline.

Between two sensors most of a low PSNR is colour: another band response, another atmosphere, another season. A 3x4
matrix for all images takes away the part that is the same everywhere, and knows nothing of texture. A learned model
that does not beat it has learned colour.

The matrix is fitted, not typed in: before a run, on the split ``train`` of the dataset that is run, under its protocol.
A dataset without such a split needs ``bicubic-affine:fit=FILE``, of ::

    python -m baselines.affine --data DIR --split train --out FILE

or ``bicubic-affine:held-out=scene``: each scene's map is fitted on all other scenes of the split that is run, and the
row says so. The procedural scenes keep the fit that comes with the package, which was made on scenes of other seeds.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from bench.models import (
    RGB,
    Adapter,
    Batch,
    FolderDataset,
    ModelSpec,
    Paired,
    Prediction,
    RfbenchError,
    digest,
    id_hash,
    read_json,
    resize,
    sha256,
    write_json,
)

FORMAT = 1
FITTED = Path(__file__).with_name("affine.json")
SHIPPED_FOR = "scenes"
"""The dataset that the fit of this package belongs to: the procedural scenes, whatever their seed."""
_DECIMALS = 8  # what processors and BLAS versions agree on, and 1e-5 of a grey level

AFFINE = ModelSpec(
    name="bicubic-affine",
    adapter="baselines.affine:BicubicAffine",
    summary="bicubic with the best global colour map of a training split",
    default_options={"fit": "", "held-out": ""},
    path_options=("fit",),
    dtypes=("float32",),
    licence="Apache-2.0",
    citation="keys1981cubic",
    status="ready",
)

Float64 = npt.NDArray[np.float64]


class BicubicAffine(Adapter):
    """clip(A rgb + b) of the bicubic image, in display range."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        if options.get("held-out", "") not in ("", "scene"):
            raise RfbenchError(f"option held-out: found '{options['held-out']:.40}', expected scene")
        if options.get("held-out", "") and options["fit"]:
            raise RfbenchError("the options fit and held-out exclude each other; leave one out")
        self._held_out = options.get("held-out", "")
        self._by_id: dict[str, Float64] = {}
        self._fitted_here: dict[str, Any] | None = None
        self._knows_images = bool(options["fit"])  # or was told which dataset they are of
        self.file = Path(options["fit"]) if options["fit"] else FITTED
        fit = read_json(self.file)
        if not isinstance(fit, dict) or fit.get("format") != FORMAT:
            raise RfbenchError(
                f"{self.file} is no colour map of format {FORMAT}; make one with 'python -m baselines.affine'"
            )
        self.matrix = _matrix(fit.get("matrix"), self.file)
        ids = fit.get("training_ids")
        if not isinstance(ids, str):
            raise RfbenchError(f"{self.file}: found no training_ids, expected the hashes of the ids; fit it again")
        self._training_ids = frozenset(ids.split())

    def label(self) -> str:
        return "bicubic-affine (leave-one-scene-out)" if self._held_out else ""

    def fit_to(self, dataset: Any, split: str, protocol: Any) -> None:
        """Fit the map on the dataset's split ``train``, or one for each scene on all others; see the module's head."""
        self._knows_images = True
        if self._held_out:
            self._hold_out(dataset.records(split), dataset, protocol)
            return
        if self.options["fit"]:
            return
        try:
            records = dataset.records("train")
        except RfbenchError:
            if dataset.name == SHIPPED_FOR:
                return
            raise RfbenchError(
                f"bicubic-affine: dataset {dataset.name} has no split 'train' to fit its colours on; give "
                "bicubic-affine:fit=FILE ('python -m baselines.affine' makes one), or bicubic-affine:held-out=scene, "
                "which fits each scene's map on all others"
            ) from None
        records = sorted(records, key=lambda r: str(r.id))
        self.matrix, facts = fit(_usable(dataset, records, protocol))
        self._training_ids = frozenset(id_hash(r.id) for r in records)
        self._fitted_here = {"matrix": self.matrix.tolist(), "images": len(records), **facts}

    def _hold_out(self, records: Iterable[Any], dataset: Any, protocol: Any) -> None:
        """A map for each scene from the normal equations of all others, which are added up once."""
        of_scene: dict[str, _Equations] = {}
        scene_of: dict[str, str] = {}
        for record in sorted(records, key=lambda r: str(r.id)):
            mine = of_scene.setdefault(record.scene_id, _Equations())
            scene_of[record.id] = record.scene_id
            for pixels in _usable(dataset, [record], protocol):
                mine.add(*pixels)
        if len(of_scene) < 2:
            raise RfbenchError(
                f"bicubic-affine: found {len(of_scene)} scene, expected two or more to hold one out; give fit=FILE"
            )
        maps = {s: _Equations.of(e for t, e in of_scene.items() if t != s).solved()[0] for s in of_scene}
        self._by_id = {image: maps[scene] for image, scene in scene_of.items()}
        self._fitted_here = {"matrices": {scene: matrix.tolist() for scene, matrix in sorted(maps.items())}}
        self._training_ids = frozenset()

    def identity(self) -> dict[str, Any]:
        if self._fitted_here is not None:
            return {"fit_sha256": digest(self._fitted_here)}
        return {"fit_sha256": sha256(self.file)}

    def training_ids(self) -> frozenset[str]:
        return self._training_ids

    def upscale(self, batch: Batch) -> Prediction:
        if self._held_out and not self._by_id:
            raise RfbenchError("held-out=scene needs a dataset to be fitted on; give fit=FILE for a single image")
        if not self._knows_images:
            self._knows_images = True  # once is enough
            warnings.warn(
                "bicubic-affine: this image's colours are mapped as those of the procedural scenes, which may be worse "
                "than bicubic; give bicubic-affine:fit=FILE ('python -m baselines.affine' makes one of a dataset)",
                stacklevel=1,
            )
        images = zip(batch.ids, batch.images, strict=True)
        return Prediction(
            mean=np.stack(
                [self._one(resize(image, batch.size), self._by_id.get(i, self.matrix)) for i, image in images]
            )
        )

    def _one(self, bicubic: npt.NDArray[np.float32], matrix: Float64) -> npt.NDArray[np.float32]:
        # In float64 and without BLAS, so that no batch and no processor moves a digit.
        mapped = np.einsum("hwc,oc->hwo", bicubic.astype(np.float64), matrix[:, :3]) + matrix[:, 3]
        return np.clip(mapped, 0.0, 1.0).astype(np.float32)


def _matrix(value: Any, path: Path) -> Float64:
    try:
        matrix = np.array(value, np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (3, 4) or not np.isfinite(matrix).all():
        raise RfbenchError(f"{path}: found no matrix of 3x4 finite numbers, expected one; fit it again")
    return matrix


def fit(pairs: Iterable[tuple[Float64, Float64]]) -> tuple[Float64, dict[str, float]]:
    """The colour map with the least squared error over all pixels of all pairs.

    Parameters
    ----------
    pairs : x and y, float64 (n, 3) each: the bicubic image's pixels and the HR's, in display range. They are read one
        after the other and only the normal equations are kept, so memory does not grow with their number.

    Returns
    -------
    The matrix [A b], float64 (3, 4), which minimises |A x + b - y|^2 summed over pixels; and ``pixels``,
    ``rmse_bicubic`` (of y - x), ``rmse_fitted`` (before clipping), in display units.

    Raises
    ------
    RfbenchError
        Pixels that do not fix a matrix, such as those of grey images.
    """
    equations = _Equations()
    for x, y in pairs:
        equations.add(x, y)
    return equations.solved()


class _Equations:
    """The normal equations of a fit, to which pixels are added; those of several images can be added up."""

    def __init__(self) -> None:
        self.xx, self.xy = np.zeros((4, 4)), np.zeros((4, 3))
        self.yy = self.before = 0.0
        self.count = 0

    def add(self, x: Float64, y: Float64) -> None:
        """Pixels (n, 3) of a bicubic image and of its HR."""
        rgb1 = np.column_stack([x, np.ones(len(x))])
        self.xx += np.einsum("pi,pj->ij", rgb1, rgb1)
        self.xy += np.einsum("pi,pj->ij", rgb1, y)
        self.yy += float((y * y).sum())
        self.before += float(((y - x) ** 2).sum())
        self.count += len(x)

    @classmethod
    def of(cls, several: Iterable[_Equations]) -> _Equations:
        """The equations of all images together."""
        found = cls()
        for one in several:
            found.xx += one.xx
            found.xy += one.xy
            found.yy += one.yy
            found.before += one.before
            found.count += one.count
        return found

    def solved(self) -> tuple[Float64, dict[str, float]]:
        """The matrix and the facts that ``fit`` returns."""
        if self.count == 0 or np.linalg.cond(self.xx) > 1e12:
            raise RfbenchError(
                f"{self.count} pixels do not fix a colour map: found bands that depend on each other, expected colour "
                "images; fit on others"
            )
        solution = np.linalg.solve(self.xx, self.xy)
        # |X S - Y|^2 at the minimum is |Y|^2 - <S, X'Y>: no second pass over the images.
        after = max(0.0, self.yy - float((solution * self.xy).sum()))
        facts = {
            "pixels": self.count,
            "rmse_bicubic": round(float(np.sqrt(self.before / (3 * self.count))), _DECIMALS),
            "rmse_fitted": round(float(np.sqrt(after / (3 * self.count))), _DECIMALS),
        }
        return np.round(solution.T, _DECIMALS), facts


def _usable(dataset: Any, records: Iterable[Any], protocol: Any) -> Iterator[tuple[Float64, Float64]]:
    """The pixels of the pairs that a run can score; the others fail in the run itself, with their reasons."""
    for record in records:
        with contextlib.suppress(RfbenchError):
            yield from list(_pixels(dataset, [record], protocol))


def _pixels(dataset: Any, records: Iterable[Any], protocol: Any) -> Iterator[tuple[Float64, Float64]]:
    """The pixels of each pair as ``upscale`` and the metrics see them, those without data left out."""
    for record in records:
        task = protocol.prepare(dataset.load(record, protocol.reads))
        target = task.reference.display_float
        if target is None:
            raise RfbenchError(
                f"{record.id}: found no HR image with the bands {' '.join(RGB)}, expected one; leave it out"
            )
        valid = task.reference.valid
        yield (
            resize(task.lr_display, task.size)[valid].astype(np.float64),
            target[valid].astype(np.float64),
        )


@click.command("python -m baselines.affine")
@click.option("--data", required=True, metavar="DIR", type=click.Path(path_type=Path), help="A dataset folder.")
@click.option("--split", default="train", show_default=True, help="Which of its images; never those of a test.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N images by id.")
@click.option("--normalisation", default="declared", show_default=True, help="As of the protocol that will be run.")
@click.option("--out", required=True, metavar="FILE", type=click.Path(path_type=Path), help="The fit, FILE.json.")
def command(data: Path, split: str, limit: int | None, normalisation: str, out: Path) -> None:
    """Fit the colour map of bicubic-affine on the images of a split.

    The same images give the same file.
    """
    dataset = FolderDataset(data)
    records = sorted(dataset.records(split), key=lambda r: r.id)[:limit]
    protocol = Paired(normalisation=normalisation)
    with click.progressbar(records, label="colour map", file=sys.stderr) as shown:
        matrix, facts = fit(_pixels(dataset, shown, protocol))
    # Where the folder lies is nobody's business; what it is called and how it was made are.
    words = [f"python -m baselines.affine --data {data.resolve().name} --split {split}"]
    words += [f"--limit {limit}"] if limit else []
    words += [f"--normalisation {normalisation}"] if normalisation != "declared" else []
    words += [f"--out {out.name if out.is_absolute() else out.as_posix()}"]
    info = read_json(data / "dataset.json")
    found = {
        "format": FORMAT,
        "command": " ".join(words),
        "matrix": matrix.tolist(),
        "normalisation": normalisation,
        "images": len(records),
        **facts,
        "data": {
            "name": dataset.name,
            "split": split,
            "first_id": records[0].id,
            "last_id": records[-1].id,
            "fingerprint": dataset.fingerprint(records),
            "command": info.get("command"),
        },
        "training_ids": " ".join(id_hash(r.id) for r in records),
    }
    write_json(out, found)
    click.echo(
        f"{out}: {len(records)} images, {facts['pixels']} pixels, RMSE {facts['rmse_bicubic']:.4f} of bicubic, "
        f"{facts['rmse_fitted']:.4f} of the fit"
    )


def main() -> None:
    """Errors of the user are one line and exit code 2, as those of ``rfbench``."""
    try:
        command.main(standalone_mode=False)
    except (RfbenchError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
