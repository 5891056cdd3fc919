"""Satlas's own ESRGAN generator against ours, on the same random weights, for every number of dates.

    git clone https://github.com/allenai/satlas-super-resolution && git -C satlas-super-resolution checkout 3da1525
    python -m tests.upstream.satlas satlas-super-resolution

Upstream registers its network with BasicSR and takes three small helpers from a file that needs BasicSR's compiled
parts; stand-ins take their places. Upstream's code runs in this process: read it first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import nn

from baselines.satlas.network import FULL, RGB_CHANNELS, Network
from baselines.satlas.spec import DATES
from bench.models import load_state, randomise
from tests.upstream import module_from, stand_in

TOLERANCE = 1e-5
"""Of the answer's deviation: rounding of the same sums in another order."""


class Registry:
    """In the place of BasicSR's: what is registered stays as it is."""

    def register(self) -> Callable[[type], type]:
        return lambda made: made


@click.command("python -m tests.upstream.satlas")
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(checkout: Path) -> None:
    """Compare the generator of a checkout with ours; exit code 1 where they differ."""
    stand_in("basicsr")
    stand_in("basicsr.utils")
    stand_in("basicsr.utils.registry", ARCH_REGISTRY=Registry())
    stand_in("satlas_archs")
    stand_in(
        "satlas_archs.arch_util", default_init_weights=lambda *_: None, pixel_unshuffle=None,
        make_layer=lambda block, count, **sizes: nn.Sequential(*(block(**sizes) for _ in range(count))),
    )  # fmt: skip
    theirs = module_from(checkout / "ssr" / "archs" / "rrdbnet_arch.py", "satlas_archs.rrdbnet_arch")
    width, blocks, growth = FULL
    x = torch.rand(1, RGB_CHANNELS * max(DATES), 20, 24, generator=torch.Generator().manual_seed(0))
    worst = 0.0
    for dates in DATES:
        original = theirs.SSR_RRDBNet(RGB_CHANNELS * dates, RGB_CHANNELS, 4, width, blocks, growth).eval()
        randomise(original, f"satlas {dates}")
        ours = Network(dates).eval()
        load_state(ours, original.state_dict(), "the original's state")
        with torch.no_grad():
            mine, other = (net(x[:, : RGB_CHANNELS * dates]) for net in (ours, original))
        apart = float((mine - other).abs().max() / other.std())
        worst = max(worst, apart)
        print(f"{dates} dates: shape {tuple(mine.shape)}, at most {apart:.2g} of the answer's deviation apart")
    if worst > TOLERANCE:
        raise SystemExit(1)


if __name__ == "__main__":
    command()
