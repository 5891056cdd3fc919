"""What AdcSR is, as data."""

from __future__ import annotations

from bench.models import RANDOM_TINY, WEIGHTS_OPTIONS, ModelSpec

_HUB = "https://huggingface.co/Guaishou74851/AdcSR/resolve/main/weight"

ADCSR = ModelSpec(
    name="adcsr",
    adapter="baselines.adcsr.adapter:AdcSR",
    summary="AdcSR: one step of a pruned SD 2.1 UNet and half a VAE decoder; x4, RGB",
    scale_factors=(4,),
    # A public exporter of the real files met NaN in float16 on smooth tiles; nobody has shown bfloat16 to be right.
    dtypes=("float32",),
    default_options=WEIGHTS_OPTIONS | {"tile_px": ""},
    check_options=RANDOM_TINY,
    upstream="https://github.com/Guaishou74851/AdcSR",
    commit="d0b2871e3de9f877e4aebb9bfaf23227b22ac25d",
    licence="Apache-2.0 (code); weights pruned from Stable Diffusion 2.1-base (openrail++)",
    allows="code: any use with the notice kept (Apache-2.0); weights: their licence was not verified, see their hub "
    "page; they were pruned from Stable Diffusion 2.1-base (openrail++: conditions on what for)",
    weights={
        # Sizes: 446.3 M float32 parameters; the hub's listing (378 MB). No hash is published with either.
        "net_params_200.pkl": {
            "bytes": 1_790_000_000,
            "sha256": "",
            "licence": "not verified (see the hub page); pruned from SD 2.1-base (openrail++)",
            "source": f"{_HUB}/net_params_200.pkl",
        },
        "halfDecoder.ckpt": {
            "bytes": 378_000_000,
            "sha256": "",
            "licence": "not verified (see the hub page); pruned from SD 2.1-base (openrail++)",
            "source": f"{_HUB}/pretrained/halfDecoder.ckpt",
        },
    },
    paper={
        "table 1": {"PSNR": 18.59, "SSIM": 0.58, "FSIM": 0.71, "LPIPS": 0.40, "DISTS": 0.37, "FID": 187.18,
                    "NIQE": 8.38, "MANIQA": 0.28},
        "table 2": {"PSNR": 26.59, "SSIM": 0.65, "FSIM": 0.80, "LPIPS": 0.27, "DISTS": 0.29, "FID": 191.50,
                    "NIQE": 5.91, "MANIQA": 0.28},
    },
    status="weights untried",
    verified=(
        "d0b2871, 2026-11-26: network and colour fix against upstream's own code on the same random weights, at the "
        "published size and a narrow one, 16x16 to 64x32 px: at most 3e-5 of the answer's deviation apart "
        "(python -m tests.upstream.adcsr CHECKOUT --full)",
        "d0b2871, 2026-11-26: the state that upstream's class saves (1076 entries, 446.3 M parameters) is converted "
        "with none missing and none left over (the same command)",
        "d0b2871, 2026-12-01: rfbench check model adcsr --against-upstream at the published size, with random weights "
        "in files as upstream's classes save them: answers in [0, 1] differ by at most 6e-6",
    ),
    unverified=(
        "the published files have these names and shapes: rfbench weights fetch adcsr && rfbench check model "
        "adcsr:weights=published",
        "that answers with the published files are the authors': rfbench check model adcsr --against-upstream",
        "image quality: rfbench run --model adcsr --protocol bicubic-4x --data DIR, beside upstream's test.py",
    ),
    citation="chen2025adcsr rombach2022ldm vonplaten2022diffusers",
)  # fmt: skip
