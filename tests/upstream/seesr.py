"""SeeSR against its own code, on the same small random networks and the same noise.

    git clone https://github.com/cswry/SeeSR && git -C SeeSR checkout 8edecc71c4f3efa01cd26078f2e8dffd1ce80a6a
    python -m venv --system-site-packages seesr-env
    seesr-env/bin/pip install diffusers==0.21.0 transformers==4.25.1 tokenizers==0.13.3 huggingface_hub==0.20.3 \
        accelerate==0.25.0 numpy==1.26.4 loralib==0.1.2 fairscale==0.4.13 timm==0.9.12 einops
    python -m tests.upstream.seesr SeeSR --python seesr-env/bin/python

The original needs an environment of its own (it does not import under later versions of diffusers), so it runs in a
process of its own; weights, inputs and answers are exchanged as files.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

SEED, SIZE = 7, (96, 136)  # (height, width)
CASES = {  # latent tile in cells, and the words of both for the schedule: steps, guidance, spacing
    "whole": (96, 4, 5.5, "leading"), "tiles": (8, 4, 5.5, "leading"), "turbo": (8, 2, 1.0, "trailing"),
}  # fmt: skip
VAE_TILES = {"vae_encoder_px": 64, "vae_decoder_cells": 16}


def ours(folder: Path) -> dict[str, np.ndarray]:
    """Write networks and inputs, and answer them."""
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    from baselines.seesr import colour, tiled_vae
    from baselines.seesr.network import (
        IMAGE_TOKENS,
        SMALL,
        TOKEN_WIDTH,
        TOKENS,
        build_controlnet,
        build_unet,
        build_vae,
        published_names,
    )  # fmt: skip
    from baselines.seesr.sampler import Networks, Prompt, Settings, sample

    torch.manual_seed(SEED)
    nets = {"unet": build_unet(SMALL), "controlnet": build_controlnet(SMALL), "vae": build_vae(SMALL)}
    for name, net in nets.items():
        for parameter in net.parameters():  # the zero convolutions, too, or half of the ControlNet would go unseen
            if parameter.abs().max() == 0:
                torch.nn.init.normal_(parameter, std=0.05)
        names = {ours: theirs for theirs, ours in published_names(net).items()}
        save_file(
            {names[k]: v.contiguous() for k, v in net.eval().state_dict().items()}, folder / f"{name}.safetensors"
        )
    rng = np.random.default_rng(SEED)
    inputs = {
        "x": rng.standard_normal((2, 4, 12, 17)), "text": rng.standard_normal((2, 77, SMALL.text_width)),
        "tokens": rng.standard_normal((2, TOKENS, TOKEN_WIDTH)), "image": rng.random((2, 3, 96, 136)),
        "latent": rng.standard_normal((1, 4, 40, 56)), "large": rng.uniform(-1, 1, (1, 3, 200, 264)),
    }  # fmt: skip
    inputs = {k: v.astype(np.float32) for k, v in inputs.items()}
    inputs["picture"], inputs["source"] = rng.integers(0, 256, (2, 96, 136, 3), np.uint8)
    np.savez(folder / "inputs.npz", **inputs)
    at = {k: torch.from_numpy(v) for k, v in inputs.items()}

    found: dict[str, np.ndarray] = {}
    with torch.no_grad():
        tokens = {IMAGE_TOKENS: at["tokens"]}
        downs, middle = nets["controlnet"](
            at["x"], 601, encoder_hidden_states=at["text"], controlnet_cond=at["image"],
            cross_attention_kwargs=tokens, return_dict=False,
        )  # fmt: skip
        found |= {f"controlnet residual {i}": d.numpy() for i, d in enumerate([*downs, middle])}
        found["unet"] = nets["unet"](
            at["x"], 601, encoder_hidden_states=at["text"], cross_attention_kwargs=tokens,
            down_block_additional_residuals=downs, mid_block_additional_residual=middle, return_dict=False,
        )[0].numpy()  # fmt: skip
        found["vae encoder in tiles"] = tiled_vae.encode(nets["vae"], at["large"], VAE_TILES["vae_encoder_px"]).numpy()
        found["vae decoder in tiles"] = tiled_vae.decode(
            nets["vae"], at["latent"], VAE_TILES["vae_decoder_cells"]
        ).numpy()
    rgb = [torch.from_numpy(inputs[k]).permute(2, 0, 1)[None] / 255 for k in ("picture", "source")]
    for name, fix in (("adain", colour.adain), ("wavelet", colour.wavelet)):
        found[name] = fix(*rgb).clamp(0, 1).mul(255).to(torch.uint8)[0].permute(1, 2, 0).numpy()

    networks = Networks(**nets, dtype=torch.float32, device=torch.device("cpu"))
    prompt = Prompt(at["text"][1:], at["text"][:1], at["tokens"][:1])
    for name, (tile, steps, guidance, spacing) in CASES.items():
        settings = Settings(
            steps=steps, guidance=guidance, spacing=spacing, tile_cells=tile, overlap_cells=2, **VAE_TILES
        )
        cells = (1, 4, *(n // 8 for n in SIZE))
        # The order in which the original draws: the start and the steps from its generator, the posterior globally.
        generator = torch.Generator().manual_seed(SEED)
        torch.manual_seed(SEED)
        drawn = [torch.randn(cells, generator=generator), torch.randn(cells)]
        drawn += [torch.randn(cells, generator=generator) for _ in range(steps)]
        for align in ("adain", "wavelet", "nofix"):
            image = sample(
                Image.fromarray(inputs["source"]), prompt, torch.cat(drawn, 1)[0], networks,
                Settings(**{**vars(settings), "align": align}),
            )  # fmt: skip
            to_8_bit = np.rint if align == "nofix" else np.floor  # as the original
            found[f"pipeline, {name}, {align}"] = to_8_bit(image * 255).astype(np.uint8)
    return found


def theirs(folder: Path, checkout: Path) -> dict[str, np.ndarray]:
    """The original's answers; runs in its environment, and imports nothing of ours."""
    sys.path.insert(0, str(checkout))
    os.chdir(checkout)
    import torch
    import utils.devices as devices
    from diffusers import AutoencoderKL, DDPMScheduler
    from models.controlnet import ControlNetModel
    from models.unet_2d_condition import UNet2DConditionModel
    from PIL import Image
    from pipelines.pipeline_seesr import StableDiffusionControlNetPipeline
    from safetensors.torch import load_file
    from transformers import CLIPTextConfig, CLIPTextModel
    from utils.wavelet_color_fix import adain_color_fix, wavelet_color_fix

    devices.device = torch.device("cpu")
    at = {k: torch.from_numpy(v) for k, v in np.load(folder / "inputs.npz").items()}
    shared = {
        "in_channels": 4, "block_out_channels": (32, 32, 64, 64), "layers_per_block": 1, "norm_num_groups": 8,
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), "attention_head_dim": (2, 2, 4, 4),
        "cross_attention_dim": at["text"].shape[2], "use_linear_projection": True, "use_image_cross_attention": True,
    }  # fmt: skip
    unet = UNet2DConditionModel(
        out_channels=4, up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, **shared
    )  # fmt: skip
    controlnet = ControlNetModel(conditioning_embedding_out_channels=(8, 8, 16, 16), **shared)
    vae = AutoencoderKL(
        block_out_channels=(32,) * 4, layers_per_block=2, latent_channels=4, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    for name, net in (("unet", unet), ("controlnet", controlnet), ("vae", vae)):
        net.load_state_dict(load_file(folder / f"{name}.safetensors"), strict=True)
        net.eval()
    schedule = {
        "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
        "steps_offset": 1, "prediction_type": "epsilon",
    }  # fmt: skip
    width = at["text"].shape[2]
    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=width, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    )
    pipeline = StableDiffusionControlNetPipeline(
        vae=vae, text_encoder=text, tokenizer=None, unet=unet, controlnet=controlnet,
        scheduler=DDPMScheduler(**schedule),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline._init_tiled_vae(
        encoder_tile_size=VAE_TILES["vae_encoder_px"], decoder_tile_size=VAE_TILES["vae_decoder_cells"],
        vae_to_gpu=False,
    )  # fmt: skip
    found = {}
    with torch.no_grad():
        downs, middle = controlnet(
            at["x"], 601, encoder_hidden_states=at["text"], controlnet_cond=at["image"],
            image_encoder_hidden_states=at["tokens"], return_dict=False,
        )  # fmt: skip
        found.update({f"controlnet residual {i}": d.numpy() for i, d in enumerate([*downs, middle])})
        found["unet"] = unet(
            at["x"], 601, encoder_hidden_states=at["text"], image_encoder_hidden_states=at["tokens"],
            down_block_additional_residuals=downs, mid_block_additional_residual=middle, return_dict=False,
        )[0].numpy()  # fmt: skip
        found["vae encoder in tiles"] = vae.quant_conv(vae.encoder(at["large"])).numpy()
        found["vae decoder in tiles"] = vae.decode(at["latent"]).sample.numpy()
    picture, source = (Image.fromarray(at[k].numpy()) for k in ("picture", "source"))
    fixes = {"adain": adain_color_fix, "wavelet": wavelet_color_fix, "nofix": lambda image, _: image}
    for name in ("adain", "wavelet"):
        found[name] = np.asarray(fixes[name](picture, source))
    for name, (tile, steps, guidance, spacing) in CASES.items():
        pipeline.scheduler = DDPMScheduler(**schedule, timestep_spacing=spacing)
        torch.manual_seed(SEED)
        answer = pipeline(
            image=source, prompt_embeds=at["text"][1:], negative_prompt_embeds=at["text"][:1],
            ram_encoder_hidden_states=at["tokens"][:1], num_inference_steps=steps, height=source.height,
            width=source.width, guidance_scale=guidance, conditioning_scale=1.0, start_point="lr", start_steps=999,
            generator=torch.Generator().manual_seed(SEED), latent_tiled_size=tile, latent_tiled_overlap=2,
            args=SimpleNamespace(),
        ).images[0]  # fmt: skip
        for align, fix in fixes.items():
            found[f"pipeline, {name}, {align}"] = np.asarray(fix(answer, source))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a checkout of the original")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the original's environment")
    parser.add_argument("--exchange", type=Path, help=argparse.SUPPRESS)  # the second process
    words = parser.parse_args()
    checkout = words.checkout.resolve()
    if words.exchange:
        np.savez(words.exchange / "theirs.npz", **theirs(words.exchange, checkout))
        return
    with tempfile.TemporaryDirectory() as name:
        found = ours(Path(name))
        command = [words.python, str(Path(__file__).resolve()), str(checkout), "--exchange", name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": ""})
        with np.load(Path(name) / "theirs.npz") as answers:
            for part, value in found.items():
                other = answers[part]
                largest = np.abs(value.astype(np.float64) - other.astype(np.float64)).max()
                if value.dtype == np.uint8:
                    share = np.mean(value != other)
                    unit = f" grey levels, {share:.2%} of them"
                else:
                    unit = f" of {np.abs(other).max():.3g}"
                print(f"{part}: shape {value.shape}, largest difference {largest:.2g}{unit}")


if __name__ == "__main__":
    main()
