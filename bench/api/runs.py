"""Runs from Python: make them, read them, and look at their numbers as frames."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from bench.core.errors import RfbenchError
from bench.records.folder import RunFolder
from bench.records.run import Run, find_runs
from bench.records.run import read_run as _read_run

if TYPE_CHECKING:
    import pandas as pd

    from bench.data.dataset import Dataset

Format = Literal["markdown", "latex", "csv", "json"]


class Runs(Sequence[Run]):
    """Finished runs, in the order they were made or found.

    Attributes
    ----------
    left_out : why models did not run, by label.
    failed : why images have no prediction or no score, with how many of each.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        *,
        metrics: Sequence[str] | None = None,
        left_out: dict[str, str] | None = None,
        failed: dict[str, int] | None = None,
    ) -> None:
        self._runs = tuple(runs)
        self._metrics = tuple(metrics) if metrics is not None else None
        self.left_out = dict(left_out or {})
        self.failed = dict(failed or {})

    @overload
    def __getitem__(self, i: int) -> Run: ...
    @overload
    def __getitem__(self, i: slice) -> Runs: ...
    def __getitem__(self, i: int | slice) -> Run | Runs:
        return Runs(self._runs[i], metrics=self._metrics) if isinstance(i, slice) else self._runs[i]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __repr__(self) -> str:
        return f"Runs({', '.join(run.plan.model.label for run in self)})"

    def to_frame(self) -> pd.DataFrame:
        """All scores: a row for each run, image and estimate.

        Columns: ``model`` (the label), ``id``, ``scene_id``, ``estimate`` (``sample`` or ``mean``), ``error``, and one
        for each metric (float64, NaN where there is no number) with why beside it in ``METRIC:reason``.
        """
        import pandas as pd

        frames = []
        for run in self:
            frame = run.folder.scores()
            frame.insert(0, "model", run.plan.model.label)
            frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def summary(self) -> pd.DataFrame:
        """The numbers of a table: a row for each run and estimate, by its label, a column for each metric."""
        import pandas as pd

        rows = {
            run.summary.rows[kind].label: {name: cell.value for name, cell in run.summary.rows[kind].metrics.items()}
            for run in self
            for kind in run.kinds
        }
        frame = pd.DataFrame.from_dict(rows, orient="index").astype(float)
        return frame[list(self._metrics)] if self._metrics is not None and rows else frame

    def table(self, metrics: Sequence[str] | None = None, *, format: Format = "markdown") -> str:
        """The table as ``rfbench table`` writes it; NotComparable where the runs cannot stand in one."""
        from bench.reports.table.build import build_table
        from bench.reports.table.write import WRITERS

        return WRITERS[format](build_table(self._folders(), metrics if metrics is not None else self._metrics))

    def compare(self, metrics: Sequence[str] | None = None, *, against: str | None = None) -> pd.DataFrame:
        """Whether one row is better than another: a row for each pair of rows and metric.

        Columns: ``a``, ``b``, ``metric``, ``difference`` (a - b), ``low`` and ``high`` (95 % interval over scenes),
        ``p``, ``p_holm``, ``better`` (the label of the better row, or None where the data do not separate them),
        ``reason`` (why there is no interval).
        """
        import pandas as pd

        from bench.reports.compare.build import compare

        found = compare(self._folders(), metrics if metrics is not None else self._metrics, against=against)
        rows: list[dict[str, Any]] = []
        for pair in found.pairs:
            for finding in pair.findings:
                inference = finding.paired.inference
                rows.append(
                    {
                        "a": pair.a,
                        "b": pair.b,
                        "metric": finding.column.metric,
                        "difference": inference.value if inference else None,
                        "low": inference.low if inference else None,
                        "high": inference.high if inference else None,
                        "p": inference.p if inference else None,
                        "p_holm": finding.p_holm,
                        "better": {"a": pair.a, "b": pair.b}.get(finding.better or ""),
                        "reason": finding.paired.reason,
                    }
                )
        return pd.DataFrame(rows)

    def report(self, out: str | Path, *, title: str | None = None, against: str | None = None) -> Path:
        """Write the page of ``rfbench report`` into the folder ``out``; returns the file to open."""
        from bench.reports.html.runs import runs_report
        from bench.reports.html.write import write_folder
        from bench.reports.table.build import build_table
        from bench.reports.table.doubt import with_intervals, with_separated_marks

        folders = self._folders()
        table = with_separated_marks(with_intervals(build_table(folders), folders), folders)
        return write_folder(runs_report(folders, table, title=title, against=against), Path(out))

    def panel(
        self,
        out: str | Path,
        ids: Sequence[str] | None = None,
        *,
        metric: str = "psnr_rgb",
        crop_px: int | None = None,
        inset: tuple[int, int, int] | None = None,
        uncertainty: bool = False,
    ) -> Path:
        """Draw images side by side, as ``rfbench plot panel`` does, into a PNG or PDF file; returns it.

        Parameters
        ----------
        ids : the images, in order; None for the first four.
        metric : whose value stands below each picture.
        crop_px : only the middle ``crop_px`` x ``crop_px`` pixels.
        inset : left, top and side, in pixels, of a square that a corner shows enlarged.
        uncertainty : a further column for each model that predicts a distribution.
        """
        from bench.reports import figures

        found = figures.panel(
            self._folders(), ids, metric=metric, crop_px=crop_px, inset=inset, uncertainty=uncertainty
        )
        figures.save(figures.draw_panel(found), Path(out))
        return Path(out)

    def _folders(self) -> list[RunFolder]:
        return [run.folder for run in self]


def run(
    models: str | Sequence[str],
    protocol: str = "paired",
    data: str | Path = "scenes",
    *,
    metrics: Sequence[str] | None = None,
    exact_libraries: bool = False,
    workers: int | None = None,
    strict: bool = False,
    out: str | Path | None = None,
    weights_dir: str | Path | None = None,
    **options: Any,
) -> Runs:
    """Run models on a dataset under a protocol and score them, as ``rfbench run`` does.

    What is there already is not computed again.

    Parameters
    ----------
    models : names with options (``"rareflow:steps=8"``), ``path/file.py:Class``, or names given to ``register_model``.
    protocol : ``paired`` or ``bicubic-4x``, with options (``"paired:border_px=4"``).
    data : a dataset's folder or registered name.
    metrics : names; None stands for the columns of the paper's tables.
    exact_libraries : metrics by the libraries that define them instead of our own kernels (``by:`` in the identity).
    options : further options of ``rfbench run``, with underscores: ``split``, ``limit``, ``draws``, ``seed``,
        ``batch_size``, ``device``, ``dtype``, ``allow_train``, ``fresh``.

    Raises
    ------
    RfbenchError
        One line that says what was found, what was expected and what to do next.

    Examples
    --------
    >>> runs = run(["nearest", "bicubic"], metrics=["psnr_rgb"], limit=6, out=folder)
    >>> print(runs.summary().round(2))
             psnr_rgb
    nearest     24.29
    bicubic     24.44
    """
    from bench.predict.plan import Request
    from bench.score import execute
    from bench.score.run import run as run_both

    names = (models,) if isinstance(models, str) else tuple(models)
    places: dict[str, Any] = {"out": _path(out), "weights_dir": _path(weights_dir)}
    try:
        request = Request(names, protocol, str(data), workers=workers, strict=strict, **places, **options)
    except TypeError as error:
        raise RfbenchError(f"rfbench.run: {error}; the options are those of 'rfbench run --help'") from None
    asked = tuple(metrics) if metrics is not None else None
    scoring = execute.Request(
        asked, request.device, workers, strict, request.weights_dir, exact_libraries=exact_libraries
    )
    outcome = run_both(request, scoring, sys.argv)
    found = [_read_run(folder) for folder in outcome.folders]
    return Runs(found, metrics=outcome.names, left_out=outcome.left_out, failed=dict(outcome.failed))


def score(
    pred: str | Path,
    ref: str | Path | None = None,
    *,
    data: str | Path | None = None,
    metrics: Sequence[str] | None = None,
    exact_libraries: bool = False,
    out: str | Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    weights_dir: str | Path | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Score images that another program made, as ``rfbench score --pred`` does: a row for each image, by its id.

    Parameters
    ----------
    pred, ref : folders of images of the same names; or ``data``, a dataset whose ids the images are named by.
    metrics : names; None stands for the columns of the paper's tables.
    exact_libraries : as of ``run``.
    out : keeps the images as a run, which ``read_run`` reads.
    options : further options of ``rfbench score --pred``, with underscores: ``scale``, ``bands``, ``border_px``, ...

    Returns
    -------
    a frame with a column for each metric, ``METRIC:reason`` where it is empty, and ``error``.
    """
    from bench.score import execute
    from bench.score.foreign import Request, import_images

    places: dict[str, Any] = {"ref": _path(ref), "data": str(data) if data is not None else None}
    try:
        request = Request(Path(pred), **places, **options)
    except TypeError as error:
        raise RfbenchError(f"rfbench.score: {error}; the options are those of 'rfbench score --help'") from None
    asked = tuple(metrics) if metrics is not None else None
    with tempfile.TemporaryDirectory(prefix="rfbench-") as place:
        folder = import_images(request, Path(out) if out is not None else Path(place) / "run", sys.argv)
        scoring = execute.Request(
            asked, device, workers, weights_dir=_path(weights_dir), exact_libraries=exact_libraries
        )
        outcome = execute.score([folder], scoring, sys.argv)
        frame = folder.scores().query("estimate == 'sample'").set_index("id")
        columns = [c for name in outcome.names for c in (name, f"{name}:reason") if c in frame]
        return frame[[*columns, "error"]]


def score_runs(
    runs: Runs,
    metrics: Sequence[str],
    *,
    exact_libraries: bool = False,
    device: str = "auto",
    workers: int | None = None,
) -> Runs:
    """Add metrics to finished runs, without any model; returns the runs as they are then."""
    from bench.score import execute

    folders = [run.folder for run in runs]
    scoring = execute.Request(tuple(metrics), device, workers, exact_libraries=exact_libraries)
    outcome = execute.score(folders, scoring, sys.argv)
    return Runs([_read_run(folder) for folder in folders], metrics=outcome.names)


def read_run(path: str | Path) -> Run:
    """A finished run by its folder.

    Examples
    --------
    >>> runs = run("bicubic", metrics=["psnr_rgb"], limit=6, out=folder)
    >>> one = read_run(folder / "bicubic")
    >>> round(one.summary.rows["sample"].metrics["psnr_rgb"].value, 2)
    24.44
    >>> one.metrics["psnr_rgb"].identity
    'psnr_rgb|rgb|peak1|cap100|q8|r2'
    """
    return _read_run(RunFolder(Path(path)))


def read_runs(*paths: str | Path) -> Runs:
    """The finished runs among some folders and one level below each."""
    return Runs([_read_run(folder) for folder in find_runs([Path(p) for p in paths])])


def load_dataset(path: str | Path) -> Dataset:
    """A dataset by its folder or registered name.

    Examples
    --------
    >>> scenes = load_dataset("scenes")
    >>> records = scenes.records("test")
    >>> pair = scenes.load(records[0])
    >>> pair.lr.values.shape, pair.hr.values.shape, pair.lr.bands
    ((40, 40, 4), (200, 200, 4), ('R', 'G', 'B', 'NIR'))
    """
    from bench.data.find import resolve_dataset

    return resolve_dataset(str(path))


def _path(path: str | Path | None) -> Path | None:
    return Path(path) if path is not None else None
