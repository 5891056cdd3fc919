"""LPIPS and DISTS against other implementations with one set of random weights, equations, and published values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from bench import weights
from bench.metrics.networks import given_trunk, quietly
from tests.reference import network_equations, pictures, random_weights
from tests.reference.cases import Case, Values, published, score, tensors
from tests.reference.cases_fidelity import GOLDHILL, TID
from tests.reference.pictures import calibration_pair, need, noisy_pair
from tests.reference.random_weights import ALEXNET, VGG16, accepted

NETS = {"lpips_alex": ("alex", "alexnet", ALEXNET), "lpips_vgg": ("vgg", "vgg16", VGG16)}
ZHANG = "richzhang/PerceptualSimilarity 082bb24f, imgs"
DISTS_FILE = "DISTS_weights-f5e65c96.pth"


def _pair() -> pictures.Pair:
    return noisy_pair(64, 80)


@cache
def _ours(name: str) -> float:
    """Our score with the random trunk; the layers trained on top of it are the published ones."""
    need("DISTS_pytorch" if name == "dists" else "lpips")
    with accepted(VGG16 if name == "dists" else NETS[name][2]) as setting:
        return score(name, _pair(), setting)


def _features(constructor: str, file: str) -> Any:
    """torchvision's trunk with the random weights, for libraries that ask for a pretrained one."""
    import torch
    import torchvision

    with torch.device("meta"):
        features = getattr(torchvision.models, constructor)(weights=None).features
    state = {k.removeprefix("features."): v for k, v in random_weights.state(file).items()}
    features.load_state_dict(state, assign=True)
    return features


def _small_file(name: str) -> Path:
    """The published layers on top of the trunk, which the packages carry."""
    return weights.find(name)


def _from_pyiqa(constructor: str, file: str, build: Callable[[], Any]) -> float:
    """What one of pyiqa's networks says with the random trunk, in double precision: it shall not differ from itself."""
    import torch

    with quietly(), given_trunk(constructor, _features(constructor, file)):
        network = build().eval().double()
    with torch.inference_mode():
        return float(network(*tensors(_pair())))


def _lpips_pyiqa(name: str) -> Values:
    need("pyiqa")
    from pyiqa.archs.lpips_arch import LPIPS

    net, constructor, trunk = NETS[name]
    linear = _small_file({"alex": "LPIPS_v0.1_alex-df73285e.pth", "vgg": "LPIPS_v0.1_vgg-a78928a0.pth"}[net])
    return _ours(name), _from_pyiqa(constructor, trunk, lambda: LPIPS(net=net, pretrained_model_path=str(linear)))


def _lpips_equation(name: str) -> Values:
    import torch

    net, _, trunk = NETS[name]
    ours = _ours(name)
    linear = torch.load(
        _small_file({"alex": "LPIPS_v0.1_alex-df73285e.pth", "vgg": "LPIPS_v0.1_vgg-a78928a0.pth"}[net]),
        weights_only=True,
        map_location="cpu",
    )
    layers = [linear[f"lin{i}.model.1.weight"] for i in range(5)]
    return ours, network_equations.lpips(*_pair(), net, random_weights.state(trunk), layers)


def _dists_pyiqa() -> Values:
    need("pyiqa")
    from pyiqa.archs.dists_arch import DISTS

    file = _small_file(DISTS_FILE)
    return _ours("dists"), _from_pyiqa("vgg16", VGG16, lambda: DISTS(pretrained_model_path=str(file)))


def _dists_equation() -> Values:
    import torch

    ours = _ours("dists")
    published = torch.load(_small_file(DISTS_FILE), weights_only=True, map_location="cpu")
    state = random_weights.state(VGG16)
    return ours, network_equations.dists(*_pair(), state, published["alpha"], published["beta"])


def _zhang() -> pictures.Pair:
    first, second = (pictures.of_others(f"lpips_ex_{n}.png", ZHANG) for n in ("ref", "p0"))
    return first, second


def _goldhill() -> pictures.Pair:
    first, second = (pictures.of_others(f"{n}.gif", GOLDHILL) for n in ("goldhill", "goldhill_jpeg"))
    return first, second


CASES = [
    *(
        Case(name, "equation", "eq. 1 of Zhang et al. in float64, a random trunk in both",
             lambda n=name: _lpips_equation(n), 1e-5, relative=True, note="ours computes in float32")
        for name in NETS
    ),
    *(
        Case(name, "library", "pyiqa's network in float64, a random trunk in both", lambda n=name: _lpips_pyiqa(n),
             1e-5, relative=True)
        for name in NETS
    ),
    *(
        Case(
            "lpips_alex",
            "published",
            TID.format(pair) + " (official package)",
            lambda p=pair, v=value: (score("lpips_alex", calibration_pair(p)), v),
            2e-4,
            note="official weights; published to four digits",
        )
        for pair, value in (("I03", 0.7237), ("I06", 0.05079))
    ),
    Case("lpips_vgg", "published", "the official code on its repository's example pair, as moono/lpips-tf2.x prints it",
         lambda: published("lpips_vgg", _zhang, 0.569), 6e-4, note="official weights; published to three decimals"),
    Case("dists", "equation", "eq. 6-8 of Ding et al. in float64, a random trunk in both", _dists_equation, 1e-5,
         note="ours computes in float32"),
    Case("dists", "library", "pyiqa's network in float64, a random trunk in both", _dists_pyiqa, 1e-6),
    *(
        Case(
            "dists",
            "published",
            TID.format(pair) + " (official code)",
            lambda p=pair, v=value: (score("dists", calibration_pair(p)), v),
            2e-4,
            note="official weights; published to four digits",
        )
        for pair, value in (("I03", 0.4742), ("I06", 0.06825))
    ),
    Case("dists", "published", "the official code on goldhill and its JPEG, by piq's tests",
         lambda: published("dists", _goldhill, 0.19509), 1e-3, note="official weights; grey brought to RGB"),
]  # fmt: skip
