"""Finished run folders of made-up scores, written by the records' own classes, but without predictions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.files import digest, sha256
from bench.core.reason import Reason
from bench.core.typed import decode, encode
from bench.metrics.base import Features, SetScore
from bench.metrics.uncertainty import Ece
from bench.records.folder import RunFolder
from bench.records.types import (
    FORMAT,
    Cell,
    ItemRecord,
    MetricRecord,
    MetricScores,
    Row,
    RunRecord,
    ScoreRecord,
    Software,
    Summary,
)

Scores = Mapping[str, Mapping[str, float | None]]
# name: title, unit, direction, group, identity
KNOWN = {
    "psnr_rgb": ("PSNR", "dB", "up", "fidelity", "psnr_rgb|rgb|peak1|cap100|q8|r1"),
    "ssim_rgb": ("SSIM", "", "up", "fidelity", "ssim_rgb|gauss11,1.5|popcov|range1|q8|r1"),
    "fsim": ("FSIM", "", "up", "fidelity", "fsim|luma|pool256|q8|r1"),
    "lpips_alex": ("LPIPS", "", "down", "perceptual", "lpips_alex|v0.1|alex|w:7be5be79+df73285e|q8|r1"),
    "dists": ("DISTS", "", "down", "perceptual", "dists|vgg|noresize|w:397923af+f5e65c96|q8|r1"),
    "fid_tf": ("FID", "", "down", "realism", "fid_tf|inception-v3-compat|2048|tf1resize|w:6726825d|q8|r1"),
    "kid_tf": ("KID", "", "down", "realism", "kid_tf|all|r1"),
    "niqe": ("NIQE", "", "down", "realism", "niqe|live|yiq|block96|w:fa2aa4d1|q8|r1"),
    "maniqa_koniq": ("MANIQA", "", "up", "realism", "maniqa_koniq|koniq|scale0.8|crops20grid|w:a207f8ab|q8|r1"),
    "sam_rgb": ("SAM", "degrees", "down", "physics", "sam_rgb|rgb|deg|skip0|q8|r1"),
    "de00": ("ΔE00", "", "down", "physics", "de00|srgb|d65|2deg|k1,1,1|q8|r1"),
    "nll": ("NLL", "nats", "down", "uncertainty", "nll|gauss|mean|floor1/255|r1"),
    "ece": ("ECE", "", "down", "uncertainty", Ece().identity()),
}
PROTOCOL = {"name": "paired", "normalisation": "declared", "quantise": 8, "border_px": 0, "captions": "dataset",
            "policy": "post", "scale": None}  # fmt: skip
SOFTWARE = Software(rfbench="0.1.0", python="3.12.0", packages={"torch": "2.11.0"})


def described(names: Iterable[str], identities: Mapping[str, str] | None = None) -> dict[str, MetricRecord]:
    """The records of metrics, those of the default set as they are; ``identities`` that are others."""
    found = {}
    for name in names:
        standard = (name.removeprefix("pyiqa:").upper(), "", "up", "perceptual", f"{name}|r1")
        title, unit, direction, group, identity = KNOWN.get(name, standard)
        identity = (identities or {}).get(name, identity)
        found[name] = MetricRecord(
            name=name, title=title, unit=unit, direction=direction, group=group, identity=identity
        )
    return found


def started(root: Path, name: str, ids: Iterable[str], *, label: str = "", software: Software = SOFTWARE,
            record: Mapping[str, Any] | None = None, **plan: Any) -> tuple[RunFolder, RunRecord]:  # fmt: skip
    """A begun run ``root/name``; ``plan`` has fields of its plan that are others, ``record`` of ``run.json``."""
    whole = {
        "model": {"label": label or name},
        "protocol": PROTOCOL,
        "data": {"name": "scenes", "split": "test", "fingerprint": "0123456789abcdef" * 4, "ids": list(ids)},
        "seed": 0, "draws": 4, "dtype": "float32", "device": "cpu", "batch_size": 1,
    } | plan  # fmt: skip
    found = {"format": FORMAT, "plan": whole, "plan_sha256": digest(whole), "software": encode(software),
             "command": "rfbench run --model x"}  # fmt: skip
    folder, of_run = RunFolder(root / name), decode(found | dict(record or {}), RunRecord, root / name)
    folder.start(of_run)
    return folder, of_run


def scored_run(
    root: Path, name: str, scores: Scores, *, scenes: Mapping[str, str] | None = None, label: str | None = None,
    mean: Scores | None = None, failed: tuple[str, ...] = (), ece: Mapping[str, Features] | None = None,
    keep_order: bool = False, identities: Mapping[str, str] | None = None, references_sha256: str = "", **begun: Any,
) -> RunFolder:  # fmt: skip
    """A run ``root/name`` whose images have these scores (None: a reason); every image is a scene unless told.

    Its tables hold the images in reverse order unless ``keep_order``; ``begun`` goes to ``started``.
    """
    metrics = described([*scores, *(["ece"] if ece else [])], identities)
    ids = sorted({i for of in (*scores.values(), ece or {}) for i in of} | set(failed))
    folder, record = started(root, name, ids, label=label or name, **begun)
    for i in ids:
        error = "ValueError: broken" if i in failed else None
        folder.predictions.commit(ItemRecord(id=i, scene_id=(scenes or {}).get(i, i), error=error))
    folder.predictions.finish(ids if keep_order else ids[::-1])
    by_kind = {"sample": scores} | ({} if mean is None else {"mean": mean})
    cells: dict[str, dict[str, Cell]] = {metric: {} for metric in metrics}
    hashes = {}
    for metric, described_as in metrics.items():
        rows: dict[tuple[str, str], ScoreRecord] = {}
        for kind, of_kind in by_kind.items():
            of = {i: of_kind[metric].get(i) for i in ids if i not in failed} if metric in of_kind else {}
            rows |= {(i, kind): _score(value) for i, value in of.items()}
            if of:
                cells[metric][kind] = _cell(described_as.identity, [v for v in of.values() if v is not None])
        features = {}
        if metric == "ece" and ece:
            rows = {(i, "sample"): ScoreRecord() for i in ece}
            cells[metric]["sample"] = _set_cell(described_as.identity, [ece[i] for i in sorted(ece)])
            features = {f"sample/{k}": np.stack([ece[i][k] for i in sorted(ece)]) for k in ("coverage", "pixels")}
        found = MetricScores(metric=described_as, cells=cells[metric], device="cpu", software=record.software,
                             predictions_sha256=folder.predictions.digest())  # fmt: skip
        of_metric = folder.scored.metric(described_as.identity, metric)
        of_metric.write(found, rows, {}, features, {})
        hashes[metric] = sha256(of_metric.path / "metric.json")
    folder.finish(
        Summary(
            format=FORMAT, plan_sha256=record.plan_sha256, images=len(ids), failed=tuple(sorted(failed)),
            status="complete", metrics=metrics, scores=hashes, references_sha256=references_sha256,
            rows={
                kind: Row(
                    label=(label or name) + ("@mean" if kind == "mean" else ""),
                    metrics={m: of[kind] for m, of in cells.items() if kind in of},
                )
                for kind in by_kind
            },
        )
    )  # fmt: skip
    return folder


def _score(value: float | None) -> ScoreRecord:
    return ScoreRecord(value=value) if value is not None else ScoreRecord(reason=Reason("unfit", "too small"))


def _cell(identity: str, values: list[float]) -> Cell:
    if not values:
        return Cell(identity=identity, reason=Reason("unfit", "too small"))
    return Cell(identity=identity, value=math.fsum(values) / len(values), n=len(values))


def _set_cell(identity: str, features: list[Features]) -> Cell:
    found = Ece().combine(features)
    assert isinstance(found, SetScore)
    return Cell(identity=identity, value=found.value, n=len(features))


def images(count: int) -> list[str]:
    """Ids."""
    return [f"scene_{i:04}" for i in range(count)]


def numbers(count: int, seed: int, mean: float = 0.0, deviation: float = 1.0) -> dict[str, float | None]:
    """Normal scores of ``count`` images."""
    values = np.random.default_rng(seed).normal(mean, deviation, count)
    return dict(zip(images(count), map(float, values), strict=True))
