"""SAMSR in the guest: its authors' three networks, built from their configuration, and their one-step sampler.

Their own ``sampler.py`` is not used: it needs one CUDA device, packages that are not in their list, and reads SAM from
the disk for each image. Here SAM is loaded once and given to the sampler in place of their loader.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from rfbench_guest import Batch, UserError

CONFIGURATION = "configs/SamSR.yaml"


class SamSR:
    def __init__(self, options: dict[str, str], weights: dict[str, str], checkout: str) -> None:
        self.files, self.checkout = weights, checkout
        self.network_file = "SamSR_" + options["version"] + ".pth"

    def load(self, device: str, dtype: str) -> None:
        import torch
        import yaml

        configuration = yaml.safe_load(Path(self.checkout, CONFIGURATION).read_text(encoding="utf-8"))
        torch.manual_seed(0)  # of random weights
        self.device = torch.device(device)
        self.diffusion = _made(configuration["diffusion"])
        self.network = self._with_weights(_made(configuration["model"]), self.network_file)
        self.autoencoder = self._with_weights(_made(configuration["autoencoder"]), "autoencoder_vq_f4.pth")
        build = importlib.import_module("segment_anything").sam_model_registry["vit_b"]
        sam = self._with_weights(build(), "sam_vit_b_01ec64.pth")
        sampler: Any = importlib.import_module("models.gaussian_diffusion")
        sampler.load_sam_model = lambda *_, **__: sam

    def upscale(self, batch: Batch) -> dict[str, Any]:
        import torch

        samples = []
        for i, image in enumerate(batch.images):
            low = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0)))[None].to(self.device) * 2 - 1
            draws = []
            for k in range(batch.draws):
                batch.seed_everything(i, k)
                with torch.no_grad():
                    answer = self.diffusion.p_sample_loop(
                        y=low,
                        model=self.network,
                        first_stage_model=self.autoencoder,
                        noise=None,
                        clip_denoised=False,
                        model_kwargs={"lq": low},
                        one_step=True,
                    )
                display = answer[0].float().clamp(-1, 1) * 0.5 + 0.5
                draws.append(np.moveaxis(display.cpu().numpy(), 0, 2))
            samples.append(draws)
        return {"samples": np.array(samples, np.float32)}

    def _with_weights(self, network: Any, name: str) -> Any:
        """The network on its device with the tensors of a file, all of them; as it was made without files."""
        import torch

        if self.files:
            try:
                state = torch.load(self.files[name], map_location="cpu", weights_only=True)
                state = {k[7:] if k.startswith("module.") else k: v for k, v in state.get("state_dict", state).items()}
            except Exception as error:  # whatever a reader meets in broken bytes, or in what is no state
                why = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
                raise UserError(
                    f"{name} is cut or no checkpoint ({why}); remove it, with {name}.recorded.json, and fetch it again"
                ) from None
            try:
                network.load_state_dict(state, strict=True)
            except RuntimeError as error:
                text = " ".join(str(error).split())[:200]
                raise UserError(f"{name} is the file of another model or version ({text})") from None
        return network.to(self.device).eval()


def _made(section: dict[str, Any]) -> Any:
    """What a section of the configuration describes: ``target`` called with ``params``."""
    module, _, name = section["target"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**section.get("params", {}))
