"""What MISR-S2 is, as data."""

from __future__ import annotations

from bench.models import Environment, ModelSpec

MISR_S2 = ModelSpec(
    name="misr-s2",
    adapter="baselines.misr_s2.adapter:MisrS2",
    summary="MISR-S2: SRDiff on a Sentinel-2 time series; x4, RGB reflectance; your own checkpoint",
    unit="reflectance",
    output_unit="reflectance",
    scale_factors=(4,),
    multiple=2,
    square=True,  # it swaps height and width on the way
    max_side_px=128,
    stochastic=True,
    input_kind="series",
    dtypes=("float32",),
    default_options={
        "checkpoint": "", "config": "", "network": "ltae", "variant": "srdiff", "series": "dataset",
        "weights": "own",
    },
    check_options={"weights": "random", "variant": "regressor"},
    needs_options=("checkpoint",),
    path_options=("checkpoint", "config"),
    upstream="https://github.com/aimiokab/MISR-S2",
    commit="344b4814b7a11f01dae571ce96c33c59f74b01b0",
    licence="GPL-3.0",
    allows="code: any use; who passes on a program that contains it does so under the GPL-3.0 (rfbench does not "
    "contain it); weights: none are published, so yours are yours",
    environment=Environment(
        shim="baselines.misr_s2.shim:MisrS2", requirements="baselines/misr_s2/requirements.txt", checkout=True
    ),
    paper={
        "table 1": {"PSNR": 18.39, "SSIM": 0.50, "FSIM": 0.68, "LPIPS": 0.54, "DISTS": 0.43, "FID": 254.70,
                    "NIQE": 13.55, "MANIQA": 0.33},
    },
    status="no public weights",
    verified=(
        "344b481, 2026-11-26: upstream's networks with random weights through the worker, on a processor with torch "
        "2.14.1: both regressors, 40x40 to 160x160 px, the same twice; SRDiff's 500 steps on eight dates, 16x16 to "
        "64x64 px (python -m tests.upstream.guests misr-s2:weights=random CLONE)",
        "344b481, 2026-12-01, in the same way with torch 2.15.0: plain HighRes-net and the ESRGAN "
        "with temporal attention, eight dates of 16x16 px to 64x64 px, the same twice; HighRes-net with SRDiff, once",
    ),
    unverified=(
        "the RareFlow paper's row cannot be made again without training: in upstream's configuration 400,000 updates "
        "of the encoder and 400,000 of SRDiff, on BreizhSR (Zenodo record 11551220)",
        "a trained checkpoint loads: rfbench check model misr-s2:checkpoint=model_ckpt_steps_400000.ckpt",
        "image quality: beside upstream's own evaluation of that checkpoint on BreizhSR",
        "what series, network and checkpoint the RareFlow paper ran: it does not say",
    ),
    citation="okabayashi2024misr",
)  # fmt: skip
