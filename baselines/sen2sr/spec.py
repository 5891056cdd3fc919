"""What SEN2SRLite is, as data. Imports nothing heavy."""

from __future__ import annotations

from baselines.opensr_test import on_opensr_test
from bench.models import RANDOM_TINY, WEIGHTS_OPTIONS, ModelSpec

_HUB = "https://huggingface.co/tacofoundation/sen2sr/resolve/main/SEN2SRLite/NonReference_RGBN_x4"
NETWORK, MASK = "sen2srlite_rgbn_x4.safetensors", "sen2srlite_rgbn_x4_mask.safetensors"

SEN2SR_LITE = ModelSpec(
    name="sen2sr-lite",
    adapter="baselines.sen2sr.adapter:Sen2srLite",
    summary="SEN2SRLite: a small convolutional network on R G B NIR, held to the LR's low frequencies; x4",
    bands=("R", "G", "B", "NIR"),
    without_bands="choose data that has it",
    unit="reflectance",
    output_unit="reflectance",
    scale_factors=(4,),
    # The mask of the constraint is made for windows of this size, which the package cuts with this overlap.
    multiple=128,
    min_side_px=128,
    max_side_px=128,
    square=True,
    overlap_px=32,
    dtypes=("float32",),
    default_options=WEIGHTS_OPTIONS | {"constraint": "yes"},
    check_options=RANDOM_TINY,
    upstream="https://github.com/ESAOpenSR/SEN2SR",
    commit="8e21bb669bcc6e8eb953a1fb24dfc5bb59dc18a4",
    licence="CC0-1.0",
    allows="any use (CC0-1.0, code and weights)",
    weights={
        # Sizes: 577 thousand float32 parameters, and a mask of 512x512. The publisher names the files model.safetensor
        # and hard_constraint.safetensor; the package's way to get them runs a script that it fetches, ours does not.
        NETWORK: {
            "bytes": 2_310_000, "sha256": "", "licence": "CC0-1.0", "source": f"{_HUB}/model.safetensor",
        },
        MASK: {
            "bytes": 1_048_700, "sha256": "", "licence": "CC0-1.0", "source": f"{_HUB}/hard_constraint.safetensor",
        },
    },
    published=(on_opensr_test(0.152, 0.749, 0.099, 0.290, 0.0234, 0.463, 0.0019),),
    status="weights untried",
    verified=(
        "8e21bb6, 2026-11-30: network at the published size and constraint against upstream's own code on the same "
        "random weights, 128x128 px: at most 4e-6 of the answer's deviation apart (python -m tests.upstream.sen2sr "
        "CHECKOUT)",
        "2026-11-30: the network's 204 tensors are 2,289,344 bytes, which with a header of names is the size that the "
        "publisher's file has (2.31 MB)",
    ),
    unverified=(
        "the published files have these names and shapes: rfbench weights fetch sen2sr-lite && rfbench check model "
        "sen2sr-lite:weights=published",
        "that answers with the published files are the authors': rfbench check model sen2sr-lite --against-upstream",
        "image quality: rfbench run --model sen2sr-lite --protocol paired --data DIR, beside the package's README",
    ),
    citation="aybar2025sen2sr wan2024span",
)  # fmt: skip
