"""AdcSR's two files as one state of ``Network``.

``net_params_200.pkl`` is the state of a wrapped ``Net``: ``module.body.1.NAME`` is the UNet's NAME, and since upstream
also lists its blocks in a sequence, every tensor comes once more as ``module.body.1.body.N.NAME``. The decoder's middle
block is ``module.body.2.NAME``. ``halfDecoder.ckpt`` is a trainer's checkpoint, whose ``decoder.NAME`` are the whole
decoder as it was before the UNet was trained: of it upstream uses all but the first convolution and the middle block.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.models import read_state

if TYPE_CHECKING:
    from torch import Tensor

REVISION = 1
"""Raise it whenever the conversion gives something else."""
NET, DECODER = "net_params_200.pkl", "halfDecoder.ckpt"
_UNET, _ALIAS, _MIDDLE = "module.body.1.", "module.body.1.body.", "module.body.2."
_REPLACED = ("decoder.conv_in.", "decoder.mid_block.")


def state(net: Path, decoder: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of both files by their names in ``Network``; what belongs to nothing keeps its own name, so that the
    strict loading says so. Raises RfbenchError for broken files."""
    found = {}
    for name, tensor in read_state(net, device=device).items():
        if name.startswith(_ALIAS):
            continue
        if name.startswith(_UNET):
            name = "unet." + name.removeprefix(_UNET)
        elif name.startswith(_MIDDLE):
            name = "decoder.mid_block." + name.removeprefix(_MIDDLE)
        found[name] = tensor
    for name, tensor in read_state(decoder, "state_dict", device).items():
        # Upstream takes every name with this word in it and the rest of the trainer's model is left.
        if "decoder" in name and not name.startswith(_REPLACED):
            found[name] = tensor
    return found
