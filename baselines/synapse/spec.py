"""What SYNAPSE Flash and Pro are, as data. Imports nothing heavy."""

from __future__ import annotations

from baselines.opensr_test import on_opensr_test
from bench.models import RANDOM_TINY, WEIGHTS_OPTIONS, ModelSpec

PACKAGE = "synapse-sr==0.4.1"
FLASH_FILE, PRO_FILE = "synapse-flash-v1.safetensors", "synapse-pro-v2.safetensors"
_HUB = "https://huggingface.co/SharadhNaiduTrains/synapse-sr/resolve/main"


def _spec(name: str, adapter: str, summary: str, **own: object) -> ModelSpec:
    """What the two have in common."""
    return ModelSpec(
        name=name,
        adapter=f"baselines.synapse.adapter:{adapter}",
        summary=summary,
        bands=("R", "G", "B", "NIR", "B05", "B06", "B07", "B8A", "B11", "B12"),
        without_bands="choose data with all ten, the 20 m bands brought to the 10 m grid",
        unit="reflectance",
        output_unit="reflectance",
        scale_factors=(5,),
        # A model of the sensor whose kernels reach over three pixels stands in the middle of it; below, little is left.
        min_side_px=32,
        dtypes=("float32",),
        default_options=WEIGHTS_OPTIONS | {"tta": "no"},
        check_options=RANDOM_TINY,
        upstream="https://github.com/SharadhNaidu/synapse-sr",
        licence="CC0-1.0",
        allows="any use (CC0-1.0, code and weights)",
        requires=(PACKAGE,),
        extra="systems",
        status="weights untried",
        citation="naidu2026synapse",
        **own,  # type: ignore[arg-type]
    )


_PROVEN = (
    "synapse-sr 0.4.1, 2026-11-30: a checkpoint that the package's own class saves is loaded with none missing and "
    "none left over, and the package's super_resolve gives the same bits as the adapter, at the published size "
    "(python -m tests.upstream.synapse) and in a small one (pytest tests/unit/test_synapse.py)"
)

FLASH = _spec(
    "synapse-flash",
    "Flash",
    "SYNAPSE Flash: a small network whose answer the sensor's model corrects, with error bars; x5",
    weights={
        FLASH_FILE: {
            "bytes": 12_102_536, "licence": "CC0-1.0", "source": f"{_HUB}/Flash/{FLASH_FILE}",
            "sha256": "03009c3f0e490a2b353da5028d6b42d7ebcca90472b2c71197ae656677e682a8",
        },
    },
    published=(on_opensr_test(0.155, 0.748, 0.097, 0.300, 0.0234, 0.401, 0.0018),),
    verified=(
        _PROVEN,
        "2026-11-30: with kernels of 89x89, 268 tensors fill the published file's 12,102,536 bytes but for 48 of its "
        "header, and 595,656 numbers run, as the publisher says",
    ),
    unverified=(
        "that the published file holds these names: rfbench weights fetch synapse-flash && rfbench check model "
        "synapse-flash:weights=published",
        "image quality, and whether its error bars hold beyond the data that they were fitted on: rfbench run --model "
        "synapse-flash --protocol paired --data DIR",
    ),
)  # fmt: skip

PRO = _spec(
    "synapse-pro",
    "Pro",
    "SYNAPSE Pro: a state-space network whose answer the sensor's model corrects, with error bars; x5",
    weights={
        PRO_FILE: {
            "bytes": 58_047_072, "licence": "CC0-1.0", "source": f"{_HUB}/Pro/{PRO_FILE}",
            "sha256": "4badc676fc0fc549ae964bccb41b8c3d8c115be0279f6e6047acbb2549580c9b",
        },
    },
    published=(on_opensr_test(0.199, 0.631, 0.171, 0.289, 0.0254, 0.223, 0.0011),),
    verified=(
        _PROVEN,
        "2026-11-30: with kernels of 89x89, 1,241 tensors (14.44 M parameters) fill the published file's 58,047,072 "
        "bytes exactly",
    ),
    unverified=(
        "that the published file holds these names: rfbench weights fetch synapse-pro && rfbench check model "
        "synapse-pro:weights=published",
        "the authors' bfloat16, which they use on GPUs that have it: here float32 is all",
        "image quality: rfbench run --model synapse-pro --protocol paired --data DIR",
    ),
)  # fmt: skip
