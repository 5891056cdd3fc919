"""``rfbench metrics``: what a metric is, and whether an identity can be computed again here."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from bench.cli import complete
from bench.cli.help import Group

_EPILOG = """\b
Examples:
  rfbench metrics show ssim_rgb
  rfbench metrics show niqe niqe_ref --json
  rfbench metrics show pyiqa:gmsd
  rfbench metrics show 'ssim_rgb|gauss11,1.5|popcov|range1|q8|r1'

'rfbench ls metrics' lists the names. Exit codes: 0 done; 2 an unknown name, or an identity of another revision, other
weights or other parameters than are here.
"""


@click.group("metrics", cls=Group, epilog=_EPILOG)
def command() -> None:
    """Say what metrics are (ours, a plugin's or pyiqa's)."""


@command.command("show", short_help="Definition, equation, range, needs and traps of metrics.", epilog=_EPILOG)
@click.argument("names", nargs=-1, required=True, metavar="NAME|IDENTITY...", shell_complete=complete.metric)
@click.option("--weights-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where pretrained weights lie.")
@click.option("--json", "as_json", is_flag=True, help="As JSON: a list with an object for each.")
def show(names: tuple[str, ...], weights_dir: Path | None, as_json: bool) -> None:
    """Print the definition, equation, parameters, range, needs, references and traps of metrics.

    An identity, as tables print it, is taken for its metric if that gives the same number here; else it says what
    differs.
    """
    import contextlib

    from bench.metrics.base import Setting
    from bench.metrics.identity import rebuild
    from bench.metrics.scorer import built
    from bench.reports.metric_page import metric_page

    found = []
    with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints while it is loaded
        for name in names:
            if "|" in name:
                metric = rebuild(name, weights_dir=weights_dir)
            else:
                metric = built(name, Setting(weights_dir=weights_dir))
            found.append(metric_page(metric))
    if as_json:
        import json

        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    click.echo("\n\n".join("\n".join(_page(about, width)) for about in found))


def _page(about: dict[str, Any], width: int) -> Iterator[str]:
    """The lines of one metric: heading, definition, then a label and its text each."""
    yield f"{about['name']} ({about['title']}): {about['summary']}"
    for paragraph in about["definition"]:
        yield ""
        yield from textwrap.wrap(paragraph, width)
    yield ""
    rows = [
        ("equation", about["equation"]),
        ("parameters", "  ".join(about["parameters"])),
        ("range", _range(about)),
        ("value of", _level(about)),
        ("needs", _needs(about)),
        ("computed by", _package(about)),
        *(("weights", _weights(w)) for w in about["weights"]),
        ("licence", about["licence"]),
        ("source", about["source"]),
        *(("reference", _reference(r)) for r in about["references"]),
        ("traps", about["traps"]),
        ("on satellite", about["on_satellite"]),
        ("identity", about["identity"]),
        ("defined in", about["defined_in"]),
        ("here", about["missing"] or "can be computed"),
    ]
    for label, text in rows:
        if text:
            begin = f"{label:<13} "
            # An identity or an address is to be pasted, so it is never broken.
            yield from textwrap.wrap(
                text, width, initial_indent=begin, subsequent_indent=" " * len(begin), break_long_words=False,
                break_on_hyphens=False,
            )  # fmt: skip


def _range(about: dict[str, Any]) -> str:
    low, high = about["range"]
    unit = f" ({about['unit']})" if about["unit"] else ""
    if low is None and high is None:
        bounds = "not bounded"
    elif high is None:
        bounds = f"{low:.4g} and above"
    elif low is None:
        bounds = f"up to {high:.4g}"
    else:
        bounds = f"{low:.4g} to {high:.4g}"
    better = {"up": ["higher is better"], "down": ["lower is better"]}
    texts = [bounds + unit, *better.get(about["direction"], ["neither more nor less is better by itself"])]
    if about["perfect"] is not None:
        texts.append(f"{about['perfect']:g} for an image that equals its reference")
    if about["symmetric"] is not None:
        texts.append("symmetric" if about["symmetric"] else "not symmetric")
    return "; ".join(texts)


def _level(about: dict[str, Any]) -> str:
    if about["level"] == "image":
        return "an image; of a set the mean over its images"
    fit = ", whose references it is fitted on" if about["fits_references"] else ""
    return f"a set of at least {about['min_images']} image{'s' * (about['min_images'] > 1)}{fit}"


_NEEDS = {
    "reference": "a reference",
    "distribution": "a predictive distribution (draws, or mean and deviation)",
    "lr": "the LR image",
    "pan": "the panchromatic image",
    "mask": "the dataset's mask",
    "reflectance": "reflectance on both sides",
}


def _needs(about: dict[str, Any]) -> str:
    texts = [_NEEDS.get(n, n) for n in about["needs"]] or ["no reference"]
    if about["min_side_px"] > 1:
        texts.append(f"{about['min_side_px']} px on the shorter side")
    texts.append("display images rounded as the protocol says" if about["display"] else "values before rounding")
    texts.append("pixels without data are left out" if about["masks"] else "an image without missing pixels")
    return "; ".join(texts)


def _package(about: dict[str, Any]) -> str:
    package = about["package"]
    here = package["import"] if package["version"] is None else f"{package['name']} {package['version']}"
    return f"{here}, as {about['library']} has it" if about["library"] else here


def _weights(file: dict[str, Any]) -> str:
    from bench.weights import megabytes

    if "error" in file:
        return f"{file['file']}: {file['error']}"
    return f"{file['file']}, {megabytes(file['bytes'])}, sha256 {file['sha256'][:16]}, {file['licence']}"


def _reference(work: dict[str, str]) -> str:
    ends = f"doi:{work['doi']}" if work["doi"] else f"arXiv:{work['arxiv']}" if work["arxiv"] else work["url"]
    return ", ".join(t for t in (work["authors"], work["title"], work["where"], ends) if t)
