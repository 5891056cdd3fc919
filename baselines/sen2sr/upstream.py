"""The authors' SEN2SR or SEN2SRLite on given images; run as a script (``bench.check.upstream``), never imported."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def module(path: Path) -> Any:
    """A file of the checkout as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def plain_scan(
    u: torch.Tensor, delta: torch.Tensor, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, d: torch.Tensor,
    *, delta_bias: torch.Tensor, **_: Any,
) -> torch.Tensor:  # fmt: skip
    """What mamba-ssm's compiled scan computes, a step at a time: u and delta (N, D, L), b and c (N, K, S, L)."""
    paths = (b.shape[1], -1)  # their channels share b and c
    delta = F.softplus(delta + delta_bias[:, None])
    decay, added = (x.unflatten(1, paths).movedim(-1, 0).contiguous() for x in (delta, delta * u))
    into, out = (x.movedim(-1, 0).contiguous() for x in (b, c))
    rate = a.unflatten(0, paths)
    state = u.new_zeros(u.shape[0], *rate.shape)
    found = []
    for t in range(u.shape[2]):
        state = torch.exp(decay[t][..., None] * rate) * state + added[t][..., None] * into[t][:, :, None]
        found.append((state * out[t][:, :, None]).sum(-1))
    return torch.stack(found, -1).flatten(1, 2) + d[:, None] * u


def large(package: Path) -> torch.nn.Module:
    """The authors' state-space network; where mamba-ssm is not installed, with the scan above in its place."""
    try:
        import mamba_ssm  # noqa: F401
    except ImportError:
        for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.selective_scan_interface"):
            sys.modules[name] = types.ModuleType(name)
        vars(sys.modules["mamba_ssm.ops.selective_scan_interface"])["selective_scan_fn"] = plain_scan
    return module(package / "models" / "opensr_baseline" / "mamba.py").MambaSR(
        img_size=(128, 128), in_channels=4, out_channels=4, embed_dim=96, depths=[8] * 6, num_heads=[8] * 6,
        mlp_ratio=4, upscale=4, attention_type="sigmoid_02", upsampler="pixelshuffle", resi_connection="1conv",
        operation_attention="sum",
    )  # fmt: skip


def main(checkout: Path, folder: Path) -> None:
    """Answer every ``imageN.npy`` of the folder."""
    files = json.loads((folder / "job.json").read_text(encoding="utf-8"))["weights"]
    weights, mask = (load_file(path) for _, path in sorted(files.items()))
    package = checkout / "sen2sr"
    network = (
        large(package)
        if "conv_first.weight" in weights
        else module(package / "models" / "opensr_baseline" / "cnn.py").CNNSR(4, 4, 24, 4, True, False, 6)
    )
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
