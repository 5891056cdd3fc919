"""Finished run folders of made-up scores, as ``rfbench run`` leaves them, but without predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.files import write_json
from bench.metrics.base import Features, SetScore
from bench.metrics.uncertainty import Ece
from bench.records.folder import OF_THE_SET, RunFolder, plan_digest

Scores = Mapping[str, Mapping[str, float | None]]
# name: title, unit, direction, group, identity
KNOWN = {
    "psnr_rgb": ("PSNR", "dB", "up", "fidelity", "psnr_rgb|rgb|peak1|cap100|q8|r1"),
    "ssim_rgb": ("SSIM", "", "up", "fidelity", "ssim_rgb|gauss11,1.5|popcov|range1|q8|r1"),
    "de00": ("ΔE00", "", "down", "physics", "de00|srgb|d65|2deg|k1,1,1|q8|r1"),
    "ece": ("ECE", "", "down", "uncertainty", Ece().identity()),
}


def scored_run(
    root: Path, name: str, scores: Scores, *, scenes: Mapping[str, str] | None = None, label: str | None = None,
    mean: Scores | None = None, failed: tuple[str, ...] = (), ece: Mapping[str, Features] | None = None,
    software: Mapping[str, Any] | None = None, keep_order: bool = False, **plan: Any,
) -> RunFolder:  # fmt: skip
    """A run ``root/name`` whose images have these scores (None: a reason); every image is a scene unless told."""
    folder = RunFolder(root / name)
    metrics = [*scores, *(["ece"] if ece else [])]
    ids = sorted({i for of in (*scores.values(), ece or {}) for i in of} | set(failed))
    keys = ("title", "unit", "direction", "group", "identity")
    described = {m: dict(zip(keys, KNOWN.get(m, (m, "", "up", "fidelity", f"{m}|r1")), strict=True)) for m in metrics}
    whole: dict[str, Any] = {
        "model": {"label": label or name, "options": {}},
        "protocol": {"name": "paired", "normalisation": "declared", "quantise": 8, "border_px": 0,
                     "captions": "dataset", "policy": "post", "scale": None},
        "data": {"name": "scenes", "split": "test", "fingerprint": "0123456789abcdef" * 4, "ids": ids},
        "metrics": described, "seed": 0, "draws": 4, "dtype": "float32", "device": "cpu", "batch_size": 1,
    } | plan  # fmt: skip
    versions = {"rfbench": "0.1.0", "python": "3.12.0", "packages": {"torch": "2.11.0"}, "commit": None, "dirty": None}
    record = {"format": 1, "plan": whole, "plan_sha256": plan_digest(whole), "software": dict(software or versions)}
    write_json(folder.path / "run.json", record | {"command": "rfbench run --model x"})
    rows, cells = [], {}
    for kind, of_kind in {"sample": scores, **({"mean": mean} if mean is not None else {})}.items():
        values = {m: {i: v for i, v in of.items() if v is not None and i not in failed} for m, of in of_kind.items()}
        cells[kind] = {
            "label": (label or name) + ("@mean" if kind == "mean" else ""),
            "metrics": {m: _cell(described[m]["identity"], [of[i] for i in sorted(of)]) for m, of in values.items()},
        }
        if ece and kind == "sample":
            cells[kind]["metrics"]["ece"] = _set_cell(described["ece"]["identity"], [ece[i] for i in sorted(ece)])
        for i in ids:
            row: dict[str, Any] = {"id": i, "scene_id": (scenes or {}).get(i, i), "estimate": kind,
                                   "error": "ValueError: broken" if i in failed else None}  # fmt: skip
            for metric in metrics:
                value = values.get(metric, {}).get(i)
                why = "no score" if i in failed else OF_THE_SET if metric == "ece" and ece else "too small"
                row |= {
                    metric: math.nan if value is None else value,
                    f"{metric}:reason": why if value is None else None,
                }
            rows.append(row)
    columns = ["id", "scene_id", "estimate", "error", *(c for m in metrics for c in (m, f"{m}:reason"))]
    sha256 = folder.write_scores(rows if keep_order else rows[::-1], columns)
    features = (
        {f"sample/ece/{k}": np.stack([ece[i][k] for i in sorted(ece)]) for k in ("coverage", "pixels")} if ece else {}
    )
    summary = {"format": 1, "plan_sha256": record["plan_sha256"], "images": len(ids), "failed": sorted(failed),
               "status": "complete", "scores_sha256": sha256, "rows": cells}  # fmt: skip
    folder.finish(summary, features)
    return folder


def _cell(identity: str, values: list[float]) -> dict[str, Any]:
    value = math.fsum(values) / len(values) if values else None
    return {"value": value, "n": len(values), "reason": None if values else "too small", "identity": identity}


def _set_cell(identity: str, features: list[Features]) -> dict[str, Any]:
    found = Ece().combine(features)
    assert isinstance(found, SetScore)
    return {"value": found.value, "n": len(features), "reason": None, "identity": identity}


def images(count: int) -> list[str]:
    """Ids."""
    return [f"scene_{i:04}" for i in range(count)]


def numbers(count: int, seed: int, mean: float = 0.0, deviation: float = 1.0) -> dict[str, float | None]:
    """Normal scores of ``count`` images."""
    values = np.random.default_rng(seed).normal(mean, deviation, count)
    return dict(zip(images(count), map(float, values), strict=True))
