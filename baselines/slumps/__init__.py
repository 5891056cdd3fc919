"""``slumps-tiny``: a tiny segmenter of thaw slumps in the procedural scenes, for the task metric's example.

Trained on displayed HR images of scenes of another seed than the embedded ones, by the command in ``tiny.json``::

    rfbench data scenes slump-scenes --count 200 --seed 11 --split train
    python -m baselines.slumps --data slump-scenes

It knows these scenes and nothing else: it is no detector of thaw slumps in imagery.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from bench.models import Array, FolderDataset, Paired, RfbenchError, digest, write_json

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).with_name("tiny.safetensors")
_CHANNELS, _DILATIONS = 16, (1, 2, 4, 8)
_CROP_PX, _BATCH = 96, 4


class SlumpsTiny:
    """Four dilated 3x3 convolutions of 16 channels (7,425 numbers), trained on procedural scenes: tiny, and of them
    alone."""

    files = (WEIGHTS,)
    licence = "Apache-2.0"

    def __init__(self) -> None:
        from safetensors.torch import load_file

        self._network = network()
        self._network.load_state_dict(load_file(WEIGHTS))

    def segment(self, display: Array) -> Array:
        """The logit that a pixel is inside a slump, float32 (H, W), of RGB (H, W, 3) in [0, 1]."""
        import torch

        with torch.inference_mode():
            found: Array = self._network(_batch([display]))[0, 0].numpy()
            return found


def network() -> torch.nn.Sequential:
    """RGB (N, 3, H, W) in [-1, 1] to logits (N, 1, H, W); any size."""
    from torch.nn import Conv2d, ReLU, Sequential

    layers: list[torch.nn.Module] = []
    before = 3
    for dilation in _DILATIONS:
        layers += [Conv2d(before, _CHANNELS, 3, padding=dilation, dilation=dilation), ReLU()]
        before = _CHANNELS
    return Sequential(*layers, Conv2d(_CHANNELS, 1, 1))


def _batch(displays: list[Array]) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.stack([np.moveaxis(d, 2, 0) for d in displays])) * 2 - 1


def train(images: list[tuple[Array, Any]], steps: int, seed: int) -> Iterator[tuple[torch.nn.Sequential, float]]:
    """The network and its loss after each step, from pairs of a display (H, W, 3) and a mask (H, W).

    Cross-entropy and Dice of crops of 96 px that are turned and mirrored, by Adam with a rate that falls as a cosine.
    """
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    made = network()
    adam = torch.optim.Adam(made.parameters(), lr=5e-3)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = 5e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        crops = [_crop(*images[random.integers(len(images))], random) for _ in range(_BATCH)]
        logits = made(_batch([display for display, _ in crops]))[:, 0]
        truth = torch.from_numpy(np.stack([mask for _, mask in crops])).float()
        inside = torch.sigmoid(logits)
        dice = 1 - (2 * (inside * truth).sum() + 1) / (inside.sum() + truth.sum() + 1)
        loss = binary_cross_entropy_with_logits(logits, truth) + dice
        adam.zero_grad()
        loss.backward()
        adam.step()
        yield made, loss.item()


def _crop(display: Array, mask: Any, random: np.random.Generator) -> tuple[Array, Any]:
    """One eighth of the turns and mirrors of a crop of both."""
    top, left = (int(random.integers(n - _CROP_PX + 1)) for n in mask.shape)
    turns, mirrored = int(random.integers(4)), bool(random.integers(2))
    parts = []
    for image in (display, mask):
        part = np.rot90(image[top : top + _CROP_PX, left : left + _CROP_PX], turns)
        parts.append(np.ascontiguousarray(part[:, ::-1] if mirrored else part))
    return parts[0], parts[1]


def images_of(folder: Path, split: str) -> list[tuple[Array, Any]]:
    """Displayed HR images with their masks; RfbenchError where a dataset has none."""
    dataset, protocol = FolderDataset(folder), Paired()
    found = []
    for record in dataset.records(split):
        reference = protocol.prepare(dataset.load(record, protocol.reads)).reference
        if reference.display is not None and reference.mask is not None and min(reference.mask.shape) >= _CROP_PX:
            found.append((reference.display, reference.mask))
    if not found:
        raise RfbenchError(f"{folder}: found no HR image with a mask of {_CROP_PX} px or more in split {split}")
    return found


@click.command(epilog="The weights go to --out, and what they were made of beside them.")
@click.option("--data", required=True, type=click.Path(path_type=Path), metavar="DIR", help="Scenes with masks.")
@click.option("--split", default="train", show_default=True, help="Which of them.")
@click.option("--steps", default=1200, show_default=True, metavar="N", help="Of training, four crops each.")
@click.option("--seed", default=0, show_default=True, metavar="S", help="Of weights and crops.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=WEIGHTS, metavar="FILE.safetensors", help="The weights."
)
def main(data: Path, split: str, steps: int, seed: int, out: Path) -> None:
    """Train the segmenter on the displayed HR images of a dataset and their masks; some minutes on a processor."""
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)  # the same bits on any number of cores
    images = images_of(data, split)
    recent: list[float] = []
    if steps < 1:
        raise RfbenchError(f"--steps: found {steps}, expected 1 or more")
    for step, (made, loss) in enumerate(train(images, steps, seed), 1):
        trained, recent = made, [*recent[-99:], loss]
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {sum(recent) / len(recent):.3f}", file=sys.stderr)
    save_file(trained.state_dict(), out)
    about: dict[str, Any] = {
        "what": "tiny: trained on procedural scenes alone",
        "command": f"python -m baselines.slumps --data DIR --steps {steps} --seed {seed}",
        "data": json.loads((data / "dataset.json").read_text(encoding="utf-8")).get("command", ""),
        "images": len(images),
        "images_sha256": digest([[float(d.sum(dtype=np.float64)), int(m.sum())] for d, m in images]),
        "loss": round(sum(recent) / len(recent), 4),
    }
    write_json(out.with_suffix(".json"), about)
