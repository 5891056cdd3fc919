"""ZoomLDM against its own code, and the constrained sampler against the notebook that it follows, on random weights.

    git clone https://github.com/cvlab-stonybrook/ZoomLDM && git -C ZoomLDM checkout faca5d8
    git clone https://github.com/cvlab-stonybrook/fast-constrained-sampling && git -C fast-constrained-sampling checkout dc59d71
    python -m venv --system-site-packages zoomldm-env && zoomldm-env/bin/pip install einops
    zoomldm-env/bin/pip install --no-deps taming-transformers-rom1504 pytorch-lightning lightning-utilities torchmetrics
    python -m tests.upstream.zoomldm ZoomLDM fast-constrained-sampling --python zoomldm-env/bin/python

The original makes the networks and writes a checkpoint as its trainer would, with the averaged UNet's names, so names and
shapes are its own. It runs in a process of its own; files are exchanged.
"""  # noqa: E501 - a command

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np

SEED, TIME = 7, 601
GRIDS = {0: 1, 1: 2, 2: 4, 3: 8}  # zoom: side of the features


def theirs(folder: Path, checkout: Path) -> None:
    """Write the original's checkpoint and answers; runs in its environment, and imports nothing of ours."""
    sys.path.insert(0, str(checkout))
    import torch
    from ldm.models.autoencoder import VQModelInterface
    from ldm.modules.diffusionmodules.openaimodel import UNetModel
    from ldm.modules.ema import LitEma
    from ldm.modules.encoders.modules import EmbeddingViT2_5
    from torch import nn

    torch.manual_seed(SEED)
    wrapper = nn.Module()
    wrapper.diffusion_model = UNetModel(
        image_size=64, in_channels=3, out_channels=3, model_channels=32, attention_resolutions=[8, 4, 2],
        num_res_blocks=2, channel_mult=[1, 2, 3, 5], num_heads=1, use_spatial_transformer=True, transformer_depth=1,
        context_dim=16, use_checkpoint=False, use_fp16=False,
    )  # fmt: skip
    vae = VQModelInterface(
        embed_dim=3, n_embed=64, lossconfig={"target": "torch.nn.Identity"},
        ddconfig={"double_z": False, "z_channels": 3, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32,
                  "ch_mult": [1, 2, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0},
    )  # fmt: skip
    summariser = EmbeddingViT2_5(
        feat_key="ssl_feat", mag_key="mag", num_layers=2, num_heads=2, input_channels=32, hidden_channels=16,
        output_channels=16, vit_mlp_dim=32, p_uncond=0, mag_levels=4,
    )  # fmt: skip
    for net in (wrapper, vae, summariser):
        for parameter in net.eval().parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=max(1, parameter[0].numel()) ** -0.5)
            else:
                nn.init.normal_(parameter, 1.0 if parameter.mean() == 1 else 0.0, 0.1)
    ema = LitEma(wrapper)
    state = {f"model.{k}": torch.zeros_like(v) for k, v in wrapper.state_dict().items()}  # must not be used
    state.update({f"model_ema.{k}": v for k, v in ema.state_dict().items()})
    state.update({f"first_stage_model.{k}": v for k, v in vae.state_dict().items()})
    state.update({f"cond_stage_model.{k}": v for k, v in summariser.state_dict().items()})
    torch.save(state, folder / "weights.ckpt")
    at = {k: torch.from_numpy(v) for k, v in np.load(folder / "inputs.npz").items()}
    found = {}
    with torch.no_grad():
        found["unet"] = wrapper.diffusion_model(at["x"], torch.full((2,), float(TIME)), context=at["context"])
        found["autoencoder, encode"] = vae.encode(at["image"])
        found["autoencoder, decode"] = vae.decode(at["latent"])
        for zoom, side in GRIDS.items():
            batch = {"ssl_feat": at[f"features {side}"], "mag": torch.tensor([zoom])}
            found[f"summariser, {side}x{side} features"] = summariser(batch)
    np.savez(folder / "theirs.npz", **{k: v.numpy() for k, v in found.items()})


def networks(folder: Path, checkout: Path, python: str) -> None:
    """Compare the networks, and print."""
    import torch

    from baselines.zoomldm import convert, network
    from bench.models import load_state, read_state

    size = network.Size((32, 64, 96, 160), 2, 32, 16, (32, 64, 128), 2, 64, 32, 2, 2, 32)
    rng = np.random.default_rng(SEED)
    shapes = {"x": (2, 3, 64, 64), "context": (2, 65, 16), "image": (1, 3, 96, 128), "latent": (1, 3, 24, 32)}
    shapes |= {f"features {side}": (1, 32, side, side) for side in GRIDS.values()}
    inputs = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    np.savez(folder / "inputs.npz", **inputs)
    command = [python, str(Path(__file__).resolve()), str(checkout), str(checkout), "--exchange", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": ""})
    nets = {"unet": network.build_unet(size), "vae": network.build_vae(size), "summariser": network.Summariser(size)}
    names = {part: {k: v.shape for k, v in net.state_dict().items()} for part, net in nets.items()}
    state = convert.state(read_state(folder / "weights.ckpt"), names, size)
    load_state(torch.nn.ModuleDict(nets), state, "the original's checkpoint")
    at = {k: torch.from_numpy(v) for k, v in inputs.items()}
    with torch.no_grad():
        for net in nets.values():
            net.eval()
        found = {
            "unet": nets["unet"](at["x"], TIME, encoder_hidden_states=at["context"]).sample,
            "autoencoder, encode": nets["vae"].encode(at["image"]).latents,
            "autoencoder, decode": nets["vae"].decode(at["latent"]).sample,
        }
        for zoom, side in GRIDS.items():
            found[f"summariser, {side}x{side} features"] = nets["summariser"](at[f"features {side}"], zoom)
    with np.load(folder / "theirs.npz") as answers:
        for part, value in found.items():
            other = answers[part]
            largest = np.abs(value.numpy() - other).max()
            print(f"{part}: shape {tuple(value.shape)}, largest difference {largest:.2g} of {np.abs(other).max():.3g}")


def sampler(checkout: Path) -> None:
    """Run the notebook's cell on small stand-ins for its networks, and ours on the same; compare, and print."""
    import torch
    from torch import nn

    from baselines.zoomldm.network import cumulative_products
    from baselines.zoomldm.sampler import FAST_CONSTRAINED, Constraint, resizing, sample

    cells = json.loads((checkout / "stable-diffusion/superres.ipynb").read_text(encoding="utf-8"))["cells"]
    (code,) = ("".join(c["source"]) for c in cells if "def model_pred" in "".join(c["source"]))
    # In double precision: rounding grows, as the direction of a gradient is divided by its largest number 200 times.
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(SEED)
    denoiser = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1))
    decoder = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.Tanh(), nn.Upsample(scale_factor=8), nn.Conv2d(6, 3, 1))

    def noise(x: torch.Tensor, t: torch.Tensor | int, context: object = None) -> torch.Tensor:
        return denoiser(x) + x * (float(t if isinstance(t, int) else t[0]) / 2000)

    products = cumulative_products()
    betas = 1 - products / torch.cat([torch.ones(1, dtype=products.dtype), products[:-1]])
    model = SimpleNamespace(
        model=SimpleNamespace(diffusion_model=noise), ema_scope=nullcontext, alphas_cumprod=products,
        betas=betas, get_learned_conditioning=lambda text: torch.zeros(1, 1, 1),
        differentiable_decode_first_stage=decoder,
    )  # fmt: skip
    lr = torch.rand(1, 3, 64, 64) * 2 - 1
    constraint = Constraint(lr, (512, 512))
    scope = {
        "torch": torch, "F": nn.functional, "tqdm": lambda x: x, "device": torch.device("cpu"), "model": model,
        "down_operator": constraint.down, "constraint_img": lr,
    }  # fmt: skip
    torch.manual_seed(SEED)
    exec(code, scope)
    torch.manual_seed(SEED)
    drawn = torch.cat([torch.randn(1, 4, 64, 64) for _ in range(len(FAST_CONSTRAINED.times) + 1)], 1)
    found = sample(lambda x, t: noise(x, t), decoder, decoder, constraint, drawn, FAST_CONSTRAINED)
    other = scope["x0_pred"].detach()
    with torch.no_grad():
        apart, far = (found - other).abs().max(), constraint.distance(decoder(other))
        print(f"sampler: shape {tuple(found.shape)}, largest difference {apart:.2g} of {other.abs().max():.3g}")
        print(f"sampler: distance to the LR {constraint.distance(decoder(found)):.5g} of ours, {far:.5g} of theirs")
    torch.set_default_dtype(torch.float32)
    from tests.upstream import module_from

    resizer = module_from(checkout / "stable-diffusion" / "utils" / "resizer.py")
    image = torch.rand(1, 3, 256, 256)
    down = resizer.Resizer((1, 3, 256, 256), scale_factor=1 / 4)(image)
    ours = Constraint(torch.zeros(1, 3, 64, 64), (256, 256)).down(image)
    inside = (..., slice(2, -2), slice(2, -2))
    print(f"reduction, inside: largest difference {(down - ours)[inside].abs().max():.2g}")
    print(f"reduction, at the border, where theirs mirrors: {(down - ours).abs().max():.2g}")
    assert torch.allclose(resizing(256, 64).sum(1), torch.ones(64), atol=1e-5)


def finishing(checkout: Path) -> None:
    """Run the original's last sampling of a large image on a small stand-in for its networks, and ours on the same."""
    import torch
    from torch import nn

    from baselines.zoomldm import condition, finish
    from baselines.zoomldm.network import cumulative_products, standardised
    from baselines.zoomldm.sampler import joined

    start, stride, guidance, grid = 300, 50, 2.0, (2, 2)
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(SEED)
    denoiser = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 3, 3, padding=1))

    def noise(x: torch.Tensor, t: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return denoiser(x + 0.1 * context[:, 0, :3, None, None]) + x * (t.double()[:, None, None, None] / 2000)

    def conditioned(given: dict[str, list[torch.Tensor]]) -> torch.Tensor:
        return given["ssl_feat"][0].reshape(1, 1, -1)[..., :512].expand(1, 65, 512)

    products = cumulative_products()
    betas = 1 - products / torch.cat([torch.ones(1), products[:-1]])
    model = SimpleNamespace(
        device=torch.device("cpu"), alphas_cumprod=products, betas=betas, get_learned_conditioning=conditioned,
        model=SimpleNamespace(diffusion_model=noise),
    )  # fmt: skip
    patches, features = torch.randn(4, 3, 64, 64), torch.randn(1024, *grid)
    sys.path.insert(0, str(checkout))
    from large_image_gen.postprocess import postprocess_image

    with torch.no_grad():
        torch.manual_seed(SEED)
        theirs = joined(postprocess_image(model, patches, features, start, stride, guidance, 16, *grid), grid)
        torch.manual_seed(SEED)
        drawn = [joined(torch.randn(4, 3, 64, 64), grid)]
        drawn += [torch.randn(1, 3, 128, 128) for _ in finish.times(start, stride)]

        def predict(x: torch.Tensor, t: int, row: int, column: int) -> torch.Tensor:
            mine = standardised(condition.between(features, row / 64, column / 64)[None, :, None, None])
            given = conditioned({"ssl_feat": [mine[0]]})
            time = torch.tensor([float(t)])
            return (1 + guidance) * noise(x, time, given) - guidance * noise(x, time, given * 0)

        ours = finish.sharpen(joined(patches, grid), predict, torch.cat(drawn, 1), start, stride)
    apart = (ours - theirs).abs().max()
    print(f"finish: shape {tuple(ours.shape)}, largest difference {apart:.2g} of {theirs.abs().max():.3g}")
    torch.set_default_dtype(torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a checkout of ZoomLDM")
    parser.add_argument("sampling", type=Path, help="a checkout of fast-constrained-sampling")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the original's environment")
    parser.add_argument("--exchange", type=Path, help=argparse.SUPPRESS)  # the second process
    words = parser.parse_args()
    if words.exchange:
        theirs(words.exchange, words.checkout.resolve())
        return
    with tempfile.TemporaryDirectory() as name:
        networks(Path(name), words.checkout.resolve(), words.python)
    finishing(words.checkout.resolve())
    sampler(words.sampling.resolve())


if __name__ == "__main__":
    main()
