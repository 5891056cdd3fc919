"""What OpenSR (LDSR-S2) is, as data."""

from __future__ import annotations

from baselines.opensr_test import on_opensr_test
from bench.models import RANDOM_TINY, WEIGHTS_OPTIONS, ModelSpec

PACKAGE = "opensr-model==1.0.8"
"""Exactly: 1.1 and later sample otherwise by default (three steps of another solver), and give other images."""

OPENSR = ModelSpec(
    name="opensr",
    adapter="baselines.opensr.adapter:OpenSR",
    summary="OpenSR LDSR-S2: latent diffusion on four Sentinel-2 bands in reflectance; x4",
    bands=("R", "G", "B", "NIR"),
    without_bands="choose what stands for NIR by opensr:nir=copy_red, or nir=from_ndvi with a band NDVI",
    unit="reflectance",
    output_unit="reflectance",
    scale_factors=(4,),
    # The one size that the network was trained on and upstream's sampler is right for.
    multiple=128,
    min_side_px=128,
    max_side_px=128,
    square=True,
    overlap_px=16,
    stochastic=True,
    dtypes=("float32",),
    default_options=WEIGHTS_OPTIONS
    | {"nir": "band", "steps": "100", "eta": "0.95", "temperature": "1", "histogram": "yes", "uncertainty": "0"},
    # Matching histograms goes by ranks: a last digit of the network becomes a step between two grey levels of the LR,
    # which with few pixels is more than the checks of threads allow.
    check_options=RANDOM_TINY | {"steps": "2", "histogram": "no"},
    requires=(PACKAGE,),
    extra="systems",
    upstream="https://github.com/ESAOpenSR/opensr-model",
    commit="8d27197bc7b36c8d0d5a6c03525a1630ab3091bc",
    licence="MIT",
    allows="code: any use with the notice kept (MIT); weights: their licence was not verified, see their hub page",
    weights={
        # Size: 168.96 M float32 parameters and 113.64 M of their moving average. No hash is published with it.
        "opensr-ldsrs2_v1_0_0.ckpt": {
            "bytes": 1_130_000_000,
            "sha256": "",
            "licence": "not verified (see the hub page)",
            "source": "https://huggingface.co/simon-donike/RS-SR-LTDF/resolve/main/opensr-ldsrs2_v1_0_0.ckpt",
        },
    },
    paper={
        "table 1": {"PSNR": 17.29, "SSIM": 0.51, "FSIM": 0.66, "LPIPS": 0.41, "DISTS": 0.36, "FID": 225.62,
                    "NIQE": 9.80, "MANIQA": 0.25},
    },
    published=(on_opensr_test(0.197, 0.599, 0.204, 0.206, 0.0240, 1.015, 0.0036),),
    status="weights untried",
    verified=(
        "v1.0.8 (8d27197), 2026-11-26: the package's own forward gives the same bits for the same noise and random "
        "weights, at the published size (128x128 px; python -m tests.upstream.opensr) and in a small network; its "
        "uncertainty map agrees to 1e-6 there (pytest tests/unit/test_opensr.py)",
        "v1.0.8 (8d27197), 2026-11-26: 168.96 M parameters; a checkpoint with the package's names and a trainer's "
        "classes loads with none missing and none left over (the same tests)",
    ),
    unverified=(
        "the published file has these names and shapes: rfbench weights fetch opensr && rfbench check model "
        "opensr:weights=published,steps=2",
        "image quality: rfbench run --model opensr --protocol paired --data DIR, beside the package's demo.py",
        "whether the RareFlow paper used this version, and what stood for NIR in its RGB data",
    ),
    citation="donike2025ldsrs2",
)  # fmt: skip
