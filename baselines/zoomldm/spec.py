"""ZoomLDM as data. Imports nothing heavy."""

from __future__ import annotations

from bench.models import RANDOM_TINY, WEIGHTS_OPTIONS, ModelSpec

_HUB = "https://huggingface.co"
CHECKPOINT, DINO = "zoomldm_naip_weights.ckpt", "dinov2_with_registers_large.safetensors"

SPEC = ModelSpec(
    name="zoomldm",
    adapter="baselines.zoomldm.adapter:ZoomLDM",
    summary="latent diffusion of aerial images at four zooms (CVPR 2025), constrained by the LR; sampler reimplemented",
    stochastic=True,
    max_out_side_px=512,
    overlap_px=8,
    dtypes=("float32", "float16"),
    default_options={
        **WEIGHTS_OPTIONS, "condition": "inversion", "invert_steps": "200", "zoom": "auto", "scales": "auto",
        "push": "encoder", "stride": "50", "inner": "5", "rate": "0.5", "difference": "0.005", "guidance": "auto",
        "finish": "300",
    },
    check_options={
        **RANDOM_TINY, "invert_steps": "1", "stride": "1000", "inner": "1", "difference": "0.1", "finish": "100",
    },
    upstream="https://github.com/cvlab-stonybrook/ZoomLDM",
    commit="faca5d814ca93d4cdf71be3557416a9fed9fd199",
    licence="MIT (code); its weights state none; DINOv2 Apache-2.0",
    allows="code: any use with the notice kept (MIT); weights: their publisher states no licence, so ask before more "
    "than research",
    weights={
        # Sizes: 400.92 M parameters twice, 38.65 M and 55.32 M; 304.4 M. No hash is published with either.
        CHECKPOINT: {
            "bytes": 3_590_000_000, "sha256": "", "licence": "none stated",
            "source": f"{_HUB}/StonyBrook-CVLab/ZoomLDM/resolve/main/naip/weights.ckpt",
        },
        DINO: {
            "bytes": 1_217_500_000, "sha256": "", "licence": "Apache-2.0",
            "source": f"{_HUB}/facebook/dinov2-with-registers-large/resolve/main/model.safetensors",
        },
    },
    paper={
        "table 1": {"PSNR": 17.23, "SSIM": 0.26, "FSIM": 0.47, "LPIPS": 0.60, "DISTS": 0.59, "FID": 352.11,
                    "NIQE": 18.10, "MANIQA": 0.19},
        "table 2": {"PSNR": 21.60, "SSIM": 0.54, "FSIM": 0.66, "LPIPS": 0.47, "DISTS": 0.51, "FID": 232.80,
                    "NIQE": 8.10, "MANIQA": 0.11},
    },
    status="weights untried",
    verified=(
        "2026-11-26, upstream at faca5d8, small random networks in a checkpoint that upstream's classes wrote "
        "(tests/upstream/zoomldm.py): its names load completely, the UNet differs by 3e-6, the autoencoder by 4e-6, "
        "the summariser by 0 for all four grids",
        "2026-11-30, the sampler with push=decoder against the published notebook's cell (fast-constrained-sampling at "
        "dc59d71) on a small random network: 3e-9 in double precision after 20 times and 200 inner steps; the last "
        "sampling through windows against postprocess_image of ZoomLDM at faca5d8: 6e-7 of 6 (the same script)",
        "full size on the meta device: UNet 400.92 M parameters, autoencoder 55.32 M, summariser 38.65 M, as upstream",
    ),
    unverified=(
        "that the published file holds these names: rfbench weights fetch zoomldm, then rfbench check model "
        "zoomldm:weights=published",
        "how near inversion and joint sampling come to the two notebooks of ZoomLDM, which could not be read: their "
        "numbers (200 steps of Adam at 0.1, times 950 to 50, a weight of sqrt(a)(1-a), a likeness of 0.05, guidance 2, "
        "5 inner steps, rate 0.5, finish from 300) are those of a public fork's copies",
        "that zoom 0 is 1 m: its author names Chesapeake NAIP (issue 4 of its repository)",
        "image quality, and the paper's rows: rfbench run --model zoomldm --protocol bicubic-4x --data DIR",
    ),
    reimplementation="ZoomLDM's condition inversion and joint sampling of scales (arXiv:2411.16969), its "
    "large_image_gen at faca5d8, and Graikos et al., Fast constrained sampling in pre-trained diffusion models, "
    "NeurIPS 2025 (fast-constrained-sampling at dc59d71)",
    citation="yellapragada2025zoomldm graikos2025fast rombach2022ldm oquab2024dinov2 vonplaten2022diffusers",
)  # fmt: skip
