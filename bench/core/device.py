"""Where torch computes."""

from __future__ import annotations

from bench.core import provenance
from bench.core.errors import RfbenchError


def set_threads(device: str) -> None:
    """Torch's threads in a process that predicts: on a processor one, since sums depend on how many there are, and
    images are predicted by several processes instead. Beside a GPU one core is left to reading and the system."""
    import torch

    torch.set_num_threads(1 if device == "cpu" else max(1, provenance.cores() - 1))


def resolve_devices(names: str) -> tuple[str, ...]:
    """One device, or several GPUs with commas between (``cuda:0,cuda:1``); RfbenchError unless they are of one kind,
    for the last digits of a prediction are a kind's own."""
    found = tuple(resolve_device(name.strip()) for name in names.split(","))
    if len(found) > 1:
        import torch

        if len(set(found)) < len(found) or not all(name.startswith("cuda:") for name in found):
            raise RfbenchError(f"--device: found '{names}', expected different GPUs, such as cuda:0,cuda:1")
        kinds = {torch.cuda.get_device_name(name) for name in found}
        if len(kinds) > 1:
            raise RfbenchError(f"--device {names}: found {' and '.join(sorted(kinds))}, expected GPUs of one kind")
    return found


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
