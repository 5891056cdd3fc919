"""OSEDiff against its own code, on the same small random networks and the same noise.

    git clone https://github.com/cswry/OSEDiff && git -C OSEDiff checkout fcc4f09c7ed66a9bc0ba9433940d76b343142426
    python -m venv --system-site-packages osediff-env
    osediff-env/bin/pip install --no-deps diffusers==0.25.0 transformers==4.28.1 tokenizers==0.13.3 peft==0.9.0 \
        huggingface_hub==0.20.3 accelerate==0.25.0 numpy==1.26.4
    python -m tests.upstream.osediff OSEDiff --python osediff-env/bin/python

The original does not import under later versions of diffusers, so it runs first, in a process of its own. It makes a
base model and the updates of its own training code, saves them as its own trainer does, and answers; our adapter opens
its files by the way that opens the published ones. Upstream asks for CUDA by name; here its tensors stay on the
processor.
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

SEED, RANK, WIDTH = 7, 4, 32
TAGS = "river, snow"
TOLERANCE = 1e-4  # of images in [0, 1]: rounding of the same sums in another order
VAE_TILES = {"vae_encoder_px": 64, "vae_decoder_cells": 16}
CASES = {  # (height, width) of the LR, times 4 and process size; latent tile and overlap in cells
    "whole": ((24, 36), 64, 96, 32), "tiles": ((24, 36), 64, 8, 2), "enlarged": ((9, 13), 64, 96, 32),
}  # fmt: skip


def theirs(folder: Path, checkout: Path) -> None:
    """Write the original's files and answers; runs in its environment, and imports nothing of ours."""
    sys.path.insert(0, str(checkout))
    os.chdir(checkout)
    import torch
    from PIL import Image
    from torch.overrides import TorchFunctionMode
    from torchvision import transforms
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    def here(value: object) -> object:
        return "cpu" if isinstance(value, str | torch.device) and str(value).startswith("cuda") else value

    class OnProcessor(TorchFunctionMode):
        """Whoever asks for CUDA gets the processor."""

        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func is torch.Tensor.cuda:
                return args[0]
            named = {k: here(v) for k, v in (kwargs or {}).items()}
            return func(*map(here, args), **named)

    import my_utils.devices as devices
    import osediff
    from my_utils.wavelet_color_fix import adain_color_fix, wavelet_color_fix

    devices.device = torch.device("cpu")
    torch.manual_seed(SEED)
    base = folder / "base"
    unet = osediff.UNet2DConditionModel(
        in_channels=4, out_channels=4, block_out_channels=(32, 32, 64, 64), layers_per_block=1, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), attention_head_dim=(2, 2, 4, 4),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, cross_attention_dim=WIDTH,
        use_linear_projection=True,
    )  # fmt: skip
    vae = osediff.AutoencoderKL(
        block_out_channels=(32,) * 4, layers_per_block=2, latent_channels=4, norm_num_groups=32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77, pad_token="!")
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=2,
            num_attention_heads=2, hidden_act="gelu", projection_dim=512, bos_token_id=0, eos_token_id=2,
            pad_token_id=1,
        )
    )  # fmt: skip
    scheduler = osediff.DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1,
    )  # fmt: skip
    parts = {"unet": unet, "vae": vae, "text_encoder": text, "tokenizer": tokenizer, "scheduler": scheduler}
    for name, part in parts.items():
        part.save_pretrained(base / name, **({"safe_serialization": True} if part is text else {}))
    args = SimpleNamespace(
        pretrained_model_name_or_path=str(base), lora_rank=RANK, osediff_path=str(folder / "osediff.pkl"),
        mixed_precision="fp32", merge_and_unload_lora=False, vae_encoder_tiled_size=VAE_TILES["vae_encoder_px"],
        vae_decoder_tiled_size=VAE_TILES["vae_decoder_cells"], latent_tiled_size=96, latent_tiled_overlap=32,
    )  # fmt: skip
    trained = SimpleNamespace(lora_rank_unet=RANK, lora_rank_vae=RANK)
    trained.vae, trained.lora_vae_modules_encoder = osediff.initialize_vae(args)
    trained.unet, *modules = osediff.initialize_unet(args)
    trained.lora_unet_modules_encoder, trained.lora_unet_modules_decoder, trained.lora_unet_others = modules
    with torch.no_grad():
        for net in (trained.unet, trained.vae):
            for name, parameter in net.named_parameters():
                if "lora" in name or "conv_in" in name:  # peft's second factors begin at zero
                    parameter.normal_(std=0.3 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.05)
    osediff.OSEDiff_gen.save_model(trained, args.osediff_path)

    lrs = np.load(folder / "lr.npz")
    found = {}
    with OnProcessor():
        torch.cuda.is_available = lambda: False
        model = osediff.OSEDiff_test(args)
        model.device = torch.device("cpu")
        for name, (size, process_px, tile, overlap) in CASES.items():
            args.latent_tiled_size, args.latent_tiled_overlap = tile, overlap
            image = Image.fromarray(lrs[name])
            # As its main(), which is no function: to the least size, by the factor, down to whole cells.
            if min(size) < process_px // 4:
                scale = (process_px // 4) / min(image.size)
                image = image.resize((int(scale * image.width), int(scale * image.height)))
            image = image.resize((image.width * 4, image.height * 4))
            image = image.resize(tuple(n - n % 8 for n in image.size), Image.LANCZOS)
            found[f"{name}: enlarged"] = np.asarray(image)
            rgb = transforms.ToTensor()(image)[None]
            torch.manual_seed(SEED)
            answer = model(rgb * 2 - 1, prompt=f"{TAGS}, ,")
            found[name] = (answer[0] * 0.5 + 0.5).permute(1, 2, 0).numpy()
            picture = transforms.ToPILImage()(answer[0] * 0.5 + 0.5)
            for align, fix in (("adain", adain_color_fix), ("wavelet", wavelet_color_fix)):
                found[f"{name}, {align}"] = np.asarray(fix(target=picture, source=image))
    np.savez(folder / "theirs.npz", **found)


def ours(folder: Path) -> dict[str, np.ndarray]:
    """Our adapter's answers with the original's files."""
    import torch
    from PIL import Image
    from safetensors import safe_open

    from baselines.osediff import adapter, sampler
    from baselines.seesr import text
    from baselines.seesr.network import SMALL
    from baselines.seesr.sampler import condition_image

    with safe_open(folder / "base" / adapter.BASE_FILES[adapter.TEXT], "np") as file:
        words = file.get_slice("text_model.embeddings.token_embedding.weight").get_shape()[0]
    build = text.build_text_encoder
    adapter.FULL, text.build_text_encoder = SMALL, lambda width, _: build(width, words)
    options = {"base": str(folder / "base"), "tags": "manual", "text": TAGS}
    model = adapter.OSEDiff(**adapter.SPEC.default_options | options)
    model._find_weights = lambda file: folder / file
    model.load("cpu", "float32")
    found = {}
    prompt = model.embedding(f"{TAGS}, ,")
    lrs = np.load(folder / "lr.npz")
    for name, (_, process_px, tile, overlap) in CASES.items():
        image = condition_image(lrs[name], 4, process_px, Image.Resampling.LANCZOS)
        found[f"{name}: enlarged"] = np.asarray(image)
        torch.manual_seed(SEED)
        noise = torch.randn(1, 4, image.height // 8, image.width // 8)[0]
        for align in ("nofix", "adain", "wavelet"):
            settings = sampler.Settings(align=align, tile_cells=tile, overlap_cells=overlap, **VAE_TILES)
            answer = sampler.answer(image, prompt, noise, model.unet, model.vae, settings)
            key = name if align == "nofix" else f"{name}, {align}"
            found[key] = answer if align == "nofix" else np.floor(answer * 255).astype(np.uint8)  # as the original
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a checkout of the original")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the original's environment")
    parser.add_argument("--exchange", type=Path, help=argparse.SUPPRESS)  # the second process
    words = parser.parse_args()
    checkout = words.checkout.resolve()
    if words.exchange:
        theirs(words.exchange, checkout)
        return
    from tests.sd3_folder import _clip_tokenizer

    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), np.random.default_rng(SEED)
        _clip_tokenizer(folder / "tokenizer", pad="!")
        lrs = {case: rng.integers(0, 256, (*size, 3), np.uint8) for case, (size, *_) in CASES.items()}
        np.savez(folder / "lr.npz", **lrs)
        environ = {**os.environ, "PYTHONPATH": "", "TQDM_DISABLE": "1"}
        command = [words.python, str(Path(__file__).resolve()), str(checkout), "--exchange", name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environ)
        answers, wrong = dict(np.load(folder / "theirs.npz")), False
        for part, value in ours(folder).items():
            largest = np.abs(value.astype(np.float64) - answers[part].astype(np.float64)).max()
            unit = f" grey levels, {np.mean(value != answers[part]):.2%} of them" if value.dtype == np.uint8 else ""
            print(f"{part}: shape {value.shape}, largest difference {largest:.2g}{unit}")
            wrong |= bool(largest > (2 if value.dtype == np.uint8 else TOLERANCE))
    sys.exit(wrong)


if __name__ == "__main__":
    main()
