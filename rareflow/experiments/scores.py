"""What the T passes say of an image beyond the mean of v, and how far that is from what they say of known images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from rareflow.errors import RareflowError
from rareflow.images import shrink, upsample
from rareflow.model import RareFlow
from rareflow.networks import Codec
from rareflow.train.chips import stream
from rareflow.uncertainty import Form, Scale

Array = npt.NDArray[np.float32]
Float = npt.NDArray[np.float64]
_FLOOR = 1e-3  # a quarter of a grey level: below it contrasts and gradients are nothing
SMALLEST_BANK = 12

# What the scores are made of, by the names of ``Measured.statistics``.
_SCALES = ("log_v", "coarseness")
_THREE = (*_SCALES, "sharpening")
_PASSES = (*_THREE, "unevenness", "red_blue", "green", "mean_r", "mean_g", "mean_b", "contrast", "misfit")
_INPUT = ("input_r", "input_g", "input_b", "input_contrast", "input_gradient")

SCORES = {
    "u": "u of eq. 4, each pixel of v clipped at the τ of eq. 5 before the mean",
    "u_kappa": "the same, clipped at the κ of eq. 6 (the bank's median)",
    "ratio": "min(1, mean v / τ), without clipping pixels",
    "mean_v": "mean v itself; 1 − exp(−mean v / κ) rises strictly with it, so it orders images alike",
    "two_sided": "|log mean v − median| over the bank, in robust deviations: too little counts as too much",
    "relative": "the same for what a line of log mean v on the LR's log gradient leaves",
    "two_scales": "Mahalanobis distance over log mean v and the share of v on the LR's own scale (the variance of the "
    "T images averaged over each LR pixel, over v)",
    "three": "the same with a third: how much sharper the mean of the T images is than the enlarged LR",
    "passes": f"the same over {len(_PASSES)} statistics of the T images: those, v's unevenness and colour, the mean's "
    "colour and contrast, and its misfit with the LR",
    "input": f"for comparison, without the model: Mahalanobis distance over {len(_INPUT)} statistics of the LR "
    "(colour, contrast, gradient)",
}
_FORMS: dict[str, Form] = {"u": "clip", "u_kappa": "clip_kappa", "ratio": "ratio"}  # scores that are forms of u
FLAG = "three"  # the score whose 95th percentile over the bank flags an image


@dataclass(frozen=True)
class Image:
    """An image of a study: LR (h, w, 3) and, where there is one, HR (H, W, 3), float32 display values in [0, 1]."""

    id: str
    scene: str
    caption: str
    lr: Array
    size: tuple[int, int]
    hr: Array | None = None


@dataclass(frozen=True)
class Measured:
    """What the T passes gave for an image.

    ``u`` and ``mean_v`` as in sampling; ``v`` (H, W); ``statistics`` by name, without the misfit, which needs a colour
    map; ``lr`` and ``answer`` are the LR and the mean of the T images on its grid, both (h, w, 3).
    """

    u: float
    mean_v: float
    v: Array
    statistics: Mapping[str, float]
    lr: Array
    answer: Array


class _Keeping(Codec):
    """A codec that keeps what it decoded: the first is the batch of the T passes."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__(vae)
        self.kept: list[Tensor] = []

    def decode(self, latents: Tensor) -> Tensor:
        images = super().decode(latents)
        self.kept.append(images)
        return images


def measure_image(model: RareFlow, image: Image) -> Measured:
    """The T passes on an image, exactly as sampling makes them; noise and masks are of (image.id) alone.

    Counterparts of an image that have its id see the same noise and masks.
    """
    codec = _Keeping(model.codec.vae)
    seed = image_seed(image.id)
    caption = image.caption if model.config.text.captions else ""
    found = replace(model, codec=codec).upscale(
        image.lr[None], image.size, captions=[caption], seeds=[(seed,)], steps=1
    )
    scale = model.config.work_scale
    passes = codec.kept[0].double().cpu()[..., : image.size[0] * scale, : image.size[1] * scale]
    passes = shrink(passes, image.size)
    mean = passes.mean(dim=0, keepdim=True)
    spread = passes - mean
    by_channel = passes.var(dim=0, correction=1).mean(dim=(1, 2)).clamp(min=1e-30).log()
    v = passes.var(dim=0, correction=1).mean(dim=0)
    grid = image.lr.shape[0], image.lr.shape[1]
    lr = torch.from_numpy(np.ascontiguousarray(image.lr.transpose(2, 0, 1)))[None].double()
    enlarged = upsample(lr, image.size)
    coarse = shrink(spread, grid).square().mean() / spread.square().mean().clamp(min=1e-30)
    statistics = {
        "log_v": _log(v.mean(), 1e-30),
        "unevenness": _log(v.std() / v.mean().clamp(min=1e-30), 1e-6),
        "red_blue": float(by_channel[0] - by_channel[2]),
        "green": float(by_channel[1] - (by_channel[0] + by_channel[2]) / 2),
        "coarseness": _log(coarse, 1e-6),
        **dict(zip(("mean_r", "mean_g", "mean_b"), mean.mean(dim=(0, 2, 3)).tolist(), strict=True)),
        "contrast": _log(mean.mean(dim=1).std(), _FLOOR),
        "sharpening": _log(_gradient(mean), _FLOOR) - _log(_gradient(enlarged), _FLOOR),
        **dict(zip(("input_r", "input_g", "input_b"), lr.mean(dim=(0, 2, 3)).tolist(), strict=True)),
        "input_contrast": _log(lr.mean(dim=1).std(), _FLOOR),
        "input_gradient": _log(_gradient(lr), _FLOOR),
    }
    answer = shrink(mean, grid)[0].permute(1, 2, 0).float().numpy()
    return Measured(float(found.u[0]), float(found.mean_v[0]), found.v[0], statistics, image.lr, answer)


def image_seed(image_id: str) -> int:
    """The seed of an image's noise and masks in a study."""
    return int(stream(0, "study", image_id).integers(2**62))


@dataclass(frozen=True)
class Gaussian:
    """Mean, deviations and (shrunk) correlation of some statistics over a bank."""

    names: tuple[str, ...]
    mean: Float
    deviation: Float
    precision: Float

    @staticmethod
    def fit(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Gaussian:
        """Correlations are shrunk towards 0 by the share that Schäfer and Strimmer (2005) estimate from the data."""
        values = np.array([[row[name] for name in names] for row in rows], np.float64)
        n = len(values)
        mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1)
        deviation = np.where(deviation > 0, deviation, 1.0)
        z = (values - mean) / deviation
        products = z[:, :, None] * z[:, None, :]
        correlation = products.sum(axis=0) / (n - 1)
        noise = n / (n - 1) ** 3 * np.square(products - products.mean(axis=0)).sum(axis=0)
        off = ~np.eye(len(names), dtype=bool)
        share = min(1.0, float(noise[off].sum()) / max(float(np.square(correlation[off]).sum()), 1e-12))
        shrunk = correlation * (1 - share * off)
        np.fill_diagonal(shrunk, 1.0)
        return Gaussian(tuple(names), mean, deviation, np.linalg.inv(shrunk))

    def distance(self, row: Mapping[str, float]) -> float:
        """Mahalanobis distance from the mean."""
        z = (np.array([row[name] for name in self.names]) - self.mean) / self.deviation
        return float(np.sqrt(max(0.0, float(z @ self.precision @ z))))


@dataclass(frozen=True)
class Reference:
    """What a bank of known images looks like to the model; ``scores`` holds an image against it."""

    scale: Scale
    colour: Float  # (4, 3): LR rgb and 1 to the rgb of the answer
    log_v: tuple[float, float]  # median and robust deviation
    line: tuple[float, float, float]  # log mean v = a + b * input_gradient, and the robust deviation from it
    fits: Mapping[str, Gaussian]  # by score
    limits: Mapping[str, float]  # the 95th percentile of each score over the bank

    @staticmethod
    def fit(bank: Sequence[Measured], scale: Scale) -> Reference:
        """From known images; RareflowError for fewer than 12, from which no spread can be told."""
        if len(bank) < SMALLEST_BANK:
            raise RareflowError(f"found a bank of {len(bank)} images, expected {SMALLEST_BANK} or more; add some")
        x = np.concatenate([_with_one(m.lr) for m in bank])
        y = np.concatenate([m.answer.reshape(-1, 3).astype(np.float64) for m in bank])
        colour = np.linalg.lstsq(x, y, rcond=None)[0]
        rows = [_with_misfit(m, colour) for m in bank]
        level = np.array([row["log_v"] for row in rows])
        gradient = np.array([row["input_gradient"] for row in rows])
        slope, start = np.polyfit(gradient, level, 1) if np.ptp(gradient) > 0 else (0.0, float(np.median(level)))
        line = float(start), float(slope), _robust(level - start - slope * gradient)[1]
        groups = {"two_scales": _SCALES, "three": _THREE, "passes": _PASSES, "input": _INPUT}
        fits = {name: Gaussian.fit(rows, names) for name, names in groups.items()}
        without = Reference(scale, colour, _robust(level), line, fits, {})
        scored = [without.scores(m) for m in bank]
        return replace(without, limits={s: float(np.quantile([row[s] for row in scored], 0.95)) for s in SCORES})

    def scores(self, measured: Measured) -> dict[str, float]:
        """One number for each name of ``SCORES``; the higher, the stranger."""
        row = _with_misfit(measured, self.colour)
        middle, deviation = self.log_v
        start, slope, off = self.line
        return {
            **{name: self._u(measured, form) for name, form in _FORMS.items()},
            "mean_v": measured.mean_v,
            "two_sided": abs(row["log_v"] - middle) / deviation,
            "relative": abs(row["log_v"] - start - slope * row["input_gradient"]) / off,
            **{name: fit.distance(row) for name, fit in self.fits.items()},
        }

    def _u(self, measured: Measured, form: Form) -> float:
        v = torch.from_numpy(np.ascontiguousarray(measured.v))[None]
        return float(replace(self.scale, form=form).u(v))

    def expected(self, lr: Array) -> Float:
        """The colours that the model gives to an LR like those of the bank, (h, w, 3)."""
        return (_with_one(lr) @ self.colour).reshape(lr.shape)


def misfit(answer: Array, expected: Float) -> float:
    """RMS difference of an answer on the LR's grid from what its LR asks for, in display range."""
    return float(np.sqrt(np.square(answer - expected).mean()))


def _with_misfit(measured: Measured, colour: Float) -> dict[str, float]:
    expected = (_with_one(measured.lr) @ colour).reshape(measured.lr.shape)
    return {**measured.statistics, "misfit": float(np.log(max(misfit(measured.answer, expected), _FLOOR)))}


def _with_one(lr: Array) -> Float:
    pixels = lr.reshape(-1, 3).astype(np.float64)
    return np.column_stack([pixels, np.ones(len(pixels))])


def _robust(values: Float) -> tuple[float, float]:
    """Median and 1.4826 times the median distance from it (the deviation, for a Gaussian)."""
    middle = float(np.median(values))
    return middle, max(1.4826 * float(np.median(np.abs(values - middle))), 1e-9)


def _gradient(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, over channels and both directions."""
    down, right = images.diff(dim=-2).abs(), images.diff(dim=-1).abs()
    return (down.sum() + right.sum()) / max(down.numel() + right.numel(), 1)


def _log(value: Tensor, floor: float) -> float:
    return float(value.clamp(min=floor).log())
