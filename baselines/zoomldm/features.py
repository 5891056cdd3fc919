"""The features that ZoomLDM's satellite model was trained with: DINOv2 (ViT-L/14 with registers), one for each patch.

A patch of 256x256 px at the finest zoom gives the 1024 numbers of its class token. At a coarser zoom one image covers
2x2, 4x4 or 8x8 of them. The published code has no image preparation: 256 is no multiple of 14, so patches are resized
to 224 px here and brought to ImageNet's mean and deviation, as DINOv2 expects.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from baselines.zoomldm.network import PATCH_PX
from bench.models import RfbenchError

INPUT_PX = 224
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_FULL = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def build_dino(*, small: bool) -> Any:
    """DINOv2 with registers, untrained."""
    from transformers import Dinov2WithRegistersModel

    return Dinov2WithRegistersModel(_config(small))


def load_dino(path: Path) -> Any:
    """DINOv2 from its published file; RfbenchError unless every tensor of it and of the network has a partner."""
    from transformers import Dinov2WithRegistersModel

    # transformers renames tensors between its versions and knows how; only its own loader can be asked.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(_config(False).to_dict()), encoding="utf-8")
        (folder / "model.safetensors").symlink_to(path.resolve())
        try:
            model, info = Dinov2WithRegistersModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
        except Exception as error:  # whatever transformers meets in a broken file
            raise RfbenchError(f"{path.name} is cut or no checkpoint of DINOv2 ({error}); fetch it again") from None
    wrong = {kind: sorted(map(str, info[f"{kind}_keys"])) for kind in ("missing", "unexpected", "mismatched")}
    found = [f"{len(names)} {kind} ({names[0]}, ...)" for kind, names in wrong.items() if names]
    if found:
        raise RfbenchError(f"{path.name}: found {', '.join(found)}, expected DINOv2 ViT-L/14 with registers")
    return model


def features(dino: Any, image: torch.Tensor, grid: int) -> torch.Tensor:
    """The features of one image, float (1, 3, 256, 256) in [0, 1], to (1, width, grid, grid)."""
    whole = F.interpolate(image, size=(PATCH_PX * grid,) * 2, mode="bicubic", antialias=True).clamp(0, 1)
    patches = whole.unfold(2, PATCH_PX, PATCH_PX).unfold(3, PATCH_PX, PATCH_PX).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    patches = F.interpolate(patches, size=(INPUT_PX, INPUT_PX), mode="bicubic", antialias=True).clamp(0, 1)
    mean, deviation = (torch.tensor(v, device=image.device)[:, None, None] for v in (_MEAN, _DEVIATION))
    with torch.no_grad():  # one by one: the largest grid has 64 patches
        found = [dino((patch[None] - mean) / deviation).pooler_output for patch in patches]
    return torch.cat(found).T.reshape(1, -1, grid, grid)


def _config(small: bool) -> Any:
    from transformers import Dinov2WithRegistersConfig

    return Dinov2WithRegistersConfig(
        **(_SMALL if small else _FULL), patch_size=14, image_size=518, num_register_tokens=4
    )
