"""From the identity that a table prints back to the metric that computes it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from bench.core.errors import RfbenchError, one_line
from bench.metrics.base import FIT, WEIGHTS, Metric, Setting
from bench.metrics.scorer import metric_class

_EXAMPLE = "NAME|...|rN, as tables print it, such as psnr_rgb|rgb|peak1|cap100|q8|r1"


def rebuild(identity: str, *, device: str = "cpu", weights_dir: Path | None = None) -> Metric:
    """The metric of an identity: equal images give the number that stood beside it.

    Its ``setting`` says how images must have been prepared: rounded to ``quantise`` bits, ``border_px`` cut from every
    side. A metric that was fitted on references gives a value only for references that give the same fit.

    Parameters
    ----------
    identity : one line, such as ``"ssim_rgb|gauss11,1.5|popcov|range1|q8|r1"``.
    weights_dir : where pretrained weights lie; whether they do is what ``missing`` says.

    Raises
    ------
    RfbenchError
        If it is no identity, or that of another metric, revision, weights or parameters than are installed here.
    """
    text = one_line(identity, 600)
    parts = text.split("|")
    if len(parts) < 2 or not all(parts) or not re.fullmatch(r"r[1-9][0-9]{0,5}", parts[-1]):
        raise RfbenchError(f"'{text}' is no identity of a metric, expected {_EXAMPLE}")
    kind = metric_class(parts[0])
    setting = Setting(device, weights_dir, None)
    rest = parts[1:-1]
    if rest and (border := re.fullmatch(r"border([1-9][0-9]{0,5})", rest[-1])):
        setting = dataclasses.replace(setting, border_px=int(border[1]))
        rest = rest[:-1]
    if kind.display:
        if not rest or rest[-1] not in ("q8", "qnone"):
            raise RfbenchError(f"'{text}': found no q8 or qnone, expected how images were rounded: {_EXAMPLE}")
        setting = dataclasses.replace(setting, quantise=8 if rest[-1] == "q8" else None)
    if kind.library is not None and f"by:{kind.library.package}" in rest:
        setting = dataclasses.replace(setting, exact=True)
    fits = [p.removeprefix(FIT) for p in rest if p.startswith(FIT)] if kind.fits_references else []
    metric = kind(setting)
    metric.planned_fit = fits[0] if fits else None
    found = metric.identity(metric.planned_fit) if metric.planned_fit else metric.identity()
    if found != text:
        raise RfbenchError(_difference(text, parts, metric, found.split("|")))
    return metric


def _difference(text: str, asked: list[str], metric: Metric, here: list[str]) -> str:
    """Why an identity cannot be rebuilt, and what to do."""
    if asked[-1] != here[-1]:
        return (
            f"'{text}' is of revision {asked[-1][1:]}, expected {here[-1][1:]}, which is {metric.name}'s here; use the "
            "rfbench that made the number, or score again with this one"
        )
    theirs, ours = ("+".join(p.removeprefix(WEIGHTS) for p in x if p.startswith(WEIGHTS)) for x in (asked, here))
    if theirs != ours:
        why = metric.missing() if "missing" in ours else None
        return (
            f"'{text}' is of the weights {theirs or 'none'}, expected {ours or 'none'}, which {metric.name} has here"
            + (f" ({why})" if why else "; use those that made the number, or score again with these")
        )
    return (
        f"'{text}' has other parameters than {metric.name} has here, expected {'|'.join(here)}; use the rfbench that "
        "made the number, or score again with this one"
    )
