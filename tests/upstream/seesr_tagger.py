"""SeeSR's tagger (RAM with DAPE) against its own code, at full size with random weights.

    python -m tests.upstream.seesr_tagger SeeSR --python seesr-env/bin/python

Checkout and environment are those of ``seesr.py``. The original makes the networks and writes their weights as its two
published files hold them, RAM's and DAPE's; ours reads those, so names and shapes are the original's own. About 4 GB of
memory and 2 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

SEED, LR_PX = 7, (30, 40)


def theirs(folder: Path, checkout: Path) -> None:
    """Write the original's files and answers; runs in its environment, and imports nothing of ours."""
    sys.path.insert(0, str(checkout))
    os.chdir(checkout)
    import torch
    from ram.models import ram_lora
    from torchvision import transforms

    class Tokenizer:  # only its size is used, for an embedding that is deleted again
        def __len__(self) -> int:
            return 30524

        def __call__(self, text: str) -> SimpleNamespace:
            return SimpleNamespace(input_ids=[0] * 6)

    ram_lora.init_tokenizer = Tokenizer
    torch.manual_seed(SEED)
    model = ram_lora.RAMLora(image_size=384, vit="swin_l")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name:
                parameter.normal_(std=0.3)
            elif parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.05)
            else:  # BERT's initial 0.02 would leave all tags alike
                parameter.normal_(std=parameter[0].numel() ** -0.5)
    state = model.state_dict()
    lora = {k: v for k, v in state.items() if "lora_" in k}
    torch.save({"model": {k: v for k, v in state.items() if k not in lora}}, folder / "ram.pth")
    torch.save(lora, folder / "dape.pth")
    model.eval()
    rgb = torch.from_numpy(np.load(folder / "lr.npy")).permute(2, 0, 1)[None] / 255
    normalised = transforms.Compose(
        [
            transforms.Resize((384, 384), antialias=False),  # the default for tensors in torchvision 0.15
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )(rgb)
    with torch.no_grad():
        tokens, logits, _ = model.condition_forward(normalised, only_feature=False)
        # Thresholds at the middle of these logits, or random weights would give no tag.
        model.class_threshold = torch.sigmoid(logits.median()).expand(model.num_class)
        tags, _ = model.generate_tag(normalised)
    np.savez(
        folder / "theirs.npz", tokens=tokens[0].numpy(), logits=logits[0].numpy(), tags=tags[0],
        threshold=model.class_threshold[0].item(),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="a checkout of the original")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the original's environment")
    parser.add_argument("--exchange", type=Path, help=argparse.SUPPRESS)  # the second process
    words = parser.parse_args()
    checkout = words.checkout.resolve()
    if words.exchange:
        theirs(words.exchange, checkout)
        return

    import torch

    from baselines.seesr import tagger
    from bench.models import load_state, read_state

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lr = np.random.default_rng(SEED).integers(0, 256, (*LR_PX, 3), np.uint8)
        np.save(folder / "lr.npy", lr)
        command = [words.python, str(Path(__file__).resolve()), str(checkout), "--exchange", name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": ""})
        net = tagger.RecognizeAnything().eval()
        files = read_state(folder / "ram.pth", "model"), read_state(folder / "dape.pth")
        load_state(net, tagger.from_published(net, *files), "the original's weights")
        answers = np.load(folder / "theirs.npz")
        data = checkout / "ram" / "data"
        labels, limits = tagger.read_words(data / "ram_tag_list.txt", data / "ram_tag_list_threshold.txt")
        found = tagger.Tagger(net, labels, np.full_like(limits, answers["threshold"])).tags("x", lr)
        with torch.no_grad():
            logits = net.logits(torch.from_numpy(found.tokens)[None])[0].numpy()
        for part, value in (("tokens", found.tokens), ("logits", logits)):
            other = answers[part]
            largest = np.abs(value - other).max()
            print(f"{part}: shape {value.shape}, largest difference {largest:.2g}, deviation {other.std():.3g}")
        ours, other = set(found.text.split(", ")), set(str(answers["tags"]).split(", "))
        print(f"tags: {len(ours)} of ours, {len(other)} of theirs, {len(ours ^ other)} differ")


if __name__ == "__main__":
    main()
