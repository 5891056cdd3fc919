"""SEN2SRLite's own network and constraint against ours, on the same random weights.

    git clone https://github.com/ESAOpenSR/SEN2SR && git -C SEN2SR checkout 8e21bb6
    python -m tests.upstream.sen2sr SEN2SR

The original is made as its published loader makes it (4 bands, 24 features, 6 blocks), and its state loads into ours.
Upstream's code runs in this process: read it first.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from baselines.sen2sr.network import FULL, Network, constrained, usual_mask
from bench.models import load_state, randomise
from tests.upstream import module_from

TOLERANCE = 1e-5
"""Of the answer's deviation: rounding of the same sums in another order."""


@click.command("python -m tests.upstream.sen2sr")
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(checkout: Path) -> None:
    """Compare the network and the constraint of a SEN2SR checkout with ours; exit code 1 where they differ."""
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
    worst = 0.0
    for what, (mine, other) in (("network", answers), ("constraint", held)):
        apart = float((mine - other).abs().max() / other.std())
        worst = max(worst, apart)
        print(f"{what}: shape {tuple(mine.shape)}, at most {apart:.2g} of the answer's deviation apart")
    if worst > TOLERANCE:
        raise SystemExit(1)


if __name__ == "__main__":
    command()
