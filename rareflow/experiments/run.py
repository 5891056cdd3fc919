"""The study: known images and their strange counterparts through the T passes, then AUROC, gates, and samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bench.stats.percentiles import auroc, auroc_interval, mean_interval
from rareflow.experiments.inputs import KINDS, corrupt
from rareflow.experiments.scores import (
    FLAG,
    SCORES,
    Array,
    Image,
    Measured,
    Reference,
    image_seed,
    measure_image,
    misfit,
)
from rareflow.flow import noise_levels
from rareflow.images import shrink
from rareflow.model import RareFlow
from rareflow.uncertainty import Scale

KNOWN = "in distribution"
ALL = "all kinds"
_SAMPLED = 4  # strange images of each kind that are also sampled


@dataclass(frozen=True)
class Study:
    """The outcome. ``document`` is all numbers as JSON values; ``examples`` holds, for the first image and each of its
    counterparts by kind, the LR and the map v; ``scores`` the scores (n,) by kind and name."""

    document: dict[str, Any]
    examples: dict[str, tuple[Array, Array]]
    scores: dict[str, dict[str, list[float]]]


def study(
    model: RareFlow, bank: Sequence[Image], images: Sequence[Image], *, kinds: Sequence[str] = tuple(KINDS),
    tick: Callable[[str, int], None] = lambda *_: None, refit: bool = False,
) -> Study:  # fmt: skip
    """Measure ``images`` and a counterpart of each kind for each, against a bank of other known images.

    ``tick`` is called with (what, total) for each image that is done. ``refit`` takes the scale of u from the bank in
    place of the checkpoint's, for a v that is measured in another way than in training. The same arguments give the
    same numbers.
    """
    total = len(bank) + len(images) * (1 + len(kinds))
    if model.config.text.captions:
        model.captions.prepare(sorted({"", *(image.caption for image in (*bank, *images))}))

    def measured(image: Image) -> Measured:
        found = measure_image(model, image)
        tick("measuring u and v", total)
        return found

    known = [measured(image) for image in bank]
    if refit:
        model = replace(model, scale=Scale.fit(torch.tensor([m.mean_v for m in known]), model.scale.form))
    reference = Reference.fit(known, model.scale)
    inputs = {KNOWN: list(images)} | {
        kind: [replace(i, lr=corrupt(i.lr, kind, i.id), hr=None) for i in images] for kind in kinds
    }
    found = {kind: [measured(image) for image in of] for kind, of in inputs.items()}
    scored = {kind: [reference.scores(m) for m in of] for kind, of in found.items()}
    scores = {kind: {name: [row[name] for row in rows] for name in SCORES} for kind, rows in scored.items()}
    scenes = [image.scene for image in images]
    document = {
        "format": 1,
        "images": len(images),
        "bank": len(bank),
        "passes": model.config.uncertainty.passes,
        "levels": list(model.config.uncertainty.levels),
        "scale": {"form": model.scale.form, "tau": model.scale.tau, "kappa": model.scale.kappa},
        "auroc": _aurocs(scores, scenes, kinds),
        "u": {kind: _levels(model, of, scores[kind], reference.limits[FLAG]) for kind, of in found.items()},
        "samples": _samples(model, images, [m.u for m in found[KNOWN]], tick),
        "strange_samples": _strange(model, {kind: inputs[kind] for kind in kinds}, reference, tick),
    }
    examples = {kind: (inputs[kind][0].lr, of[0].v) for kind, of in found.items()}
    return Study(document, examples, scores)


def _aurocs(
    scores: Mapping[str, Mapping[str, Sequence[float]]], scenes: Sequence[str], kinds: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """By kind and score: AUROC against the known images, and both ends of its interval."""
    table: dict[str, dict[str, list[float]]] = {}
    for kind in (*kinds, ALL):
        table[kind] = {}
        for name in SCORES:
            inside = scores[KNOWN][name]
            outside = [s for k in (kinds if kind == ALL else (kind,)) for s in scores[k][name]]
            ends = auroc_interval(inside, outside, scenes)
            table[kind][name] = [round(x, 4) for x in (auroc(inside, outside), *ends)]
    return table


def _levels(
    model: RareFlow, found: Sequence[Measured], scores: Mapping[str, Sequence[float]], limit: float
) -> dict[str, Any]:
    """What one kind's u and v are, what the gates make of that u, and how many images would be flagged."""
    mean_v = torch.tensor([m.mean_v for m in found], dtype=torch.float64)
    exp = 1 - torch.exp(-mean_v / model.scale.kappa)
    control = [_control(model, m.u) for m in found]
    return {
        "mean_v": _spread(mean_v.numpy()),
        **{name: _spread(np.array(scores[name])) for name in ("u", "u_kappa", "ratio")},
        "exp": _spread(exp.numpy()),
        "control": _spread(np.array(control)) if model.field.gates is not None else None,
        **{f"{name}_is_1": round(float(np.mean(np.array(scores[name]) >= 1)), 4) for name in ("u", "ratio")},
        "flagged": round(float(np.mean(np.array(scores[FLAG]) > limit)), 4),
    }


def _control(model: RareFlow, u: float) -> float:
    """s_ctrl * alpha at a u: mean over the noise levels of sampling and over layers."""
    sigmas = torch.tensor(noise_levels(model.config.sampling.steps, model.config.sampling.shift)[:-1])
    with torch.no_grad():
        layers = model.config.control.layers
        scales = model.field.scales(sigmas.to(model.device), torch.full_like(sigmas, u).to(model.device), layers)
    return float(scales.mean())


def _samples(
    model: RareFlow, images: Sequence[Image], measured: Sequence[float], tick: Callable[[str, int], None]
) -> dict[str, Any] | None:
    """Known images sampled with u forced to 0, as measured, and forced to 1, from the same noise.

    PSNR in dB of each, the paired differences from u = 0 with their intervals over scenes, and how far u moves a
    sample (RMS from 0 to 1, in grey levels of 255). None without gates or without HR: then u changes nothing.
    """
    if model.field.gates is None or any(image.hr is None for image in images):
        return None
    psnr: dict[str, list[float]] = {"0": [], "measured": [], "1": []}
    moved = []
    scenes = [image.scene for image in images]
    for image, u in zip(images, measured, strict=True):
        drawn = [_sample(model, image, forced) for forced in (0.0, u, 1.0)]
        assert image.hr is not None
        for of, sample in zip(psnr.values(), drawn, strict=True):
            of.append(float(-10 * np.log10(max(float(np.square(sample - image.hr).mean()), 1e-10))))
        moved.append(255 * float(np.sqrt(np.square(drawn[2] - drawn[0]).mean())))
        tick("sampling with u 0, measured and 1", len(images))
    return {
        "psnr": {name: round(float(np.mean(values)), 4) for name, values in psnr.items()},
        "psnr_minus_u0": {
            name: [round(x, 4) for x in mean_interval(np.subtract(psnr[name], psnr["0"]), scenes)]
            for name in ("measured", "1")
        },
        "moved_grey_levels": round(float(np.mean(moved)), 4),
    }


def _strange(
    model: RareFlow, inputs: Mapping[str, Sequence[Image]], reference: Reference, tick: Callable[[str, int], None]
) -> dict[str, Any] | None:
    """Does more u keep a sample nearer to a strange LR? Misfit on the LR's grid with u 0 and u 1, in grey levels.

    There is no HR to compare with, so this is faithfulness to the LR, which eq. 2-3 promise to raise with u.
    """
    if model.field.gates is None:
        return None
    found = {}
    for kind, images in inputs.items():
        rows = []
        for image in images[:_SAMPLED]:
            expected = reference.expected(image.lr)
            drawn = [_on_grid(_sample(model, image, u), image.lr.shape[:2]) for u in (0.0, 1.0)]
            rows.append([255 * misfit(sample, expected) for sample in drawn])
            tick("sampling strange images", sum(len(i[:_SAMPLED]) for i in inputs.values()))
        before, after = np.mean(rows, axis=0)
        difference = mean_interval([b - a for a, b in rows], [i.scene for i in images[:_SAMPLED]])
        found[kind] = {
            "u0": round(float(before), 3), "u1": round(float(after), 3), "images": len(rows),
            "difference": [round(x, 3) for x in difference],
        }  # fmt: skip
    return found


def _sample(model: RareFlow, image: Image, u: float) -> Array:
    caption = image.caption if model.config.text.captions else ""
    found = model.upscale(image.lr[None], image.size, captions=[caption], seeds=[(image_seed(image.id),)], u=u)
    sample: Array = found.samples[0, 0]
    return sample


def _on_grid(image: Array, grid: tuple[int, ...]) -> Array:
    shrunk = shrink(torch.from_numpy(image.transpose(2, 0, 1).copy())[None], (grid[0], grid[1]))
    return np.asarray(shrunk[0].permute(1, 2, 0).numpy(), np.float32)


def _spread(values: np.ndarray) -> list[float]:
    """Mean and standard deviation, to six significant digits."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return [float(f"{x:.6g}") for x in (float(np.mean(values)), deviation)]


def markdown(document: Mapping[str, Any]) -> str:
    """The tables of a study with what their columns mean."""
    heads = {"u": "u (eq. 4)", "u_kappa": "at κ", "ratio": "ratio", "mean_v": "mean v", "two_sided": "two-sided",
             "relative": "relative", "two_scales": "two scales", "three": "three", "passes": "all of T",
             "input": "LR alone"}  # fmt: skip
    lines = [f"| AUROC | {' | '.join(heads.values())} |", f"|:--{'|--:' * len(heads)}|"]
    for kind, row in document["auroc"].items():
        cells = [f"{row[name][0]:.2f} ({row[name][1]:.2f}–{row[name][2]:.2f})" for name in heads]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{document['images']} known images and a counterpart of each for every kind; scores fitted on "
        f"{document['bank']} other known images; T = {document['passes']}. In brackets the 95 % interval when scenes "
        "are drawn again. 0.5 is chance; below it the kind looks more known than the known.",
        "",
        *(f"- {heads[name]}: {what}" for name, what in SCORES.items()),
        "",
        f"| input | mean v (×10⁻⁶) | u (eq. 4) | at κ | ratio | exp | s_ctrl·α | u = 1 | ratio = 1 | flagged by "
        f"{heads[FLAG]} |",
        "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for kind, row in document["u"].items():
        v, gate = row["mean_v"], row["control"]
        cells = [f"{v[0] * 1e6:.2f} ± {v[1] * 1e6:.2f}"]
        cells += [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in map(row.get, ("u", "u_kappa", "ratio", "exp"))]
        cells.append(f"{gate[0]:.3f} ± {gate[1]:.3f}" if gate else "no gates")
        cells += [f"{row[key]:.0%}" for key in ("u_is_1", "ratio_is_1", "flagged")]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines += [
        "",
        "Mean and deviation over images; s_ctrl·α is the mean over the noise levels of sampling and layers. Flagged: "
        "beyond 95 % of the bank.",
    ]
    samples, strange = document["samples"], document["strange_samples"]
    if samples:
        lines += ["", "| known images, same noise | u = 0 | u measured | u = 1 |", "|:--|--:|--:|--:|"]
        psnr, less = samples["psnr"], samples["psnr_minus_u0"]
        lines.append(f"| PSNR (dB) | {' | '.join(f'{psnr[k]:.3f}' for k in psnr)} |")
        cells = [f"{m:+.3f} [{a:+.3f}, {b:+.3f}]" for m, a, b in less.values()]
        lines.append(f"| minus u = 0 | | {' | '.join(cells)} |")
        lines += ["", f"From u = 0 to u = 1 a sample moves by {samples['moved_grey_levels']:.2f} grey levels (RMS)."]
    if strange:
        lines += ["", "| distance from the LR (grey levels) | u = 0 | u = 1 | difference |", "|:--|--:|--:|--:|"]
        for kind, row in strange.items():
            m, a, b = row["difference"]
            cells = [f"{row['u0']:.2f}", f"{row['u1']:.2f}", f"{m:+.2f} [{a:+.2f}, {b:+.2f}]"]
            lines.append(f"| {kind} ({row['images']}) | {' | '.join(cells)} |")
    return "\n".join(lines)
