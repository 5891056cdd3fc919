"""Random weights in place of the official ones, for machines that do not have those: the same work, other numbers.

``install`` writes files of the official names and layouts and has them listed with their own hashes, in this process
and, through an environment variable, in those that it starts. Trunks hold their convolutions alone, as they are used.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import torch

from bench import weights

_FOLDER = "RFBENCH_RANDOM_WEIGHTS"
ALEXNET, VGG16 = "alexnet-owt-7be5be79.pth", "vgg16-397923af.pth"
INCEPTION, MANIQA = "weights-inception-2015-12-05-6726825d.pth", "ckpt_koniq10k.pt"
NIQE = "niqe_modelparameters.mat"


def install(folder: Path, *, maniqa: bool) -> None:
    """Make the files that are not here already; list them."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for file, make in (ALEXNET, _alexnet), (VGG16, _vgg16), (INCEPTION, _inception), (MANIQA, _maniqa):
        if (file != MANIQA or maniqa) and not (folder / file).is_file():
            torch.save(make(), folder / file)
    if not (folder / NIQE).is_file():
        _niqe(folder / NIQE)
    hashes = {path.name: weights.hash_of(path) for path in folder.iterdir() if path.name in weights.listed()}
    (folder / "hashes.json").write_text(json.dumps(hashes))
    os.environ[_FOLDER] = str(folder)
    use()


def use() -> Path | None:
    """List the files of ``install``, if it was called here or in the process that started this one."""
    if _FOLDER not in os.environ:
        return None
    folder = Path(os.environ[_FOLDER])
    for file, digest in json.loads((folder / "hashes.json").read_text()).items():
        weights.listed()[file] = msgspec.structs.replace(weights.listed()[file], sha256=digest)
    return folder


def _alexnet() -> dict[str, Any]:
    import torchvision

    return _features(torchvision.models.AlexNet().features)


def _vgg16() -> dict[str, Any]:
    import torchvision

    return _features(torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"]))


def _features(layers: torch.nn.Module) -> dict[str, Any]:
    return {f"features.{k}": v for k, v in _lively(layers).state_dict().items()}


def _inception() -> dict[str, Any]:
    from torch_fidelity import feature_extractor_inceptionv3 as module

    from bench.metrics.networks import replaced

    class Empty(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
            return None

    with replaced(module, load_state_dict_from_url=lambda *args, **kwargs: {}):
        return _lively(Empty("inception-v3-compat", ["2048"])).state_dict()


def maniqa_network() -> torch.nn.Module:
    """pyiqa's network for KonIQ-10k, without the download of a backbone."""
    import timm
    from pyiqa.archs import maniqa_arch

    from bench.metrics.networks import replaced

    create = timm.create_model
    with replaced(timm, create_model=lambda name, pretrained=False, **kwargs: create(name, pretrained=False, **kwargs)):
        return maniqa_arch.MANIQA(pretrained=False, scale=0.8)


def _maniqa() -> dict[str, Any]:
    return maniqa_network().state_dict()


def _lively(network: torch.nn.Module) -> torch.nn.Module:
    """Convolutions that keep the size of what goes through them."""
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


def _niqe(path: Path) -> None:
    import numpy as np
    from scipy.io import savemat

    random = np.random.default_rng(0)
    spread = random.normal(0, 1, (36, 36))
    savemat(path, {"mu_prisparam": random.random((1, 36)), "cov_prisparam": spread @ spread.T / 36})
