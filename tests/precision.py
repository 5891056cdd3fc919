"""Hold every metric against independent computations and write docs/precision.md: ``python -m tests.precision``.

The comparisons are those of ``tests/reference``. The same machine and versions make the same bytes; with other versions
the last digits of values and differences may move. What cannot be computed here is a row that says what it lacks:
official weights are found as in a run (``--weights-dir``, ``$RFBENCH_WEIGHTS``, ``~/.cache/rfbench/weights``).
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from bench.core import registry
from bench.core.errors import RfbenchError
from bench.core.files import write_bytes
from bench.metrics.base import Setting
from bench.metrics.scorer import metric_class
from tests.conftest import ROOT
from tests.reference.cases import Case, Values, cases, difference
from tests.reference.definitions import DEFINITIONS
from tests.reference.pictures import Lacking

PAGE = ROOT / "docs" / "precision.md"
COMMAND = "python -m tests.precision"
PACKAGES = (
    "numpy", "scipy", "torch", "torchvision", "scikit-image", "colour-science", "lpips", "DISTS-pytorch",
    "torch-fidelity", "pyiqa", "timm", "torchmetrics", "piq", "pytorch-fid", "uncertainty-toolbox",
)  # fmt: skip
TABLE = ("| **held against** | **ours** | **theirs** | **difference** | **allowed** |", "|:--|--:|--:|--:|--:|")
Found = Values | str
"""Both numbers, or what is lacking."""


def run(chosen: Sequence[Case]) -> dict[str, Found]:
    """Each case's numbers by its name; progress goes to stderr."""
    import torch

    torch.set_num_threads(1)
    found: dict[str, Found] = {}
    for i, case in enumerate(chosen, 1):
        started = time.monotonic()
        try:
            found[case.name] = case.measure()
        except Lacking as lacking:
            found[case.name] = str(lacking)
        print(f"{i}/{len(chosen)} {case.name} ({time.monotonic() - started:.1f} s)", file=sys.stderr)
    return found


def beyond(chosen: Sequence[Case], found: Mapping[str, Found]) -> list[str]:
    """The names of the cases that differ by more than their tolerance."""
    return [
        case.name
        for case in chosen
        if not isinstance(values := found[case.name], str) and not difference(case, values) <= case.tolerance
    ]


def page(chosen: Sequence[Case], found: Mapping[str, Found]) -> str:
    """The document, from the cases in their order and what ``run`` found."""
    by_metric: dict[str, list[Case]] = {}
    for case in chosen:
        by_metric.setdefault(case.metric, []).append(case)
    text = [_HEAD, *_wrapped(f"Versions: {_versions()}."), "", *_summary(by_metric, found)]
    for name, own in by_metric.items():
        text += _section(name, own, found)
    return "\n".join(text) + "\n"


_HEAD = f"""# Precision

How far each metric of rfbench is from what it is held against. Made by `{COMMAND}`; the tests of
`tests/reference` run the same comparisons and fail where one is beyond what is allowed, or where
this page is not up to date.

What a metric is held against:

- *equation*: a slow float64 computation written from the paper's equation, which shares no code with ours
  (`tests/reference/*equations.py`);
- *closed form*: a value that is known without computing;
- *library*: another implementation, on the same images; where official weights are not needed to prove it, both are
  given one set of seeded random weights, so that everything but the numbers inside the network is compared. Its network
  then runs in double precision, so that what is allowed is the rounding of ours alone;
- *published*: a value that its authors or others printed.

A difference "of it" is relative to the other number. A row without numbers says what it lacks; with the official
weights in `--weights-dir` or `$RFBENCH_WEIGHTS` the same command and the same tests check it too.
"""


def _versions() -> str:
    installed = []
    for name in PACKAGES:
        try:
            installed.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            installed.append(f"no {name}")
    return f"Python {sys.version.split()[0]}, " + ", ".join(installed)


def _summary(by_metric: Mapping[str, Sequence[Case]], found: Mapping[str, Found]) -> list[str]:
    lines = [
        "| **metric** | **of the paper** | **computed by** | **comparisons** | **beyond** | **not computed here** |",
        "|:--|:--|:--|--:|--:|--:|",
    ]
    for name, own in by_metric.items():
        prose = DEFINITIONS[name]
        lacking = sum(isinstance(found[case.name], str) for case in own)
        cells = [f"`{name}`", prose.paper or "–", prose.by, len(own), len(beyond(own, found)), lacking]
        lines.append(_row(cells))
    return [*lines, ""]


def _section(name: str, own: Sequence[Case], found: Mapping[str, Found]) -> list[str]:
    metric, prose = metric_class(name), DEFINITIONS[name]
    lines = [f"## {metric.title}: `{name}`", "", f"    {metric(Setting()).identity()}", ""]
    lines += [*_wrapped(f"Computed by {prose.by}. {prose.differs}"), "", *TABLE]
    for case in own:
        said = f"*{case.kind}*: {case.against}" + (f" ({case.note})" if case.note else "")
        lines.append(_row([said, *_numbers(case, found[case.name])]))
    return [*lines, ""]


def _numbers(case: Case, found: Found) -> list[str]:
    of_it = " of it" if case.relative else ""
    allowed = f"{case.tolerance:.3g}{of_it}"
    if isinstance(found, str):
        return ["–", "–", f"needs {found}", allowed]
    apart = difference(case, found)
    return [*(f"{value:.8g}" for value in found), f"{apart:.1e}{of_it}" if apart else "0", allowed]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 120, break_on_hyphens=False)


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


_EXAMPLES = f"""\
examples:
  {COMMAND}                          # all of them, into docs/precision.md
  {COMMAND} --only fid_tf kid_tf     # print two sections
  {COMMAND} --weights-dir weights    # with the official weights: published values too
"""


def main(words: Sequence[str] | None = None) -> int:
    """The command; 1 where a difference is beyond what is allowed."""
    parser = argparse.ArgumentParser(
        prog=COMMAND,
        description=str(__doc__).split("\n")[0].split(":")[0] + ".",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE", help="default: docs/precision.md")
    parser.add_argument("--only", nargs="+", metavar="METRIC", help="print the rows of these and write nothing")
    parser.add_argument("--weights-dir", type=Path, metavar="DIR", help="where the official weights are")
    options = parser.parse_args(words)
    if options.weights_dir is not None:
        if not options.weights_dir.is_dir():
            raise RfbenchError(f"--weights-dir: {options.weights_dir} is not a folder; give the folder of the files")
        os.environ["RFBENCH_WEIGHTS"] = str(options.weights_dir)
    chosen = [case for case in cases() if case.metric in (options.only or registry.points("metrics"))]
    if not chosen:
        raise RfbenchError(f"no comparison of {' '.join(options.only)}; 'rfbench ls metrics' lists the metrics")
    found = run(chosen)
    text = page(chosen, found)
    if options.only:
        print(text[text.index("\n## ") + 1 :], end="")
    else:
        write_bytes(options.out, text.encode())
        print(options.out)
    wrong = beyond(chosen, found)
    for name in wrong:
        print(f"beyond what is allowed: {name}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RfbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
