"""Tables 1 to 3 of the RareFlow paper as data, and what the paper does not say of them.

Source: Fallah et al., RareFlow: Physics-Aware Flow-Matching for Cross-Sensor Super-Resolution of Rare-Earth Features,
arXiv:2510.23816. The numbers are in ``printed/*.csv`` as they are printed there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CITATION = "arXiv:2510.23816"
FOLDER = Path(__file__).with_name("printed")


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


METHOD = "RareFlow"
VARIANTS = {
    "1": "from-scratch", "2": "pretrained-control", "3": "caption", "4": "caption-gate", "5": "caption-loss",
    "6": "full",
}  # fmt: skip
"""Rows of Table 3 by their printed number: the variants of ``rfbench ablate``, whose labels end with these names."""

_FILES = (
    (1, "Sentinel-2 to Maxar, real pairs", "paired", "table1_paired.csv"),
    (2, "HR reduced 4 times by bicubic", "bicubic-4x", "table2_bicubic4x.csv"),
    (3, "ablation", "paired", "table3_ablation.csv"),
)


@cache
def tables() -> tuple[PaperTable, ...]:
    """The three tables, in order."""
    return tuple(PaperTable(n, subject, protocol, _rows(FOLDER / file)) for n, subject, protocol, file in _FILES)


def _rows(path: Path) -> tuple[PaperRow, ...]:
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return tuple(
        PaperRow(
            name=f"{row['id']} {row['variant']}" if "variant" in row else row["model"],
            printed={column: row[column] for column in CLAIMED},
            variant=VARIANTS[row["id"]] if "variant" in row else "",
        )
        for row in found
    )


def matters(name: str, table: PaperTable) -> bool:
    """Whether something that may be declared has a meaning for a table."""
    return {"kernel": table.protocol == "bicubic-4x", "scale": table.protocol != "bicubic-4x"}.get(name, True)


def plain(name: str) -> str:
    """A system's name without case and punctuation: ``MISR-S2`` and ``misr_s2`` are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def decimals(printed: str) -> int:
    """How many decimals a printed number has."""
    return len(printed.partition(".")[2])
