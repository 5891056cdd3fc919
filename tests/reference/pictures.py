"""The images that the metrics are held to: of our own making, in installed packages, or beside the repository."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from scipy.ndimage import gaussian_filter

from bench.core.image import Image
from bench.core.resample import resize
from bench.metrics.base import Estimate, Reference
from tests.conftest import ROOT

BESIDE = ROOT.parent / "shared"
"""Pictures and small weights of others, which are not ours to give away; used where they are."""

Pair = tuple[np.ndarray, np.ndarray]
"""Reference and prediction, float32 (H, W, 3) in [0, 1]."""


class Lacking(Exception):
    """What a comparison needs and this machine does not have: a file or a package, by name."""


def eight_bit(image: np.ndarray) -> np.ndarray:
    """Rounded to 8 bit, float32 in [0, 1]."""
    return np.float32(np.rint(np.clip(image, 0, 1) * 255) / 255)


@cache
def clean(height: int, width: int, seed: int = 0, bands: int = 3) -> np.ndarray:
    """A picture with coarse and fine texture, bands that resemble each other, 8 bit in [0.1, 0.9]."""
    random = np.random.default_rng(seed)
    shared = random.random((height, width, 1))
    x = sum(s * gaussian_filter(shared + 0.6 * random.random((height, width, bands)), (s, s, 0)) for s in (0.8, 3, 9))
    return eight_bit(0.1 + 0.8 * (x - x.min()) / np.ptp(x))


@cache
def noisy_pair(height: int = 96, width: int = 128, seed: int = 0, noise: float = 0.08) -> Pair:
    """``clean`` and the same with Gaussian noise, both 8 bit."""
    reference = clean(height, width, seed)
    noise_of = np.random.default_rng(seed + 1000).normal(0, noise, reference.shape)
    return reference, eight_bit(reference + noise_of)


def solid(colour: tuple[float, float, float], side: int = 4) -> np.ndarray:
    """One colour."""
    return np.broadcast_to(np.float32(colour), (side, side, 3)).copy()


def read(path: Path) -> np.ndarray:
    """An 8-bit file as RGB in [0, 1]."""
    return np.asarray(Pillow.open(path).convert("RGB"), np.float32) / np.float32(255)


def of_others(name: str, source: str) -> np.ndarray:
    """A public picture that lies beside the repository."""
    path = BESIDE / "reference" / "images" / name
    if not path.is_file():
        raise Lacking(f"the picture {name} of {source}")
    return read(path)


def arrays_of_others(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Values that libraries gave once, and the arrays that they were given, from beside the repository."""
    json_file, arrays = (BESIDE / "reference" / f"{name}.{kind}" for kind in ("json", "npz"))
    if not (json_file.is_file() and arrays.is_file()):
        raise Lacking(f"{name}.npz, which is kept beside the repository")
    with np.load(arrays) as found:
        return json.loads(json_file.read_text(encoding="utf-8"))["values"], dict(found)


def calibration(name: str, side: str) -> np.ndarray:
    """A TID2013 picture (512x384 px) that pyiqa's wheel carries for its own calibration; ``side`` is ref or dist."""
    path = _package("pyiqa").parent / "ResultsCalibra" / f"{side}_dir" / f"{name}.bmp"
    if not path.is_file():
        raise Lacking(f"pyiqa's calibration picture {name}.bmp, which its wheel carries")
    return read(path)


def calibration_pair(name: str) -> Pair:
    """Reference and distorted picture."""
    return calibration(name, "ref"), calibration(name, "dist")


def ipol_pair() -> Pair:
    """scikit-image's camera picture and the same with IPOL's seeded noise, cut to bytes (its tests' recipe)."""
    _package("skimage")
    from skimage import data

    camera = data.camera()
    noise = 20 * np.random.RandomState(5).randn(*camera.shape)  # the published recipe
    noisy = np.clip(camera + noise, 0, 255).astype(camera.dtype)
    grey = [np.repeat((x / np.float32(255))[:, :, None], 3, axis=2) for x in (camera, noisy)]
    return np.float32(grey[0]), np.float32(grey[1])


def matlab_grey(rgb: np.ndarray) -> np.ndarray:
    """MATLAB's ``rgb2gray`` of an 8-bit picture: rounded, here in three equal channels."""
    grey = eight_bit(rgb.astype(np.float64) @ np.array([0.298936, 0.587043, 0.114021]))
    return np.repeat(grey[:, :, None], 3, axis=2)


def _package(name: str) -> Path:
    found = find_spec(name)
    if found is None or found.origin is None:
        raise Lacking(f"the package {name}")
    return Path(found.origin).parent


def need(*packages: str) -> None:
    """Lacking where one of the packages is not installed."""
    for name in packages:
        _package(name)


def held(pair: Pair, **more: Any) -> tuple[Estimate, Reference]:
    """A pair as a metric sees it: whole, and with an LR image of every fourth pixel."""
    reference, prediction = pair
    valid = np.ones(reference.shape[:2], bool)
    lr = Image(reference[::4, ::4].copy(), "display", ("R", "G", "B"), valid[::4, ::4])
    given: dict[str, Any] = {"hr": None, "pan": None, "lr": lr, "valid": valid} | more
    return Estimate(prediction, prediction), Reference("a", "a", reference, reference, **given)


RGBN = ("R", "G", "B", "NIR")


def reflectance(values: np.ndarray, bands: tuple[str, ...] = RGBN) -> Image:
    """Bands (H, W, B) as an image in reflectance, whole."""
    return Image(np.ascontiguousarray(values, np.float32), "reflectance", bands, np.ones(values.shape[:2], bool))


def pansharpening() -> tuple[Estimate, Reference, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Four bands from 12x15 to 36x45 px with a PAN, and the three arrays that QNR compares, (B, H, W) and (H, W)."""
    truth = clean(36, 45, 3, 4)
    fused = np.clip(truth + np.random.default_rng(9).normal(0, 0.02, truth.shape), 0, 1).astype(np.float32)
    pan = truth.mean(axis=2, keepdims=True, dtype=np.float32)
    lr = reflectance(resize(truth, (12, 15)))
    valid = np.ones((36, 45), bool)
    estimate = Estimate(fused[:, :, :3], fused[:, :, :3], reflectance(fused))
    held_to = Reference("a", "a", None, None, None, reflectance(pan, ("PAN",)), lr, valid)
    upsampled = resize(lr.values, (36, 45))
    stacks = [np.moveaxis(x, 2, 0).astype(np.float64) for x in (fused, upsampled)]
    return estimate, held_to, (stacks[0], stacks[1], pan[:, :, 0].astype(np.float64))
