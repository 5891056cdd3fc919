"""What training SD3's control needs of a GPU's memory, counted: weights on no device, and activations by a rule.

    python -m tests.bench.sd3_memory

Weights, gradients, moments and averages are counted from the networks' own parameters. Activations are estimated:
34 x tokens x width bytes a block and sample in bfloat16 (Korthikanti et al., arXiv:2205.05198, eq. 2, without the
part of attention that flash attention does not store), a tenth of it with gradient checkpointing. What the decoder
that eq. 10-11 look through takes, and 2 GB that belong to no sample, are set so that the rule meets the four training
steps that ``sd3_size`` measured on an H100 (``results/benchmarks.md``); the last lines hold it against them. 8-bit
moments and averages on the host were not measured.
"""

from __future__ import annotations

import torch

from rareflow.config import with_changes
from tests.bench.sizes import config_of, random_model

_GB = 1e9
_WIDTH, _BLOCKS, _TEXT_TOKENS, _TEXT_GB, _OTHER_GB = 1536, 24, 333, 11.1, 2.0
_DECODER_GB = {(256, False): 0.45, (256, True): 0.5, (512, False): 4.6, (512, True): 2.1}  # by px and checkpointing
_MEASURED_GIB = (
    (256, 4, False, 27.6),
    (512, 4, False, 48.2),
    (512, 8, True, 39.3),
    (256, 1, True, 24.0),
)  # without EMA


def parameters(layers: int) -> dict[str, int]:
    """Numbers of parameters by part, with a control of ``layers`` blocks."""
    model = random_model(with_changes(config_of("sd3"), {"control": {"layers": layers}}), "meta", torch.bfloat16)
    parts = {"transformer": model.field.transformer, "vae": model.codec.vae, "control": model.field.control}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items() if part is not None}


def activations_gb(px: int, layers: int, checkpointing: bool) -> float:
    """Of one sample."""
    tokens = (px // 16) ** 2 + _TEXT_TOKENS
    blocks = 34 * tokens * _WIDTH * (_BLOCKS + layers) / _GB
    return blocks * (0.1 if checkpointing else 1.0) + _DECODER_GB[px, checkpointing]


def row(title: str, px: int, layers: int, *, eight_bit: bool, host: bool, checkpointing: bool) -> str:
    """A row of the table."""
    count = parameters(layers)
    base = (2 * count["transformer"] + 4 * count["vae"]) / _GB + _OTHER_GB
    trained = count["control"] / _GB
    weights, gradients, moments, average = 4 * trained, 4 * trained, (2 if eight_bit else 8) * trained, 4 * trained
    fixed = base + weights + gradients + moments + (0 if host else average)
    sample = activations_gb(px, layers, checkpointing)
    fits = [max(0, int((size * 0.95 - fixed) / sample)) for size in (24, 48, 80)]
    cells = [f"{base:.1f}", f"{weights + gradients:.1f}", f"{moments:.1f}", "host" if host else f"{average:.1f}",
             f"{sample:.2f}", *(str(n) if n else "–" for n in fits)]  # fmt: skip
    return f"| {title} | {' | '.join(cells)} |"


def main() -> None:
    print(
        "| control, px, options | base, GB | weights + gradients | moments | EMA | a sample | 24 GB | 48 GB | 80 GB |"
    )
    print("|:--|--:|--:|--:|--:|--:|--:|--:|--:|")
    plain = {"eight_bit": False, "host": False, "checkpointing": False}
    small = {"eight_bit": True, "host": True, "checkpointing": True}
    for px in (256, 512):
        for layers in (6, 12):
            print(row(f"{layers} blocks, {px} px", px, layers, **plain))
            print(row(f"{layers} blocks, {px} px, 8-bit, EMA on the host, checkpointing", px, layers, **small))
    print(
        "\nThe last columns: samples at once that 95 % of the memory hold. The base has 2 GB of workspace with it. "
        f"The text encoders ({_TEXT_GB} GB) are gone by then.\n"
    )
    count = parameters(12)
    fixed = (2 * count["transformer"] + 4 * count["vae"] + 16 * count["control"]) / _GB + _OTHER_GB
    for px, batch, checkpointing, gib in _MEASURED_GIB:
        counted = fixed + batch * activations_gb(px, 12, checkpointing)
        what = f"12 blocks, {px} px, batch {batch}{', checkpointing' if checkpointing else ''}, no EMA"
        print(f"- {what}: counted {counted:.1f} GB, measured {gib * 2**30 / _GB:.1f}")


if __name__ == "__main__":
    main()
