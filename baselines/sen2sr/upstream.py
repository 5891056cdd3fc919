"""The authors' SEN2SRLite on given images; run as a script (``bench.check.upstream``), never imported."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file


def module(path: Path) -> Any:
    """A file of the checkout as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def main(checkout: Path, folder: Path) -> None:
    """Answer every ``imageN.npy`` of the folder."""
    files = json.loads((folder / "job.json").read_text(encoding="utf-8"))["weights"]
    weights, mask = (load_file(path) for _, path in sorted(files.items()))
    package = checkout / "sen2sr"
    network = module(package / "models" / "opensr_baseline" / "cnn.py").CNNSR(4, 4, 24, 4, True, False, 6)
    network.load_state_dict(weights, strict=True)
    constraint = module(package / "models" / "tricks.py").HardConstraint(low_pass_mask=mask["weights"])
    whole = module(package / "nonreference.py").srmodel(network.eval(), constraint)
    for given in sorted(folder.glob("image*.npy")):
        x = torch.from_numpy(np.load(given)).permute(2, 0, 1)[None]
        with torch.no_grad():
            answer = whole(x)[0].permute(1, 2, 0).contiguous().numpy()
        np.save(folder / given.name.replace("image", "answer"), answer)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
