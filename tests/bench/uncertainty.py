"""What u costs: T = 8 passes with dropout and their decoding, at once, beside a sample of 20 steps.

In seconds at the embedded model's size, in operations at SD3 medium's (24 blocks, a control of 12, counted without
weights: matrix products, convolutions, attention).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rareflow.model import RareFlow
from rareflow.uncertainty import measure
from tests.bench.common import machine
from tests.bench.sizes import config_of, random_model

PASSES = 8


def tiny(px: int = 204, steps: int = 20, repeats: int = 5) -> None:
    """Print the seconds of both, medians of repeats in turns."""
    model = random_model(config_of("tiny"))
    image = np.random.default_rng(0).uniform(0.2, 0.8, (1, px, px, 3)).astype(np.float32)
    tokens, pooled = model.captions.get([""])
    with torch.no_grad():
        x = model.codec.encode(torch.from_numpy(image.transpose(0, 3, 1, 2)))

    def u() -> None:
        measure(
            model.field, model.masks, model.codec.decode, z=torch.randn_like(x), sigma=1.0, x=x, tokens=tokens,
            pooled=pooled, seeds=[0], passes=PASSES,
        )  # fmt: skip

    def sample() -> None:
        model.upscale(image, (px, px), steps=steps, u=0.5)

    found: dict[str, list[float]] = {"u": [], "sample": []}
    for turn in range(repeats + 1):
        for name, call in (("u", u), ("sample", sample)):
            started = time.process_time()
            call()
            if turn:  # the first warms up
                found[name].append(time.process_time() - started)
    seconds = {name: statistics.median(rows) for name, rows in found.items()}
    print(
        f"tiny, {px} px: u with T = {PASSES} {seconds['u']:.2f} s, a sample of {steps} steps {seconds['sample']:.2f} s"
    )


def count(call: Callable[[], Any]) -> float:
    """TFLOP."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return float(counter.get_total_flops()) / 1e12


def operations(model: RareFlow, px: int, words: int) -> dict[str, float]:
    """TFLOP of one pass of each part at ``px`` a side and ``words`` tokens of text, and of samples and u."""
    field, codec = model.field, model.codec
    cells, text = px // codec.factor, model.config.transformer

    def velocity(batch: int) -> Tensor:
        z, sigma = torch.zeros(batch, codec.channels, cells, cells), torch.ones(batch)
        tokens = torch.zeros(batch, words, text["joint_attention_dim"])
        return field.velocity(z, sigma, z, tokens, torch.zeros(batch, text["pooled_projection_dim"]), sigma)

    def decode(batch: int) -> Tensor:
        return codec.decode(torch.zeros(batch, codec.channels, cells, cells))

    both = count(lambda: velocity(1))
    control, field.control = field.control, None
    alone, field.control = count(lambda: velocity(1)), control
    found = {"transformer": alone, "control": both - alone}
    found |= {"encoder": count(lambda: codec.encode(torch.zeros(1, 3, px, px))), "decoder": count(lambda: decode(1))}
    for steps in (20, 28):
        found[f"sample of {steps} steps"] = found["encoder"] + steps * both + found["decoder"]
    return found | {f"u with T = {PASSES}": count(lambda: velocity(PASSES)) + count(lambda: decode(PASSES))}


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    print(f"{machine()}, 1 thread")
    tiny()
    model = random_model(config_of("sd3"), "meta")
    parts = {"transformer": model.field.transformer, "control": model.field.control, "VAE": model.codec.vae}
    counts = [f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:.1f} M" for name, part in parts.items() if part]
    print(f"sd3: parameters of {', '.join(counts)}")
    with torch.device("meta"):
        for px, words in ((256, 154), (256, 333), (512, 154), (512, 333), (1024, 154)):
            row = operations(model, px, words)
            print(f"sd3, {px} px, {words} tokens, TFLOP: {', '.join(f'{k} {v:.3g}' for k, v in row.items())}")


if __name__ == "__main__":
    main()
