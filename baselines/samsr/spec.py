"""What SAMSR is, as data."""

from __future__ import annotations

from bench.models import Environment, ModelSpec

_LICENCE = "none stated; derived from ResShift (S-Lab 1.0, non-commercial) and SinSR (CC BY-NC-SA 4.0)"

SAMSR = ModelSpec(
    name="samsr",
    adapter="baselines.samsr.adapter:SamSR",
    summary="SAMSR: one-step latent diffusion whose noise follows SAM's masks; x4, RGB",
    scale_factors=(4,),
    multiple=64,
    max_side_px=512,  # upstream's chop size and, below, what its chops overlap
    overlap_px=64,
    stochastic=True,
    dtypes=("float32",),
    default_options={"weights": "published", "version": "v1"},
    check_options={"weights": "random"},
    upstream="https://github.com/Liu-Zihang/SAMSR",
    commit="0db40487c557552c81bfea42af847ee129a06df9",  # the next and last one, b6efd88, raises on every image
    licence="no licence; from ResShift (non-commercial) and SinSR (CC BY-NC-SA 4.0)",
    allows="their owners have licensed neither code nor weights; what they are derived from allows no commercial use. "
    "rfbench ships none of it: you fetch both from their authors, and your use of them is between you and them",
    # Sizes without a hash: parameters x 4 bytes. No publisher gives a hash; of Segment Anything's file about ten public
    # copies agree on one.
    weights={
        "SamSR_v1.pth": {
            "bytes": 474_000_000,
            "sha256": "",
            "licence": _LICENCE,
            "source": "https://huggingface.co/zh-liu799/SAMSR/resolve/main/SamSR_v1.pth",
        },
        "SamSR_v2.pth": {
            "bytes": 474_000_000,
            "sha256": "",
            "licence": _LICENCE,
            "source": "https://huggingface.co/zh-liu799/SAMSR/resolve/main/SamSR_v2.pth",
        },
        # One public record alone gives its hash (e967eaa2...) and size, which is too few to hold others to it.
        "autoencoder_vq_f4.pth": {
            "bytes": 221_364_711,
            "sha256": "",
            "licence": "S-Lab License 1.0 (non-commercial)",
            "source": "https://github.com/zsyOAOA/ResShift/releases/download/v2.0/autoencoder_vq_f4.pth",
        },
        "sam_vit_b_01ec64.pth": {
            "bytes": 375_042_383,
            "sha256": "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            "licence": "Apache-2.0",
            "source": "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
        },
    },
    environment=Environment(
        shim="baselines.samsr.shim:SamSR", requirements="baselines/samsr/requirements.txt", checkout=True,
        item_s=7200,  # on a processor the masks of a tile take minutes
    ),
    paper={
        "table 1": {"PSNR": 18.36, "SSIM": 0.54, "FSIM": 0.74, "LPIPS": 0.48, "DISTS": 0.39, "FID": 189.01,
                    "NIQE": 11.84, "MANIQA": 0.32},
        "table 2": {"PSNR": 27.59, "SSIM": 0.65, "FSIM": 0.82, "LPIPS": 0.22, "DISTS": 0.23, "FID": 128.20,
                    "NIQE": 5.20, "MANIQA": 0.22},
    },
    status="weights untried",
    verified=(
        "0db4048, 2026-11-26: upstream's three networks, sampler and Segment Anything with random weights through the "
        "worker, on a processor with torch 2.14.1: 40x40 to 160x160 px in [0, 1], mean, deviation and a pixel the same "
        "for one seed twice (python -m tests.upstream.guests samsr:weights=random CLONE; minutes an image)",
    ),
    unverified=(
        "the published files have these names and shapes: rfbench weights fetch samsr && rfbench check model "
        "samsr:weights=published",
        "image quality: rfbench run --model samsr --protocol bicubic-4x --data DIR, beside upstream's inference.py "
        "(which halves the autoencoder's precision; here all is float32)",
        "which of the two versions the RareFlow paper ran: it does not say; v1 is the authors' for real images",
    ),
    citation="liu2025samsr",
)  # fmt: skip
