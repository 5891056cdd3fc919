"""The authors' network on given images; run as a script (``bench.check.upstream``), never imported.

It needs torch and diffusers, and 4 GB of memory. Stable Diffusion's own weights are not needed: the authors prune its
UNet module by module, then all that is left gets the numbers of their file.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.autoencoders.vae import Decoder
from torch import nn


def tensors(path: Path) -> Any:
    """A checkpoint, of which only tensors are made; what else its pickle names stays empty."""
    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    empty = {"__init__": lambda *_, **__: None, "__setstate__": lambda *_: None}
    stand_ins: list[Any] = [(type("Empty", (), dict(empty)), name) for name in foreign]
    with torch.serialization.safe_globals(stand_ins):
        return torch.load(path, map_location="cpu", weights_only=True)


def network(checkout: Path, weights: dict[str, str]) -> nn.Module:
    """The authors' model, put together as their test.py does it."""
    sys.path.insert(0, str(checkout))
    from model import Net  # the authors'

    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=(320, 640, 1280, 1280), attention_head_dim=(5, 10, 20, 20),
        cross_attention_dim=1024, use_linear_projection=True,
    )  # fmt: skip
    decoder = Decoder(4, 3, ("UpDecoderBlock2D",) * 4, (64, 128, 256, 256), 2)
    half = tensors(Path(weights["halfDecoder.ckpt"]))["state_dict"]
    decoder.load_state_dict({k.replace("decoder.", ""): v for k, v in half.items() if "decoder" in k}, strict=True)
    net = Net(unet, copy.deepcopy(decoder))
    state = tensors(Path(weights["net_params_200.pkl"]))
    net.load_state_dict({k.removeprefix("module."): v for k, v in state.items()}, strict=True)
    return nn.Sequential(net, *decoder.up_blocks, decoder.conv_norm_out, decoder.conv_act, decoder.conv_out).eval()


def main(checkout: Path, folder: Path) -> None:
    """Answer every ``imageN.npy`` of the folder."""
    model = network(checkout, json.loads((folder / "job.json").read_text(encoding="utf-8"))["weights"])
    axes: Any = {"dim": (2, 3), "keepdim": True}
    for given in sorted(folder.glob("image*.npy")):
        lr = torch.from_numpy(np.load(given)).permute(2, 0, 1)[None] * 2 - 1
        with torch.no_grad():
            sr = model(lr)
        sr = (sr - sr.mean(**axes)) / sr.std(**axes) * lr.std(**axes) + lr.mean(**axes)
        answer = (sr[0] / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).numpy()
        np.save(folder / given.name.replace("image", "answer"), answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
