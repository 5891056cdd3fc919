"""What SEN2SR and SEN2SRLite are, as data. Imports nothing heavy."""

from __future__ import annotations

from typing import Any

from baselines.opensr_test import on_opensr_test
from bench.models import RANDOM_TINY, WEIGHTS_OPTIONS, ModelSpec

_HUB = "https://huggingface.co/tacofoundation/sen2sr/resolve/main"
NETWORK, MASK = "sen2srlite_rgbn_x4.safetensors", "sen2srlite_rgbn_x4_mask.safetensors"
LARGE_NETWORK, LARGE_MASK = "sen2sr_rgbn_x4.safetensors", "sen2sr_rgbn_x4_mask.safetensors"
WINDOW_PX = 128
"""The side of the windows that the mask of the constraint is made for, and that the package cuts with an overlap."""


def _spec(name: str, adapter: str, summary: str, **own: Any) -> ModelSpec:
    """What the two have in common."""
    return ModelSpec(
        name=name,
        adapter=f"baselines.sen2sr.adapter:{adapter}",
        summary=summary,
        bands=("R", "G", "B", "NIR"),
        without_bands="choose data that has it",
        unit="reflectance",
        output_unit="reflectance",
        scale_factors=(4,),
        multiple=WINDOW_PX,
        min_side_px=WINDOW_PX,
        max_side_px=WINDOW_PX,
        square=True,
        overlap_px=32,
        dtypes=("float32",),
        default_options=WEIGHTS_OPTIONS | {"constraint": "yes"},
        check_options=RANDOM_TINY,
        upstream="https://github.com/ESAOpenSR/SEN2SR",
        commit="8e21bb669bcc6e8eb953a1fb24dfc5bb59dc18a4",
        licence="CC0-1.0",
        allows="any use (CC0-1.0, code and weights)",
        status="weights untried",
        **own,
    )


SEN2SR_LITE = _spec(
    "sen2sr-lite",
    "Sen2srLite",
    "SEN2SRLite: a small convolutional network on R G B NIR, held to the LR's low frequencies; x4",
    weights={
        # The publisher names the files model.safetensor and hard_constraint.safetensor and gives no hash; three public
        # repositories that hold their copies to a hash agree on both (i.sen2sr.opencl, trustsr, FRAME). The package's
        # way to get them runs a script that it fetches, ours does not.
        NETWORK: {
            "bytes": 2_308_216, "licence": "CC0-1.0",
            "source": f"{_HUB}/SEN2SRLite/NonReference_RGBN_x4/model.safetensor",
            "sha256": "479aa796d5068d0b1206118ccbca27bd3223df0214db1a9b31a1e18349ed1c7e",
        },
        MASK: {
            "bytes": 1_048_656, "licence": "CC0-1.0",
            "source": f"{_HUB}/SEN2SRLite/NonReference_RGBN_x4/hard_constraint.safetensor",
            "sha256": "fbad981519066387c413ead1d6af7ef3e0d2947c34147ba90163fc79ae539239",
        },
    },
    published=(on_opensr_test(0.152, 0.749, 0.099, 0.290, 0.0234, 0.463, 0.0019),),
    verified=(
        "8e21bb6, 2026-11-30: network at the published size and constraint against upstream's own code on the same "
        "random weights, 128x128 px: at most 4e-6 of the answer's deviation apart (python -m tests.upstream.sen2sr "
        "CHECKOUT)",
        "2026-11-30: the network's 204 tensors with a header of their names are 2,308,216 bytes, the size of the "
        "publisher's file",
    ),
    unverified=(
        "the published files have these names and shapes: rfbench weights fetch sen2sr-lite && rfbench check model "
        "sen2sr-lite:weights=published",
        "that answers with the published files are the authors': rfbench check model sen2sr-lite --against-upstream",
        "image quality: rfbench run --model sen2sr-lite --protocol paired --data DIR, beside the package's README",
    ),
    citation="aybar2025sen2sr wan2024span",
)  # fmt: skip

SEN2SR = _spec(
    "sen2sr",
    "Sen2sr",
    "SEN2SR: a state-space network on R G B NIR, held to the LR's low frequencies; x4",
    weights={
        # Sizes: 13.76 million float32 parameters with a header of 1,228 names, and a mask of 512x512. One public
        # record alone gives a hash of a copy (FRAME: 11e551b0...), which is too few to hold others to it.
        LARGE_NETWORK: {
            "bytes": 55_190_000, "sha256": "", "licence": "CC0-1.0",
            "source": f"{_HUB}/SEN2SR/NonReference_RGBN_x4/model.safetensor",
        },
        LARGE_MASK: {
            "bytes": 1_048_700, "sha256": "", "licence": "CC0-1.0",
            "source": f"{_HUB}/SEN2SR/NonReference_RGBN_x4/hard_constraint.safetensor",
        },
    },
    published=(on_opensr_test(0.150, 0.759, 0.091, 0.284, 0.0235, 0.665, 0.0025),),
    verified=(
        "8e21bb6, 2026-11-30: the published size against upstream's own code on the same random weights, 10x14 px, "
        "with a plain scan in the place of mamba-ssm's compiled one: at most 9e-6 of the answer's deviation apart "
        "(python -m tests.upstream.sen2sr CHECKOUT --large)",
        "2026-11-30: 1,228 tensors with 13,759,444 numbers, as others count in the published file",
    ),
    unverified=(
        "the published files have these names and shapes: rfbench weights fetch sen2sr && rfbench check model "
        "sen2sr:weights=published",
        "that answers with the published files are the authors': rfbench check model sen2sr --against-upstream (with "
        "mamba-ssm, else with a scan of ours in the authors' network)",
        "image quality: rfbench run --model sen2sr --protocol paired --data DIR, beside the package's README",
    ),
    citation="aybar2025sen2sr guo2024mambair",
)  # fmt: skip
