"""SEN2SRLite's and SEN2SR's own networks and constraint against ours, on the same random weights.

    git clone https://github.com/ESAOpenSR/SEN2SR && git -C SEN2SR checkout 8e21bb6
    python -m tests.upstream.sen2sr SEN2SR
    python -m tests.upstream.sen2sr SEN2SR --large

The originals are made as their published loaders make them (4 bands; 24 features and 6 blocks, or 96 and 6 x 8), and
their state loads into ours. The large one's scan is mamba-ssm's where that is installed, else a plain one. It needs
timm and einops. Upstream's code runs in this process: read it first.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from baselines.sen2sr import mamba, upstream
from baselines.sen2sr.network import FULL, Network, constrained, usual_mask
from bench.models import load_state, randomise
from tests.upstream import module_from

TOLERANCE = 1e-5
"""Of the answer's deviation: rounding of the same sums in another order."""


@click.command("python -m tests.upstream.sen2sr")
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--large", is_flag=True, help="SEN2SR's network, not SEN2SRLite's.")
def command(checkout: Path, large: bool) -> None:
    """Compare the network and the constraint of a SEN2SR checkout with ours; exit code 1 where they differ."""
    if large:
        compare_large(checkout)
        return
    models = checkout / "sen2sr" / "models"
    cnn, tricks = (module_from(models / name) for name in ("opensr_baseline/cnn.py", "tricks.py"))
    theirs = cnn.CNNSR(4, 4, FULL[0], 4, True, False, FULL[1]).eval()
    randomise(theirs, "sen2sr")
    ours = Network(*FULL).eval()
    load_state(ours, theirs.state_dict(), "the original's state")
    ours.merge()
    mask = usual_mask(512) * 0.8  # one that is no plain choice between the two
    constraint = tricks.HardConstraint(low_pass_mask=mask)
    x = torch.rand(2, 4, 128, 128, generator=torch.Generator().manual_seed(0)) * 0.4
    with torch.no_grad():
        answers = ours(x), theirs(x)
        held = constrained(answers[0], x, mask), constraint(x, answers[1])
    told("network", *answers)
    told("constraint", *held)


def compare_large(checkout: Path) -> None:
    """SEN2SR's network at the published size, on an image that is neither square nor a whole number of chunks.

    Shortcuts pass what they get, as before training: with random ones, 48 blocks make rounding as large as the answer.
    """
    theirs = upstream.large(checkout / "sen2sr").eval()
    randomise(theirs, "sen2sr")
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "skip_scale" in name:
                parameter.fill_(1)
    ours = mamba.Network().eval()
    load_state(ours, theirs.state_dict(), "the original's state")
    x = torch.rand(1, 4, 10, 14, generator=torch.Generator().manual_seed(0)) * 0.4
    with torch.no_grad():
        told("network", ours(x), theirs(x))


def told(what: str, mine: torch.Tensor, other: torch.Tensor) -> None:
    """Print how far two answers are apart; SystemExit where that is too far."""
    apart = float((mine - other).abs().max() / other.std())
    print(f"{what}: shape {tuple(mine.shape)}, at most {apart:.2g} of the answer's deviation apart")
    if apart > TOLERANCE:
        raise SystemExit(1)


if __name__ == "__main__":
    command()
