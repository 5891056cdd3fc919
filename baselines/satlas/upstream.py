"""The authors' generator on given images; run as a script (``bench.check.upstream``), never imported.

BasicSR, with which the original registers its network, is not needed: stand-ins take its place, and that of three small
helpers from a file that needs BasicSR's compiled parts.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

WHITE = 0.3558  # the reflectance that is 255 in the true-colour images that the original reads


class Registry:
    """In the place of BasicSR's: what is registered stays as it is."""

    def register(self) -> Callable[[type], type]:
        return lambda made: made


def stand_in(name: str, **contents: Any) -> None:
    """A module of the given contents."""
    module = types.ModuleType(name)
    module.__path__ = []
    module.__dict__.update(contents)
    sys.modules[name] = module


def generator(checkout: Path) -> Any:
    """The module of the original's network."""
    stand_in("basicsr")
    stand_in("basicsr.utils")
    stand_in("basicsr.utils.registry", ARCH_REGISTRY=Registry())
    stand_in("satlas_archs")
    stand_in(
        "satlas_archs.arch_util", default_init_weights=lambda *_: None, pixel_unshuffle=None,
        make_layer=lambda block, count, **sizes: nn.Sequential(*(block(**sizes) for _ in range(count))),
    )  # fmt: skip
    path = checkout / "ssr" / "archs" / "rrdbnet_arch.py"
    spec = importlib.util.spec_from_file_location("satlas_archs.rrdbnet_arch", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(checkout: Path, folder: Path) -> None:
    """Answer every ``imageN.npy`` of the folder."""
    ((_, path),) = json.loads((folder / "job.json").read_text(encoding="utf-8"))["weights"].items()
    state = torch.load(path, map_location="cpu", weights_only=True)["params_ema"]
    channels = state["conv_first.weight"].shape[1]
    network = generator(checkout).SSR_RRDBNet(channels, 3, scale=4, num_feat=64, num_block=23, num_grow_ch=32)
    network.load_state_dict(state, strict=True)
    network.eval()
    for given in sorted(folder.glob("image*.npy")):
        colour = np.rint(np.load(given) / WHITE * 255).clip(1, 255).astype(np.uint8)
        x = torch.as_tensor(colour).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            answer = torch.clamp(network(x), 0, 1)[0].permute(1, 2, 0).numpy()
        np.save(folder / given.name.replace("image", "answer"), answer * np.float32(WHITE))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
