"""AdcSR's own network against ours, on the same random weights.

    git clone https://github.com/Guaishou74851/AdcSR && git -C AdcSR checkout d0b2871e3de9f877e4aebb9bfaf23227b22ac25d
    python -m tests.upstream.adcsr AdcSR
    python -m tests.upstream.adcsr AdcSR --full     # the published size: 4 GB of memory, a minute

Upstream's ``Net`` is made from a UNet and a decoder of random weights, its state is saved as upstream saves its own,
goes through our converter, and both networks see the same images. Upstream's code runs in this process: read it first.
"""

from __future__ import annotations

import copy
import datetime
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.autoencoders.vae import Decoder
from torch import nn

from baselines.adcsr import convert
from baselines.adcsr.network import Config, Network, match_colours
from bench.models import load_state, randomise

TOLERANCE = 1e-4
"""Of values of about 1: rounding of the same sums in another order."""


@click.command("python -m tests.upstream.adcsr")
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--full", is_flag=True, help="The published size instead of a narrow network.")
def command(checkout: Path, full: bool) -> None:
    """Compare the network of an AdcSR checkout with ours; exit code 1 where they differ."""
    # Upstream fixes the first and the last width of the UNet (320); the narrow network is narrow in between.
    widths = (320, 640, 1280, 1280) if full else (320, 64, 64, 64)
    heads = (5, 10, 20, 20) if full else (5, 1, 1, 1)
    config = Config() if full else Config(widths=(240, 48, 48, 48), heads=heads)
    sys.path.insert(0, str(checkout.resolve()))
    from model import Net  # upstream's

    unet = UNet2DConditionModel(
        sample_size=64, block_out_channels=widths, attention_head_dim=heads, cross_attention_dim=1024,
        use_linear_projection=True,
    )  # fmt: skip
    decoder = Decoder(4, 3, ("UpDecoderBlock2D",) * 4, config.decoder, 2)
    net = Net(unet, copy.deepcopy(decoder))
    randomise(net, "net")
    randomise(decoder, "decoder")
    theirs = nn.Sequential(net, *decoder.up_blocks, decoder.conv_norm_out, decoder.conv_act, decoder.conv_out).eval()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in (convert.NET, convert.DECODER)]
        torch.save({f"module.{k}": v for k, v in net.state_dict().items()}, paths[0])
        torch.save({"state_dict": {f"decoder.{k}": v for k, v in decoder.state_dict().items()}}, paths[1])
        with torch.device("meta"):
            ours = Network(config).eval()
        load_state(ours, convert.state(*paths), "upstream's state")
    largest = 0.0
    for size in ((16, 16), (32, 48), (64, 32)):
        lr = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(size[1])) * 2 - 1
        with torch.inference_mode():
            first, second = theirs(lr), ours(lr)
        fixed = (first - first.mean(dim=[2, 3], keepdim=True)) / first.std(dim=[2, 3], keepdim=True) * lr.std(
            dim=[2, 3], keepdim=True
        ) + lr.mean(dim=[2, 3], keepdim=True)
        found = [float((a - b).abs().max()) for a, b in ((first, second), (fixed, match_colours(second, lr)))]
        print(f"{size[0]}x{size[1]} px: network differs by {found[0]:.2g} (of {float(first.std()):.2g}), "
              f"with the colour fix by {found[1]:.2g}")  # fmt: skip
        largest = max(largest, found[0] / float(first.std()), found[1])
    count = sum(p.numel() for p in net.parameters())
    words = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    print(
        f"{len(net.state_dict())} entries, {count / 1e6:.2f} M parameters in upstream's file; none missing, none left"
    )
    print(f"commit {commit[:10]}, {datetime.date.today()}, torch {torch.__version__}: at most {largest:.2g}")
    sys.exit(largest > TOLERANCE)


if __name__ == "__main__":
    command()
