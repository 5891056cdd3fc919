"""PSNR, SSIM and FSIM against equations, libraries and published values."""

from __future__ import annotations

import math

import numpy as np

from bench.metrics.base import Reference
from tests.reference import equations, pictures, texture_equations
from tests.reference.cases import Case, Values, by_library, score, score_of, tensors
from tests.reference.pictures import calibration_pair, clean, ipol_pair, matlab_grey, need, noisy_pair

TID = "the official value of TID2013 pair {}, in pyiqa's calibration table"
"""chaofengc/IQA-PyTorch 01ae427f, ResultsCalibra/results_official.csv; the pictures come with pyiqa's wheel."""
GOLDHILL = "photosynthesis-team/piq 9948a52f, tests/assets"


def _goldhill() -> pictures.Pair:
    return tuple(pictures.of_others(f"{n}.gif", GOLDHILL) for n in ("goldhill", "goldhill_jpeg"))  # type: ignore


# --- PSNR -------------------------------------------------------------------------------------------------------------


def _psnr_equation() -> Values:
    return score("psnr_rgb", noisy_pair()), equations.psnr(*noisy_pair())


def _psnr_torchmetrics() -> Values:
    need("torchmetrics")
    from torchmetrics.functional.image import peak_signal_noise_ratio

    return score("psnr_rgb", noisy_pair()), float(peak_signal_noise_ratio(*tensors(noisy_pair()), data_range=1.0))


def _psnr_piq() -> Values:
    need("piq")
    import piq

    return score("psnr_rgb", noisy_pair()), float(piq.psnr(*tensors(noisy_pair()), data_range=1.0))


def _psnr_pyiqa() -> Values:
    need("pyiqa")
    from pyiqa.archs.psnr_arch import psnr

    return score("psnr_rgb", noisy_pair()), float(psnr(*tensors(noisy_pair())))


def _psnr_y_equation() -> Values:
    luma = [equations.luma_bt601(x) for x in noisy_pair()]
    return score("psnr_y", noisy_pair()), equations.psnr(luma[0], luma[1], peak=255.0)


def _psnr_y_skimage() -> Values:
    from skimage.color import rgb2ycbcr

    luma = [rgb2ycbcr(x.astype(np.float64))[:, :, 0] for x in noisy_pair()]
    return score("psnr_y", noisy_pair()), float(20 * np.log10(255 / np.sqrt(((luma[0] - luma[1]) ** 2).mean())))


def _psnr_y_pyiqa(name: str = "I06") -> Values:
    """pyiqa's luma has the full range; in the narrow one the same error is 255 / 219 smaller."""
    need("pyiqa")
    from pyiqa.archs.psnr_arch import psnr

    pair = calibration_pair(name)
    theirs = float(psnr(*tensors(pair), test_y_channel=True, eps=0.0)) + 20 * np.log10(255 / 219)
    return score("psnr_y", pair), theirs


# --- SSIM -------------------------------------------------------------------------------------------------------------


def _ssim_equation() -> Values:
    pair = noisy_pair(40, 50)
    return score("ssim_rgb", pair), equations.ssim(*pair)


def _ssim_torchmetrics() -> Values:
    need("torchmetrics")
    from torchmetrics.functional.image import structural_similarity_index_measure as theirs

    _, found = theirs(*tensors(noisy_pair()), data_range=1.0, return_full_image=True)
    return score("ssim_rgb", noisy_pair()), float(found[..., 5:-5, 5:-5].mean())


def _ssim_piq() -> Values:
    need("piq")
    import piq

    return score("ssim_rgb", noisy_pair()), float(piq.ssim(*tensors(noisy_pair()), downsample=False))


def _ssim_pyiqa() -> Values:
    need("pyiqa")
    from pyiqa.archs.ssim_arch import ssim

    pair = noisy_pair(noise=0.03)  # its negative covariances count as 0; here there are few
    return score("ssim_rgb", pair), float(ssim(*tensors(pair)))


def _ssim_grey(name: str) -> float:
    first, second = (matlab_grey(x) for x in calibration_pair(name))
    return score("ssim_rgb", (first, second))


def _ssim_matlab() -> Values:
    """``ssim.m`` first halves images of this size by the mean of 2x2 px."""
    pair = [x.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3), dtype=np.float64).astype(np.float32) for x in _goldhill()]
    return score("ssim_rgb", (pair[0], pair[1])), 0.8202


# --- FSIM -------------------------------------------------------------------------------------------------------------


def _fsim_equation(name: str, height: int, width: int) -> Values:
    pair = noisy_pair(height, width, noise=0.04)
    theirs = texture_equations.fsim(*pair, chromatic=name == "fsimc")
    return score(name, pair), theirs


def _fsim_piq(name: str) -> Values:
    need("piq")
    import piq

    theirs = piq.fsim(*tensors(noisy_pair(), "float32"), chromatic=name == "fsimc")
    return score(name, noisy_pair()), float(theirs)


def _fsimc_matlab_power() -> Values:
    pair = noisy_pair(96, 128)
    return score("fsimc", pair), texture_equations.fsim(*pair, chromatic=True, absolute=False)


def _shifted() -> tuple[pictures.Estimate, Reference, np.ndarray, np.ndarray]:
    """Two bands, the prediction 2 px down and 1 to the left, brighter, with noise."""
    hr = 0.3 * clean(40, 48, 3, 4)[:, :, :2]
    random = np.random.default_rng(8)
    sr = np.roll(hr, (2, -1), (0, 1)) + np.float32([0.02, -0.01]) + random.normal(0, 0.004, hr.shape)
    sr = np.float32(np.maximum(sr, 0.001))
    images = [pictures.reflectance(x, ("R", "NIR")) for x in (sr, hr)]
    display = clean(40, 48, 3)
    _, reference = pictures.held((display, display), hr=images[1])
    return pictures.Estimate(display, display, images[0]), reference, sr, hr


def _cpsnr_equation() -> Values:
    estimate, reference, sr, hr = _shifted()
    return score_of("cpsnr", estimate, reference), equations.cpsnr(sr, hr)


def _cpsnr_moved() -> Values:
    """Whole pixels and a brighter band cost nothing: the PSNR of the noise alone."""
    estimate, reference, _, hr = _shifted()
    noise = np.random.default_rng(8).normal(0, 0.004, hr.shape)[3:-3, 3:-3]
    return score_of("cpsnr", estimate, reference), -10 * math.log10(float(noise.var(axis=(0, 1)).mean()))


CASES = [
    Case("cpsnr", "equation", "every shift, band by band and pixel by pixel", _cpsnr_equation, 1e-9),
    Case("cpsnr", "closed form", "the noise's own PSNR whatever the shift and brightness", _cpsnr_moved, 1e-3),
    Case("psnr_rgb", "equation", "10 log10(1 / MSE) pixel by pixel", _psnr_equation, 1e-9),
    *(
        Case(name, "library", f"{library} (`--exact-libraries`)", lambda n=name: by_library(n), tolerance)
        for name, library, tolerance in (
            ("psnr_rgb", "scikit-image", 1e-9), ("ssim_rgb", "scikit-image", 1e-9),
            ("fsim", "pyiqa", 1e-6), ("fsimc", "pyiqa", 1e-6),
        )
    ),
    *(
        Case(name, "library", f"pyiqa, {height}x{width} px",
             lambda n=name, h=height, w=width: by_library(n, noisy_pair(h, w)), 1e-6)
        for name in ("fsim", "fsimc") for height, width in ((37, 61), (64, 64), (400, 420))
    ),
    Case("psnr_rgb", "library", "torchmetrics", _psnr_torchmetrics, 1e-5, note="it takes the logarithm in float32"),
    Case("psnr_rgb", "library", "piq", _psnr_piq, 1e-4, note="it adds 1e-8 to the error"),
    Case("psnr_rgb", "library", "pyiqa", _psnr_pyiqa, 1e-4, note="it adds 1e-8 to the error"),
    Case(
        "psnr_rgb",
        "published",
        "IPOL's imdiff on scikit-image's camera picture",
        lambda: (score("psnr_rgb", ipol_pair()), 22.409353363576034),
        1e-4,
    ),
    *(
        Case(
            "psnr_rgb",
            "published",
            TID.format(pair),
            lambda p=pair, v=value: (score("psnr_rgb", calibration_pair(p)), v),
            0.006,
            note="published to two decimals",
        )
        for pair, value in (("I03", 21.11), ("I06", 27.01))
    ),
    Case("psnr_y", "equation", "PSNR of 16 + 219 (0.299 R + 0.587 G + 0.114 B)", _psnr_y_equation, 1e-6,
         note="the usual coefficients 65.481, 128.553 and 24.966 are 219 times these"),
    Case("psnr_y", "library", "the luma of skimage.color.rgb2ycbcr", _psnr_y_skimage, 1e-9),
    Case("psnr_y", "library", "pyiqa on TID2013 pair I06, its 0 to 255 luma brought to 16 to 235", _psnr_y_pyiqa, 1e-5),
    Case("ssim_rgb", "equation", "window by window (Wang et al. 2004, eq. 13-17)", _ssim_equation, 1e-9),
    Case("ssim_rgb", "library", "torchmetrics, the inner part of its map", _ssim_torchmetrics, 1e-6,
         note="its own mean counts windows that reach over the mirrored edges"),
    Case("ssim_rgb", "library", "piq without its downsampling", _ssim_piq, 1e-6),
    Case("ssim_rgb", "library", "pyiqa's ssim of RGB", _ssim_pyiqa, 1e-4,
         note="it raises negative contrast-structure terms to 0 and keeps its window in float32"),
    Case(
        "ssim_rgb",
        "published",
        "IPOL's imdiff on scikit-image's camera picture",
        lambda: (score("ssim_rgb", ipol_pair()), 0.357959091663361),
        2e-5,
    ),
    *(
        Case(
            "ssim_rgb",
            "published",
            TID.format(pair) + ", of MATLAB's grey",
            lambda p=pair, v=value: (_ssim_grey(p), v),
            2e-4,
            note="published to four decimals",
        )
        for pair, value in (("I03", 0.6993), ("I06", 0.9989))
    ),
    Case("ssim_rgb", "published", "MATLAB's ssim.m on goldhill and its JPEG, with its halving", _ssim_matlab, 2e-4,
         note="published to four decimals by piq's tests"),
    Case("fsim", "equation", "phase congruency and eq. 5 in float64, 96x128 px",
         lambda: _fsim_equation("fsim", 96, 128), 2e-6, note="ours computes in float32"),
    Case("fsim", "equation", "the same at odd sides, 97x131 px", lambda: _fsim_equation("fsim", 97, 131), 2e-6),
    Case("fsim", "equation", "the same with pooling, 400x420 px", lambda: _fsim_equation("fsim", 400, 420), 2e-6),
    Case("fsim", "library", "piq", lambda: _fsim_piq("fsim"), 1e-6),
    Case(
        "fsim",
        "published",
        "the authors' MATLAB code on goldhill and its JPEG (grey)",
        lambda: (score("fsim", _goldhill()), 0.89691),
        1e-5,
        note="published to five decimals by piq's tests",
    ),
    Case("fsimc", "equation", "eq. 8-10 in float64, 96x128 px", lambda: _fsim_equation("fsimc", 96, 128), 2e-6),
    Case("fsimc", "equation", "the same with the power of MATLAB's code", _fsimc_matlab_power, 2e-3,
         note="where I and Q disagree in sign, MATLAB takes the real part of a complex power, the libraries the "
              "power of the magnitude"),
    Case("fsimc", "library", "piq", lambda: _fsim_piq("fsimc"), 1e-6),
    *(
        Case(
            "fsimc",
            "published",
            TID.format(pair) + " (authors' MATLAB code)",
            lambda p=pair, v=value: (score("fsimc", calibration_pair(p)), v),
            2e-4,
            note="published to four decimals",
        )
        for pair, value in (("I03", 0.689), ("I06", 0.9927))
    ),
]  # fmt: skip
