"""``rfbench plot``: one subcommand for each kind of figure."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from bench.cli import complete
from bench.cli.help import Group

_runs = click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
_out = click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The figure, FILE.png or FILE.pdf."
)
_data = click.option(
    "--data",
    metavar="DIR|NAME",
    shell_complete=complete.dataset,
    help="Where the dataset lies now.  [default: where the run found it]",
)


_EPILOG = """\b
Examples:
  rfbench plot panel runs --out panel.png --ids scene-003,scene-007
  rfbench plot distributions runs --out strips.pdf --metric de00
  rfbench plot plane runs --out plane.pdf
  rfbench plot scenes runs --out scenes.pdf
  rfbench plot reliability runs --out reliability.pdf
  rfbench plot error runs --out error.pdf
"""


@click.group("plot", cls=Group, epilog=_EPILOG)
def command() -> None:
    """Draw figures of finished runs."""


@command.command("panel", epilog=_EPILOG)
@_runs
@_out
@click.option("--ids", metavar="A,B,...", help="Which images, in this order.  [default: the first four]")
@click.option("--crop", type=int, metavar="PX", help="Only the middle PX x PX pixels of the HR grid.")
@click.option("--inset", metavar="X,Y,PX", help="Also enlarge this square of each picture: left, top, side.")
@click.option(
    "--metric", default="psnr_rgb", show_default=True, help="Whose value of the whole image is written below."
)
@click.option("--uncertainty", is_flag=True, help="Also the deviation that each stochastic run predicts.")
@_data
def panel(
    runs: tuple[Path, ...],
    out: Path,
    ids: str | None,
    crop: int | None,
    inset: str | None,
    metric: str,
    uncertainty: bool,
    data: str | None,
) -> int:
    """Images side by side: LR, draw 0 of each run with a metric of the whole image, HR.

    RUN is a run folder, or a folder of them; all must be on the same data under the same protocol.
    """
    figures = _figures_for(out)
    from bench.records.run import find_runs

    names = [n.strip() for n in ids.split(",") if n.strip()] if ids else None
    content = figures.panel(
        find_runs(runs), names or None, data=data, crop_px=crop, uncertainty=uncertainty, metric=metric,
        inset=_square(inset),
    )  # fmt: skip
    return _saved(figures, figures.draw_panel(content), out)


@command.command("reliability", epilog=_EPILOG)
@_runs
@_out
@_data
def reliability(runs: tuple[Path, ...], out: Path, data: str | None) -> int:
    """Observed coverage of predicted intervals against what they promise, with the ECE.

    Central intervals of the Gaussian that NLL and ECE score, at 5 % to 95 %, pooled over all images; the band is the
    95 % interval under resampling of scenes. Below the diagonal intervals are too narrow. The dotted line is what a
    perfect model reaches with as many draws: to judge a model, run it with --draws 16 or more.

    RUN is a run folder, or a folder of them; runs without a distribution are left out with a notice.
    """
    return _calibration("draw_reliability", runs, out, data)


@command.command("error", epilog=_EPILOG)
@_runs
@_out
@_data
def error(runs: tuple[Path, ...], out: Path, data: str | None) -> int:
    """Error of the mean against predicted deviation: does the model know where it is wrong?

    RMSE in 15 bins of equally many values by predicted deviation, on logarithmic axes; the diagonal is calibrated.
    Deviations of few draws are noisy, which flattens the curve: run with --draws 16 or more.

    RUN is a run folder, or a folder of them; runs without a distribution are left out with a notice.
    """
    return _calibration("draw_error", runs, out, data)


@command.command("plane", epilog=_EPILOG)
@_runs
@_out
@click.option(
    "--distortion",
    metavar="METRIC",
    shell_complete=complete.metric,
    default="psnr_rgb",
    show_default=True,
    help="Across.",
)
@click.option(
    "--perception",
    shell_complete=complete.metric,
    metavar="METRIC",
    help="Upwards.  [default: the first of lpips_alex, dists, fid_tf, niqe, niqe_ref that was computed and does not "
    "rank nearest neighbour best]",
)
def plane(runs: tuple[Path, ...], out: Path, distortion: str, perception: str | None) -> int:
    """The perception-distortion plane: every row as a point, with its 95 % intervals over scenes.

    The best corner is the lower left. RUN is a run folder, or a folder of them, on the same data and protocol.
    """
    figures = _figures_for(out)
    from bench.records.run import find_runs

    found = figures.plane(find_runs(runs), distortion, perception)
    _left_out(found.left_out)
    return _saved(figures, figures.draw_plane(found), out)


@command.command("distributions", epilog=_EPILOG)
@_runs
@_out
@click.option(
    "--metric",
    default="psnr_rgb",
    shell_complete=complete.metric,
    show_default=True,
    help="One that every image has a number of.",
)
def distributions(runs: tuple[Path, ...], out: Path, metric: str) -> int:
    """One metric image by image: a strip for every row, with quartiles, median (line) and mean (diamond).

    RUN is a run folder, or a folder of them, on the same data and protocol.
    """
    figures = _figures_for(out)
    from bench.records.run import find_runs

    found = figures.series(find_runs(runs), metric)
    _left_out(found.left_out)
    return _saved(figures, figures.draw_distributions(found), out)


@command.command("scenes", epilog=_EPILOG)
@_runs
@_out
@click.option(
    "--metric",
    default="psnr_rgb",
    shell_complete=complete.metric,
    show_default=True,
    help="One that every image has a number of.",
)
@click.option("--rows", metavar="A,B", help="Two rows of the table, such as rareflow-tiny@mean,bicubic.")
def scenes(runs: tuple[Path, ...], out: Path, metric: str, rows: str | None) -> int:
    """Two rows scene by scene: the difference of a metric, with the 95 % interval of its mean.

    RUN is a run folder, or a folder of them, on the same data and protocol; with more than two models --rows chooses.
    """
    figures = _figures_for(out)
    from bench.core.errors import RfbenchError
    from bench.records.run import find_runs

    chosen = [r.strip() for r in rows.split(",") if r.strip()] if rows else None
    if chosen is not None and len(chosen) != 2:
        raise RfbenchError(f"--rows: found {len(chosen)} names, expected two rows such as A,B")
    found = figures.scenes(find_runs(runs), metric, tuple(chosen) if chosen else None)
    return _saved(figures, figures.draw_scenes(*found), out)


def _square(text: str | None) -> tuple[int, int, int] | None:
    from bench.core.errors import RfbenchError, one_line

    if text is None:
        return None
    try:
        x, y, side = (int(part) for part in text.split(","))
    except ValueError:
        raise RfbenchError(f"--inset: found '{one_line(text, 40)}', expected three numbers such as 80,60,40") from None
    return x, y, side


def _saved(figures: ModuleType, figure: Any, out: Path) -> int:
    figures.save(figure, out)
    print(f"figure: {out}", file=sys.stderr)
    return 0


def _left_out(rows: dict[str, str]) -> None:
    from bench.core.errors import one_line

    for label, reason in rows.items():
        print(f"note: {one_line(label, 60)} is left out: {one_line(reason, 160)}", file=sys.stderr)


def _calibration(draw: str, runs: tuple[Path, ...], out: Path, data: str | None) -> int:
    figures = _figures_for(out)
    from bench.records.run import find_runs

    found, skipped = figures.calibrations(find_runs(runs), data)
    _left_out(skipped)
    for label, one in found.items():
        if one.left_out:
            print(f"note: {label}: {one.left_out} images are left out, {one.images} are shown", file=sys.stderr)
    return _saved(figures, getattr(figures, draw)(found), out)


def _figures_for(out: Path) -> ModuleType:
    """``bench.reports.figures``, once the name of the figure is one that can be written."""
    from bench.core.errors import RfbenchError
    from bench.reports import figures

    if out.suffix.lower() not in figures.ENDINGS:
        raise RfbenchError(f"--out: found '{out.name}', expected a name that ends in .png or .pdf")
    return figures
