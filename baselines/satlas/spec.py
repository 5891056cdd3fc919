"""What Satlas's ESRGAN is, as data. Imports nothing heavy."""

from __future__ import annotations

from baselines.opensr_test import on_opensr_test
from bench.models import RANDOM_TINY, WEIGHTS_OPTIONS, ModelSpec

_STORE = "https://pub-25c498004d1e4d4c8da69b2c05676836.r2.dev"
DATES = (1, 2, 4, 8, 16)


def weights_file(dates: int) -> str:
    """The file of the network that reads so many dates."""
    return f"esrgan_{dates}S2.pth"


SATLAS = ModelSpec(
    name="satlas-esrgan",
    adapter="baselines.satlas.adapter:Satlas",
    summary="Satlas ESRGAN: 1 to 16 dates of Sentinel-2 in the tones of its true-colour image; x4, NAIP's look",
    unit="reflectance",
    output_unit="reflectance",
    scale_factors=(4,),
    overlap_px=16,
    dtypes=("float32",),
    default_options=WEIGHTS_OPTIONS | {"dates": "1", "tile_px": ""},
    check_options=RANDOM_TINY,
    upstream="https://github.com/allenai/satlas-super-resolution",
    commit="3da15256d2b88b50d9bc87d2fe944cb861154c42",
    licence="Apache-2.0",
    allows="any use with the notice kept (Apache-2.0, code and weights)",
    weights={
        # Size: 16.7 M float32 parameters, and the same again averaged over training. No hash is published with them.
        weights_file(dates): {
            "bytes": 134_000_000, "sha256": "", "licence": "Apache-2.0", "source": f"{_STORE}/{weights_file(dates)}",
        }
        for dates in DATES
    },
    published=(on_opensr_test(0.129, 0.181, 0.690, 0.089, 0.0443, 7.787, 0.0242),),
    status="weights untried",
    verified=(
        "3da1525, 2026-11-30: the generator at the published size against upstream's own code on the same random "
        "weights, for 1, 2, 4, 8 and 16 dates, 20x24 px: the same bits (python -m tests.upstream.satlas CHECKOUT)",
    ),
    unverified=(
        "the published files have these names and shapes: rfbench weights fetch satlas-esrgan && rfbench check model "
        "satlas-esrgan:weights=published",
        "that answers with the published files are the authors': rfbench check model satlas-esrgan --against-upstream",
        "image quality: rfbench run --model satlas-esrgan --model satlas-esrgan:dates=8 --protocol paired --data DIR, "
        "beside upstream's ssr/infer.py",
        "how much it loses on L2A data: it was trained on L1C's true-colour images alone, and its answer has NAIP's "
        "tones, which are not the LR's",
    ),
    citation="wolters2023zooming wang2018esrgan",
)  # fmt: skip
