"""The package opensr-model at its published size against the harness's way of asking it, on the same noise.

    python -m tests.upstream.opensr        # 6 GB of memory, some minutes on a processor

Random weights, one window of 128x128 px, two steps: the package's own ``forward`` takes the noise that ours was given.
The unit tests do the same with a small network. Nothing is downloaded.
"""

from __future__ import annotations

import datetime
import sys
from importlib.metadata import version
from typing import Any

import click
import torch

from baselines.opensr.network import CHANNELS, Config, build, noise_channels, sample
from bench.models import randomise


@click.command("python -m tests.upstream.opensr")
@click.option("--steps", default=2, show_default=True, help="Of DDIM; a divisor of 1000.")
def command(steps: int) -> None:
    """Compare one image of the package's forward with ours; exit code 1 where a bit differs."""
    model = build(Config(), "cpu")
    randomise(model.model, "opensr")
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    lr = torch.rand(1, CHANNELS, 128, 128, generator=generator) * 0.3
    noise = torch.randn(1, noise_channels(steps), 128, 128, generator=generator)
    with torch.inference_mode():
        (ours,) = sample(model, lr, iter([noise]), steps=steps, eta=0.95, temperature=1.0, histogram=True)
    queue, normal = list(noise.split(CHANNELS, dim=1)), torch.randn

    def randn(*shape: Any, **options: Any) -> torch.Tensor:
        return queue.pop(0) if queue else normal(*shape, **options)

    torch.randn = randn  # type: ignore[assignment]
    try:
        theirs = model.forward(lr.clone(), sampling_eta=0.95, sampling_steps=steps, sampling_temperature=1.0)
    finally:
        torch.randn = normal  # type: ignore[assignment]
    largest = float((ours - theirs).abs().max())
    count = sum(p.numel() for p in model.model.parameters())
    print(f"opensr-model {version('opensr-model')}, {datetime.date.today()}, torch {torch.__version__}: "
          f"{count / 1e6:.2f} M parameters, {tuple(theirs.shape)}, at most {largest:.2g} apart, "
          f"{'all' if not queue else 'not all'} noise taken")  # fmt: skip
    sys.exit(largest > 0 or bool(queue))


if __name__ == "__main__":
    command()
