"""What a user does today: each library called image by image as its documentation shows, in one process of its own.

``python -m tests.bench.peers FOLDER IMAGES N`` prints JSON: milliseconds a call over the first IMAGES pairs of FOLDER
(``ref/`` against ``model0/``), and FID's distance step for N images. torch has as many threads as it takes by default.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import random_weights


def main() -> None:
    """Measure and print."""
    folder, count, n = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    weights = random_weights.use()
    assert weights is not None
    calls, threads = libraries(weights)
    pairs = [(folder / "model0" / f"{i:05d}.png", folder / "ref" / f"{i:05d}.png") for i in range(count)]
    spent = dict.fromkeys(calls, 0.0)
    for i, pair in enumerate([pairs[0], *pairs]):  # the first is not counted: a library's first call makes ready
        for name, call in calls.items():
            started = time.perf_counter()
            call(*pair)
            spent[name] += time.perf_counter() - started if i else 0.0
    milliseconds = {name: 1000 * seconds / count for name, seconds in spent.items()}
    milliseconds["fid_tf"] = inception(folder, count, weights)
    print(json.dumps({"threads": threads, "ms": milliseconds, "distance_s": distance(n)}))


def libraries(weights: Path) -> tuple[dict[str, Callable[[Path, Path], Any]], int]:
    """The call of each library for one pair of files (prediction, reference), by our name of the metric."""
    import colour
    import DISTS_pytorch
    import lpips
    import pyiqa
    import torch
    from PIL import Image
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity
    from torchmetrics.functional.image import spectral_angle_mapper

    from bench.metrics.base import Setting
    from bench.metrics.networks import given_trunk, trunk

    def read(path: Path) -> np.ndarray:
        return np.array(Image.open(path).convert("RGB"))

    def tensor(path: Path) -> torch.Tensor:
        return torch.from_numpy(read(path)).permute(2, 0, 1)[None].float() / 255

    def lab(path: Path) -> np.ndarray:
        return np.asarray(colour.XYZ_to_Lab(colour.sRGB_to_XYZ(read(path) / 255)))

    def ssim(p: Path, r: Path) -> float:
        return structural_similarity(
            read(r), read(p), data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )  # fmt: skip

    setting = Setting(weights_dir=weights)
    with given_trunk("alexnet", trunk("alexnet", random_weights.ALEXNET, setting)):
        lpips_alex = lpips.LPIPS(net="alex", verbose=False)
    with given_trunk("vgg16", trunk("vgg16", random_weights.VGG16, setting)):
        dists = DISTS_pytorch.DISTS(load_weights=False)  # its own alpha and beta lie where few installations find them
    fsim = pyiqa.create_metric("fsim", chromatic=False, device="cpu")
    niqe = pyiqa.create_metric("niqe", pretrained_model_path=str(weights / random_weights.NIQE), device="cpu")
    calls: dict[str, Callable[[Path, Path], Any]] = {
        "psnr_rgb": lambda p, r: peak_signal_noise_ratio(read(r), read(p), data_range=255),
        "ssim_rgb": ssim,
        "fsim": lambda p, r: fsim(tensor(p), tensor(r)),
        "lpips_alex": lambda p, r: lpips_alex(tensor(r), tensor(p), normalize=True).item(),
        "dists": lambda p, r: dists(tensor(r), tensor(p)).item(),
        "niqe": lambda p, r: niqe(tensor(p)),
        "sam_rgb": lambda p, r: spectral_angle_mapper(tensor(p), tensor(r)),
        "de00": lambda p, r: np.mean(colour.delta_E(lab(r), lab(p), method="CIE 2000")),
    }
    return calls, torch.get_num_threads()


def inception(folder: Path, count: int, weights: Path) -> float:
    """torch-fidelity's features of both folders, as ``calculate_metrics`` takes them: milliseconds a pair."""
    from torch_fidelity import utils
    from torch_fidelity.datasets import ImagesPathDataset

    options = {"cuda": False, "verbose": False, "save_cpu_ram": True, "batch_size": 1}
    extractor = utils.create_feature_extractor(
        "inception-v3-compat", ["2048"], **options,
        feature_extractor_weights_path=str(weights / random_weights.INCEPTION),
    )  # fmt: skip
    seconds = 0.0
    for side in ("model0", "ref"):
        files = [str(folder / side / f"{i:05d}.png") for i in range(count)]
        started = time.perf_counter()
        utils.get_featuresdict_from_dataset(
            ImagesPathDataset(files), extractor, 1, False, save_cpu_ram=True, verbose=False
        )
        seconds += time.perf_counter() - started
    return 1000 * seconds / count


def distance(n: int) -> float:
    """torch-fidelity's step from two sets of features to FID, seconds."""
    import torch
    from torch_fidelity import metric_fid

    generator = torch.Generator().manual_seed(0)
    features = [torch.rand(n, 2048, generator=generator) for _ in range(2)]
    started = time.perf_counter()
    statistics = [metric_fid.fid_features_to_statistics(f) for f in features]
    metric_fid.fid_statistics_to_metric(*statistics, verbose=False)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
