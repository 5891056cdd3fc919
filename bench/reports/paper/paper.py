"""Tables 1 to 3 of the RareFlow paper as data, and what the paper does not say of them.

Source: Fallah et al., RareFlow: Physics-Aware Flow-Matching for Cross-Sensor Super-Resolution of Rare-Earth Features,
arXiv:2510.23816. The numbers of a system stand in its spec (``ModelSpec.paper``), those of the ablation in
``printed/table3_ablation.csv``; all of them are printed with two decimals.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.core import registry
from bench.reports.render.data import to_csv

CITATION = "arXiv:2510.23816"
ABLATION = Path(__file__).with_name("printed") / "table3_ablation.csv"


@dataclass(frozen=True)
class Claimed:
    """A metric of the paper.

    ``title``, ``unit``, ``direction``, ``group`` as of a metric of ours; ``metrics``: the metrics of ours that may be
    meant, the likeliest first; ``left_open``: what the paper does not say of it, empty where its text fixes the number.
    """

    title: str
    unit: str
    direction: str
    group: str
    metrics: tuple[str, ...]
    left_open: str = ""


CLAIMED: Mapping[str, Claimed] = {
    "psnr": Claimed("PSNR", "dB", "up", "fidelity", ("psnr_rgb", "psnr_y"), "the paper does not say of which channels"),
    "ssim": Claimed("SSIM", "", "up", "fidelity", ("ssim_rgb",),
                    "the paper does not say the window's size and the channels"),
    "fsim": Claimed("FSIM", "", "up", "fidelity", ("fsim",),
                    "the paper's formula (eq. 22) leaves filters and reduction open"),
    "lpips": Claimed("LPIPS", "", "down", "perceptual", ("lpips_alex", "lpips_vgg"),
                     "the paper does not say which net (VGG is its example, AlexNet its training loss)"),
    "dists": Claimed("DISTS", "", "down", "perceptual", ("dists",)),  # the official code is named
    "fid": Claimed("FID", "", "down", "realism", ("fid_tf",),
                   "the paper says neither of how many images nor by which implementation (resizing)"),
    "niqe": Claimed("NIQE", "", "down", "realism", ("niqe",),
                    "the paper's formula (eq. 24) leaves the fitted model and the luma open"),
    "maniqa": Claimed("MANIQA", "", "up", "realism", ("maniqa_koniq", "maniqa_pipal"),
                      "the paper does not say which of the official checkpoints"),
}  # fmt: skip
"""By the name of the column in the files."""

# Of a run as a whole. The words complete "not comparable: ...".
DATA = "other images, as far as is known: the paper's are not public"
NORMALISATION = "the paper does not say which of its normalisations (fixed range, percentiles) its tables use"
SCALE = "the paper does not say how it brought models of fixed factors to its factor of 5"
KERNEL = "the paper does not say whether its bicubic reduction is antialiased"
WEIGHTS_OF_BASELINE = "the paper does not say which checkpoint it used, and whether it was trained further"
WEIGHTS_OF_METHOD = "other weights, as far as is known: the paper's are not public"

DECLARABLE = ("data", "normalisation", "scale", "kernel", "weights", *(k for k, c in CLAIMED.items() if c.left_open))
"""What a user who knows more than the paper says may declare to be as in the paper."""


@dataclass(frozen=True)
class PaperRow:
    """A row: its name as printed, the printed numbers by column, and of an ablation's row the name that
    ``rfbench ablate`` has for it."""

    name: str
    printed: Mapping[str, str]
    variant: str = ""


@dataclass(frozen=True)
class PaperTable:
    """A table: its number, what it shows, the protocol of ours that it is made under, and the rows."""

    number: int
    subject: str
    protocol: str
    rows: tuple[PaperRow, ...]


# The rows of Tables 1 and 2 in their order, as the paper writes the systems' names.
_SYSTEMS = {
    1: ("ZoomLDM", "SeeSR", "AdcSR", "MISR-S2", "SAMSR", "OpenSR", "RareFlow"),
    2: ("AdcSR", "SeeSR", "ZoomLDM", "SAMSR", "RareFlow"),
}
VARIANTS = {
    "1": "from-scratch", "2": "pretrained-control", "3": "caption", "4": "caption-gate", "5": "caption-loss",
    "6": "full",
}  # fmt: skip
"""Rows of Table 3 by their printed number: the variants of ``rfbench ablate``, whose labels end with these names."""

_TABLES = (
    (1, "Sentinel-2 to Maxar, real pairs", "paired"),
    (2, "HR reduced 4 times by bicubic", "bicubic-4x"),
    (3, "ablation", "paired"),
)


@cache
def tables() -> tuple[PaperTable, ...]:
    """The three tables, in order."""
    rows = {number: tuple(_row_of(name, number) for name in names) for number, names in _SYSTEMS.items()}
    rows[3] = tuple(_ablation())
    return tuple(PaperTable(number, subject, protocol, rows[number]) for number, subject, protocol in _TABLES)


@cache
def method() -> str:
    """The paper's own method: the system of Table 1 whose numbers the ablation's full model repeats."""
    whole = next(row for row in tables()[2].rows if row.variant == "full")
    return next(row.name for row in tables()[0].rows if row.printed == whole.printed)


def _row_of(system: str, number: int) -> PaperRow:
    """A system's row of a table, from its spec."""
    names = {plain(name): name for name in registry.points("models")}
    claimed = registry.load("models", names[plain(system)]).paper[f"table {number}"]
    return PaperRow(system, {column: f"{claimed[of.title]:.2f}" for column, of in CLAIMED.items()})


def _ablation() -> Iterator[PaperRow]:
    with ABLATION.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            numbers = {column: row[column] for column in CLAIMED}
            yield PaperRow(f"{row['id']} {row['variant']}", numbers, VARIANTS[row["id"]])


def as_csv(table: PaperTable) -> str:
    """A table of systems as ``results/paper`` has it."""
    return to_csv(["model", *CLAIMED], [[row.name, *row.printed.values()] for row in table.rows]) + "\n"


def matters(name: str, table: PaperTable) -> bool:
    """Whether something that may be declared has a meaning for a table."""
    return {"kernel": table.protocol == "bicubic-4x", "scale": table.protocol != "bicubic-4x"}.get(name, True)


def plain(name: str) -> str:
    """A system's name without case and punctuation: ``MISR-S2`` and ``misr_s2`` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def decimals(printed: str) -> int:
    """How many decimals a printed number has."""
    return len(printed.partition(".")[2])
