"""Do the gates use u? Known images with their LR degraded and the true HR beside it: the velocity loss with u as
measured, forced to 0 and to 1, and another image's; and whether u tells the images apart that come out badly.

The paper has u lessen the reliance on what is unfamiliar. On inputs of one quality nothing can show that: u varies
little, and the error with it. Here both vary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from bench.stats.percentiles import mean_interval
from rareflow.degrade import degrade
from rareflow.errors import RareflowError
from rareflow.experiments.scores import Image, Measured, image_seed, measure_image
from rareflow.flow import add_noise, clean
from rareflow.images import next_multiple, pad_to, upsample
from rareflow.losses import velocity_loss
from rareflow.model import RareFlow
from rareflow.noise import normal
from rareflow.train.chips import stream

CONDITIONS: dict[str, tuple[str, float]] = {
    "clean": ("", 0.0),
    "noise .06": ("noise", 0.4),
    "noise .15": ("noise", 1.0),
    "haze": ("haze", 1.0),
    "blur": ("blur", 0.5),
    "shift": ("shift", 2 / 3),
}  # by name: a kind of ``rareflow.degrade`` and its strength; at x5 the shift is of 2 HR px, the blur of 5
FORCED = ("0", "1", "another's")  # what u is compared with
SCALES = (0.5, 0.7)  # of all gates at u as measured: what a gate that knew better could gain
LEVELS = (0.125, 0.375, 0.625, 0.875)
PLAIN = ("input_r", "input_g", "input_b", "input_contrast", "input_gradient")
_ROUNDS = 1000


@dataclass(frozen=True)
class _Seen:
    """An image in a condition: what the T passes say of it, its latents, and how wrong the best guess is."""

    image: Image
    measured: Measured
    z0: Tensor
    x: Tensor
    captions: tuple[Tensor, Tensor]
    error: float


def degraded_study(
    model: RareFlow, images: Sequence[Image], tick: Callable[[str, int], None] = lambda *_: None
) -> dict[str, Any]:
    """All numbers as JSON values; ``markdown`` makes the tables. RareflowError without gates, or without an HR."""
    if model.field.gates is None:
        raise RareflowError("found a model without gates, expected one with: u changes nothing in it")
    if any(image.hr is None for image in images):
        raise RareflowError("found images without an HR, expected both sides; choose another --data")
    total = 2 * len(CONDITIONS) * len(images)
    seen: dict[str, list[_Seen]] = {}
    for name, (kind, strength) in CONDITIONS.items():
        seen[name] = []
        for image in images:
            random = stream(0, "degraded", name, image.id)
            lr = degrade(image.lr, kind, strength, random) if kind else image.lr
            seen[name].append(_look(model, replace(image, lr=lr)))
            tick("measuring u", total)
    pooled = [one.measured.u for of in seen.values() for one in of]
    others = iter(np.array(pooled)[stream(0, "degraded", "permuted").permutation(len(pooled))])
    losses: dict[str, list[dict[str, float]]] = {}
    for name, of in seen.items():
        losses[name] = []
        for one in of:
            u = one.measured.u
            choices = {"measured": u, "0": 0.0, "1": 1.0, "another's": float(next(others))}
            found = {key: _loss(model, one, value) for key, value in choices.items()}
            found |= {f"x{scale:g}": _loss(model, one, u, scale) for scale in SCALES}
            losses[name].append(found)
            tick("velocity loss at several u", total)
    scenes = [image.scene for image in images]
    return {
        "format": 1,
        "images": len(images),
        "conditions": {
            name: {
                "u": [float(np.mean(us)), float(np.std(us, ddof=1))],
                "loss": float(np.mean([row["measured"] for row in losses[name]])),
                "minus_measured": {
                    key: list(mean_interval([row[key] - row["measured"] for row in losses[name]], scenes))
                    for key in (*FORCED, *(f"x{scale:g}" for scale in SCALES))
                },
            }
            for name, of in seen.items()
            for us in [[one.measured.u for one in of]]
        },
        "ranking": _ranking(seen, scenes),
    }


def _look(model: RareFlow, image: Image) -> _Seen:
    measured = measure_image(model, image)
    size, patch = image.size, model.multiple
    work = next_multiple((size[0] * model.config.work_scale, size[1] * model.config.work_scale), patch)
    inner = size[0] * model.config.work_scale, size[1] * model.config.work_scale
    assert image.hr is not None
    with torch.no_grad():
        low, high = (
            pad_to(upsample(torch.from_numpy(np.ascontiguousarray(side.transpose(2, 0, 1)))[None], inner), work)
            for side in (image.lr, image.hr)
        )
        x, z0 = (model.codec.encode(side.to(model.device)).float() for side in (low, high))
        caption = image.caption if model.config.text.captions else ""
        tokens, pooled = (t.to(model.device, model.dtype) for t in model.captions.get([caption]))
        z, level = normal([image_seed(image.id)], tuple(z0.shape[1:]), "noise").to(model.device), torch.ones(1)
        u = torch.full((1,), measured.u)
        v = _velocity(model, z, level, x, (tokens, pooled), u)
        guess = model.codec.decode(clean(z, v, level.to(model.device))).float().clamp(0, 1).cpu()
    error = (guess - high)[..., : inner[0], : inner[1]].square().mean().sqrt()
    return _Seen(image, measured, z0, x, (tokens, pooled), float(error))


def _velocity(
    model: RareFlow, z: Tensor, sigma: Tensor, x: Tensor, captions: tuple[Tensor, Tensor], u: Tensor, scale: float = 1.0
) -> Tensor:
    """The velocity, float32, with all gates multiplied by ``scale``."""
    field = replace(model.field, s_ctrl=scale * model.field.s_ctrl)
    n, dtype = len(sigma), model.dtype
    tokens, pooled = (t.expand(n, *t.shape[1:]) for t in captions)
    return field.velocity(
        z.to(dtype), sigma.to(model.device), x.expand(n, *x.shape[1:]).to(dtype), tokens, pooled, u.to(model.device)
    ).float()


def _loss(model: RareFlow, one: _Seen, u: float, scale: float = 1.0) -> float:
    """The mean velocity loss over ``LEVELS`` of noise that belongs to the image, the same for every u."""
    n, seed = len(LEVELS), image_seed(one.image.id)
    eps = torch.cat([normal([seed], tuple(one.z0.shape[1:]), "held out", level) for level in LEVELS]).to(model.device)
    sigma, z0 = torch.tensor(LEVELS, device=model.device), one.z0.expand(n, *one.z0.shape[1:])
    with torch.no_grad():
        v = _velocity(model, add_noise(z0, eps, sigma), sigma, one.x, one.captions, torch.full((n,), u), scale)
    return float(velocity_loss(v, z0, eps, sigma).mean())


def _ranking(seen: Mapping[str, Sequence[_Seen]], scenes: Sequence[str]) -> dict[str, list[float]]:
    """By score, over all images in all conditions: Spearman's correlation with the error and its 95 % interval when
    scenes are drawn again, and the error of the half that the score likes better, as a share of all errors.

    A plain statistic of the LR has no side of its own, and gets the one that suits it here.
    """
    of = [one for condition in seen.values() for one in condition]
    errors = np.array([one.error for one in of])
    scores = {"u": [one.measured.u for one in of], "mean_v": [one.measured.mean_v for one in of]}
    scores |= {name: [one.measured.statistics[name] for one in of] for name in PLAIN}
    names, index = np.unique(np.tile(np.asarray(scenes), len(seen)), return_inverse=True)
    random = stream(0, "degraded", "bootstrap")
    found = {}
    for name, values in scores.items():
        score = np.array(values)
        rho = _spearman(score, errors)
        side = -1.0 if name in PLAIN and rho < 0 else 1.0
        drawn = []
        for _ in range(_ROUNDS):
            rows = np.concatenate([np.flatnonzero(index == i) for i in random.integers(len(names), size=len(names))])
            drawn.append(side * _spearman(score[rows], errors[rows]))
        half = np.argsort(side * score, kind="stable")[: -(-len(score) // 2)]
        kept = float(errors[half].mean() / errors.mean())
        found[name] = [round(float(n), 4) for n in (side * rho, *np.quantile(drawn, (0.025, 0.975)), kept)]
    return found


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    """0 where one of them does not vary. Scipy's ``spearmanr`` spends nearly all its time on a p-value."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def markdown(document: Mapping[str, Any]) -> str:
    """The two tables, and what their columns mean."""
    heads = [
        *(f"u = {key}" if key != "another's" else "another's u" for key in FORCED),
        *(f"gates x {s}" for s in SCALES),
    ]
    lines = [f"| LR | u | loss | {' | '.join(heads)} |", f"|:--|--:|--:{'|--:' * len(heads)}|"]
    for name, row in document["conditions"].items():
        cells = [f"{row['u'][0]:.2f} ± {row['u'][1]:.2f}", f"{row['loss']:.4f}"]
        cells += [f"{m:+.4f} [{low:+.4f}, {high:+.4f}]" for m, low, high in row["minus_measured"].values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{document['images']} images, their LR as it is and degraded, with the true HR. Loss: eq. 8 as the velocity "
        "loss, u as measured, mean over four noise levels; then what another u adds to it, and gates multiplied by a "
        "number, with the 95 % interval when scenes are drawn again. Below 0 the other one is better. another's u: the "
        "measured u of all images and conditions, permuted.",
        "",
        "| score | Spearman with the error | error of the better half |",
        "|:--|--:|--:|",
    ]
    titles = {"u": "u", "mean_v": "mean v", "input_r": "LR red", "input_g": "LR green", "input_b": "LR blue",
              "input_contrast": "LR contrast", "input_gradient": "LR gradient"}  # fmt: skip
    for name, (rho, low, high, kept) in document["ranking"].items():
        lines.append(f"| {titles[name]} | {rho:+.2f} [{low:+.2f}, {high:+.2f}] | {kept:.2f} |")
    best = max(PLAIN, key=lambda name: float(document["ranking"][name][0]))
    beats = document["ranking"]["u"][0] > document["ranking"][best][0]
    lines += [
        "",
        "All images in all conditions. Error: RMS difference of the guess from pure noise in one step. The half with "
        "the lower score is kept, and its error given as a share of all. Plain statistics of the LR have the sign that "
        f"suits them here; the best of them is {titles[best]}, and u {'orders' if beats else 'does not order'} errors "
        "better than it.",
    ]
    return "\n".join(lines)
