"""Where torch computes."""

from __future__ import annotations

from bench.core.errors import RfbenchError


def resolve_device(name: str) -> str:
    """``auto`` is a GPU where there is one; RfbenchError for a device that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.partition(":")[0]
    if name != "cpu" and kind != "cuda":
        raise RfbenchError(f"--device: found '{name}', expected auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = name.partition(":")[2] or "0"
        if not index.isdigit() or int(index) >= count:
            raise RfbenchError(f"--device {name}: this machine has {count} usable CUDA devices; use --device cpu")
    return name
