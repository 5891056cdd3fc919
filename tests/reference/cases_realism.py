"""FID, KID, NIQE, MANIQA and the spectrum against equations, other implementations and published values."""

from __future__ import annotations

import contextlib
import io
from functools import cache

import numpy as np

from bench.core.resample import resize
from bench.metrics import niqe as niqe_module
from bench.metrics import realism
from bench.metrics.networks import quietly, replaced
from tests.reference import equations, network_equations, pictures, random_weights, texture_equations
from tests.reference.cases import Case, Values, by_library, furthest, ready, score, score_set, tensors
from tests.reference.cases_fidelity import TID
from tests.reference.pictures import calibration, clean, matlab_grey, need, noisy_pair
from tests.reference.random_weights import INCEPTION, KONIQ, PIPAL, accepted

BASICSR = "XPixelGroup/BasicSR 8d56e3a0, tests/data"
LIVE = "utlive/niqe d80aead2"
MANIQA = "IIGROUP/MANIQA f573d862, README"
N = 2  # images of the sets that go through Inception


# --- FID and KID: from features ---------------------------------------------------------------------------------------


def _cloud(n: int, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(n * dimensions)
    first = random.normal(0, 1, (n, dimensions)) @ random.normal(0, 1, (dimensions, dimensions))
    return first, random.normal(0.3, 2, (n + 5, dimensions))


def _frechet_equation(n: int, dimensions: int) -> Values:
    clouds = _cloud(n, dimensions)
    return realism.frechet_distance(*clouds), equations.frechet(*clouds)


def _frechet_torch_fidelity(n: int, dimensions: int) -> Values:
    need("torch_fidelity")
    import torch
    from torch_fidelity import metric_fid

    clouds = _cloud(n, dimensions)
    statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in clouds]
    theirs = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    return realism.frechet_distance(*clouds), float(theirs)


def _frechet_scipy() -> Values:
    """The root of the product of covariances by SciPy's Schur method, as in pytorch-fid and clean-fid."""
    from scipy.linalg import sqrtm

    clouds = _cloud(200, 32)
    (m1, s1), (m2, s2) = ((x.mean(axis=0), np.cov(x, rowvar=False)) for x in clouds)
    root = np.trace(sqrtm(s1 @ s2)).real
    return realism.frechet_distance(*clouds), float(((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * root)


def _frechet_closed() -> Values:
    """Features that are three times others around the same mean: the deviations differ by two, in every direction."""
    x = _cloud(60, 8)[1]
    return realism.frechet_distance(x, 3 * x - 2 * x.mean(axis=0)), 4 * float(x.var(axis=0, ddof=1).sum())


def _frechet_kept() -> Values:
    """Three sets of features, one with fewer images than dimensions, each by three libraries."""
    values, arrays = pictures.arrays_of_others("frechet_cases")
    found = []
    for case, expected in values.items():
        first, second = (arrays[name] for name in sorted(n for n in arrays if n.startswith(case)))
        found += [(realism.frechet_distance(first, second), theirs) for theirs in expected["distance"].values()]
    return furthest(iter(found))


def _kernel_equation() -> Values:
    clouds = _cloud(20, 16)
    return realism.kernel_distance(*clouds), equations.kid(*clouds)


def _kernel_torch_fidelity() -> Values:
    need("torch_fidelity")
    import torch
    from torch_fidelity import metric_kid

    first, second = _cloud(30, 16)
    with contextlib.redirect_stderr(io.StringIO()):
        found = metric_kid.kid_features_to_metric(
            torch.from_numpy(first), torch.from_numpy(second[:30]), kid_subsets=1, kid_subset_size=30, verbose=False
        )
    return realism.kernel_distance(first, second[:30]), float(found["kernel_inception_distance_mean"])


def _kernel_torchmetrics() -> Values:
    need("torchmetrics")
    import torch
    from torchmetrics.image.kid import poly_mmd

    first, second = _cloud(30, 16)
    theirs = poly_mmd(torch.from_numpy(first), torch.from_numpy(second[:30]))
    return realism.kernel_distance(first, second[:30]), float(theirs)


# --- FID and KID: features --------------------------------------------------------------------------------------------


def _set() -> list[pictures.Pair]:
    return [noisy_pair(48, 64, seed, noise=0.1) for seed in range(N)]


@cache
def _ours(name: str) -> float:
    with accepted(INCEPTION) as setting:
        return score_set(name, _set(), setting)


@cache
def _their_features(library: str) -> tuple[np.ndarray, np.ndarray]:
    """Predictions' and references' features (N, 2048) by another network, from images resized by the equation."""
    import torch

    need(library)
    state = random_weights.state(INCEPTION)
    with quietly():
        if library == "pyiqa":
            from pyiqa.archs import inception as module

            given = replaced(module, load_pretrained_network=lambda network, url: network.load_state_dict(state))
        else:
            from pytorch_fid import inception as module

            given = replaced(module, load_state_dict_from_url=lambda *args, **kwargs: state)
        with given:
            network = module.InceptionV3([3], resize_input=False, normalize_input=False).eval().double()
    with torch.inference_mode():
        found = [
            np.concatenate([network(network_equations.inception_input(pair[side]))[0].numpy() for pair in _set()])
            for side in (1, 0)
        ]
    return found[0].reshape(N, -1), found[1].reshape(N, -1)


def _fid_network(library: str) -> Values:
    features = _their_features(library)
    return _ours("fid_tf"), equations.frechet(*features)


def _kid_network(library: str) -> Values:
    features = _their_features(library)
    return _ours("kid_tf"), equations.kid(*features)


def _fid_published() -> Values:
    names = ("I03", "I04", "I06", "I08", "I19")
    pairs = [(calibration(n, "ref"), calibration(n, "dist")) for n in names]
    return score_set("fid_tf", pairs), 225.3678


# --- NIQE -------------------------------------------------------------------------------------------------------------


def _niqe_equation(*, grey: bool) -> Values:
    image = clean(200, 300, 4)
    if grey:
        image = np.repeat(image[:, :, 1:2], 3, axis=2)
    return score("niqe", (image, image)), texture_equations.niqe(image, *niqe_module.published())


def _niqe_of(name: str, source: str, published: float) -> Values:
    ready("niqe")
    image = pictures.of_others(name, source)
    return score("niqe", (image, image)), published


LIVE_MATLAB = (("I03", 15.7536293917814), ("I06", 3.23547743716998))


def _niqe_calibration(name: str, published: float, *, grey: bool = False) -> Values:
    image = calibration(name, "dist")
    image = matlab_grey(image) if grey else image
    return score("niqe", (image, image)), published


def _grey_set() -> list[pictures.Pair]:
    """Seven textured references of 288x288 px and the same blurred, grey so that no luma lies between two levels.

    A third of each has 0.6 of the contrast: blocks that the fit leaves out.
    """
    pairs = []
    for seed in range(7):
        image = np.repeat(clean(288, 288, seed)[:, :, 1:2], 3, axis=2)
        image[:, 192:] = pictures.eight_bit(0.5 + 0.6 * (image[:, 192:] - 0.5))
        small = resize(image, (144, 144))
        pairs.append((image, pictures.eight_bit(resize(small, (288, 288)))))
    return pairs


@cache
def _niqe_ref_equation() -> Values:
    pairs = _grey_set()
    mean, covariance = texture_equations.niqe_fit([reference for reference, _ in pairs])
    theirs = [texture_equations.niqe(prediction, mean, covariance) for _, prediction in pairs]
    return score_set("niqe_ref", pairs), float(np.mean(theirs))


def _niqe_ref_features() -> Values:
    """The features that the fit is made of, furthest apart: 36 of nine blocks."""
    image = _grey_set()[0][0]
    ours, theirs = niqe_module.block_features(image).features, texture_equations.niqe_blocks(image)[0]
    ours, theirs = (x[np.lexsort(x.T[::-1].round(4))].ravel() for x in (ours, theirs))
    worst = int(np.abs(ours - theirs).argmax())
    return float(ours[worst]), float(theirs[worst])


# --- MANIQA -----------------------------------------------------------------------------------------------------------


def _maniqa(name: str, file: str, height: int, width: int) -> Values:
    """Ours and pyiqa's own forward pass over its 20 crops, both narrow, with one set of random weights."""
    import torch

    scale = {KONIQ: 0.8, PIPAL: 0.13}[file]
    image = clean(height, width, 6)
    with random_weights.narrow_maniqa() as build, accepted(file) as setting:
        ours = score(name, (image, image), setting)
        network = build(scale=scale)
        network.load_state_dict({k.removeprefix("module."): v for k, v in random_weights.state(file).items()})
        with torch.inference_mode(), quietly():
            theirs = float(network.double()(tensors((image, image))[0]))
    return ours, theirs


def _maniqa_readme(name: str, published: float) -> Values:
    ready("maniqa_koniq")
    image = pictures.of_others(name, MANIQA)
    return score("maniqa_koniq", (image, image)), published


# --- the spectrum -----------------------------------------------------------------------------------------------------


def _logspec_equation() -> Values:
    pair = noisy_pair(40, 50)
    return score("logspec_l1", pair), equations.logspec_l1(*pair)


def _logspec_closed() -> Values:
    """Contrast smaller by sqrt(e) is power smaller by e: 1 at every frequency, but for the floor of rounding."""
    noise = np.random.default_rng(0).random((64, 64, 3))
    return score("logspec_l1", (np.float32(noise), np.float32(0.5 + (noise - 0.5) / np.sqrt(np.e)))), 1.0


def _random_network(library: str) -> str:
    return f"{library}'s Inception in float64, random weights in both; 8-bit, resize and distance from their equations"


CASES = [
    *(
        Case("fid_tf", "equation", f"eq. 26 in float64, {n} against {n + 5} features of {d}",
             lambda n=n, d=d: _frechet_equation(n, d), 1e-9, relative=True)
        for n, d in ((200, 32), (12, 64))
    ),
    Case("fid_tf", "closed form", "three times the same features: 4 times their variance", _frechet_closed, 1e-9,
         relative=True),
    Case("fid_tf", "library", "torch-fidelity's distance, 200 against 205 features of 32",
         lambda: _frechet_torch_fidelity(200, 32), 1e-9, relative=True),
    Case("fid_tf", "library", "torch-fidelity's distance, 12 against 17 features of 64",
         lambda: _frechet_torch_fidelity(12, 64), 1e-5, relative=True,
         note="with fewer images than dimensions its eigenvalues lose digits"),
    Case("fid_tf", "library", "the root by scipy.linalg.sqrtm, as in pytorch-fid and clean-fid", _frechet_scipy, 1e-9,
         relative=True),
    Case("fid_tf", "library", "torch-fidelity, pytorch-fid and clean-fid on three kept sets of features: the furthest",
         _frechet_kept, 1e-6, relative=True, note="computed once with clean-fid 0.1.35"),
    *(
        Case("fid_tf", "library", _random_network(name), lambda p=package: _fid_network(p), 1e-4, relative=True,
             note="ours computes in float32; two pairs of 48x64 px")
        for name, package in (("pytorch-fid", "pytorch_fid"), ("pyiqa", "pyiqa"))
    ),
    Case("fid_tf", "published", "clean-fid on five TID2013 pairs, legacy_pytorch, in pyiqa's calibration table",
         _fid_published, 0.03, relative=True,
         note="official weights; another resize (half-pixel bilinear): the table's own two modes are 2 % apart"),
    Case("kid_tf", "equation", "Binkowski et al., section 4, pair by pair", _kernel_equation, 1e-9, relative=True),
    Case("kid_tf", "library", "torch-fidelity, one subset of all", _kernel_torch_fidelity, 1e-9, relative=True),
    Case("kid_tf", "library", "torchmetrics, one subset of all", _kernel_torchmetrics, 1e-9, relative=True),
    *(
        Case("kid_tf", "library", _random_network(name), lambda p=package: _kid_network(p), 1e-4, relative=True,
             note="ours computes in float32; two pairs of 48x64 px")
        for name, package in (("pytorch-fid", "pytorch_fid"), ("pyiqa", "pyiqa"))
    ),
    Case("niqe", "equation", "eq. 24 in float64, a grey picture",
         lambda: _niqe_equation(grey=True), 1e-9, relative=True),
    Case("niqe", "equation", "eq. 24 in float64, a colour picture",
         lambda: _niqe_equation(grey=False), 2e-3, relative=True,
         note="one luma in 3000 lies exactly between two grey levels and is rounded either way"),
    Case("niqe", "library", "pyiqa (`--exact-libraries`)", lambda: by_library("niqe", noisy_pair(200, 300)), 1e-4,
         relative=True, note="its window is of single precision"),
    *(
        Case("niqe", "published", TID.format(name) + " (LIVE's MATLAB release)",
             lambda n=name, v=value: _niqe_calibration(n, v), 0.01, relative=True,
             note="our luma of YIQ rounds some pixels otherwise than MATLAB's grey")
        for name, value in LIVE_MATLAB
    ),
    *(
        Case("niqe", "published", TID.format(name) + " (LIVE's MATLAB release), of MATLAB's grey",
             lambda n=name, v=value: _niqe_calibration(n, v, grey=True), 1e-3, relative=True)
        for name, value in LIVE_MATLAB
    ),
    Case("niqe", "published", "BasicSR's baboon, the MATLAB release",
         lambda: _niqe_of("baboon.png", BASICSR, 5.7296), 1e-3, relative=True,
         note="published for the luma of YCbCr; ours is YIQ's"),
    *(
        Case("niqe", "library", f"BasicSR's NumPy code on LIVE's {name}, MATLAB's grey",
             lambda n=name, v=value: _niqe_of(f"live_{n}.png", LIVE, v), 2e-4, relative=True,
             note="computed once with BasicSR 8d56e3a0")
        for name, value in (("image1", 5.029055383550751), ("image4", 2.6571110894383296))
    ),
    Case("niqe_ref", "equation", "fit and distance in float64, seven grey references", _niqe_ref_equation, 1e-6,
         relative=True),
    Case("niqe_ref", "equation", "the blocks' features: the furthest", _niqe_ref_features, 2e-3,
         note="shapes lie on a grid of 0.001"),
    Case("maniqa_koniq", "library", "pyiqa's forward pass in float64, narrow, random weights in both, 150x200 px",
         lambda: _maniqa("maniqa_koniq", KONIQ, 150, 200), 1e-6, relative=True,
         note="5 distinct crops, enlarged; ours computes each once"),
    Case("maniqa_pipal", "library", "pyiqa's forward pass in float64, narrow, random weights in both, 228x232 px",
         lambda: _maniqa("maniqa_pipal", PIPAL, 228, 232), 1e-6, relative=True, note="20 distinct crops"),
    *(
        Case("maniqa_koniq", "published", f"the official code on {name} of its README",
             lambda n=name, v=value: _maniqa_readme(n, v), 0.02,
             note="official weights; 20 random crops there, a grid here, pooled otherwise")
        for name, value in (("maniqa_kunkun.png", 0.3398), ("maniqa_bird.jpg", 0.2612))
    ),
    Case("logspec_l1", "equation", "its definition as two matrix products, ring by ring", _logspec_equation, 1e-9),
    Case("logspec_l1", "closed form", "contrast smaller by sqrt(e): 1", _logspec_closed, 1e-3,
         note="the floor of rounding lifts the fainter spectrum"),
]  # fmt: skip
