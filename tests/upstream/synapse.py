"""SYNAPSE's own package against ours at the published size, on the same random weights.

    pip install 'rfbench[systems]'
    python -m tests.upstream.synapse

A checkpoint that the package's own class saves is opened by our reader, and both answer one image. The Pro network
takes minutes on a processor.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
from synapse_sr.pro import Pro

from baselines.synapse.adapter import Flash as OurFlash
from baselines.synapse.adapter import Pro as OurPro
from baselines.synapse.adapter import Synapse
from baselines.synapse.network import BANDS, assembled, gaussian_kernels, network, published
from bench.check.pictures import picture
from bench.models import randomise, read_state


@click.command("python -m tests.upstream.synapse")
@click.argument("kinds", nargs=-1, type=click.Choice(["flash", "pro"]))
@click.option("--side", default=40, show_default=True, type=click.IntRange(7), help="LR pixels.")
def command(kinds: tuple[str, ...], side: int) -> None:
    """Compare the package's super_resolve with the adapter's; exit code 1 where they differ at all."""
    ours: dict[str, type[Synapse]] = {"flash": OurFlash, "pro": OurPro}
    image = (picture(3, side, side, len(BANDS)) * 0.3).astype(np.float32)
    differs = False
    for kind in kinds or ("flash", "pro"):
        net = network(kind)
        randomise(net, "synapse")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ours[kind].file
            assembled(kind, net, gaussian_kernels(), "cpu", {}).save_pretrained(path)
            adapter = ours[kind](weights="published", size="full", tta="no")
            adapter.model = published(kind, read_state(path), path.name, "cpu")
            theirs = Pro.from_pretrained(weights=path, device="cpu").super_resolve(
                np.moveaxis(image, 2, 0), band_names=BANDS, scl=None, progress=False
            )
        mine = adapter._one(image)
        apart = float(np.abs(mine.image - theirs.image).max())
        differs |= apart > 0
        print(f"{kind}: shape {mine.image.shape}, at most {apart:g} apart, prior up to {float(np.max(mine.prior)):.2g}")
    if differs:
        raise SystemExit(1)


if __name__ == "__main__":
    command()
