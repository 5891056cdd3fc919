"""MISR-S2 in the guest: its authors' networks, made from their configuration, and their sampler.

Their configuration is one global dict that the modules read while they are imported and run, so it is filled first.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from rfbench_guest import Batch, UserError

CONFIGURATIONS = {
    ("ltae", "srdiff"): "configs/diffsr_hr_ltae.yaml",
    ("ltae", "regressor"): "configs/misr/misr_pretrain.yaml",
    ("highresnet", "srdiff"): "configs/diffsr_highresnet.yaml",
    ("highresnet", "regressor"): "configs/misr/highresnet.yaml",
    ("rrdb-ltae", "regressor"): "configs/misr/rrdb_ltae.yaml",
    ("rrdb", "srdiff"): "configs/diffsr_sat.yaml",
    ("rrdb", "regressor"): "configs/rrdb/rrdb.yaml",
}
ENCODERS = {  # of the networks that read a series
    "ltae": "tasks/config_hrnet.json", "highresnet": "models/config_hrnet.json",
    "rrdb-ltae": "tasks/config_rrdb_misr.json",
}  # fmt: skip
# What some of the published configurations leave out, and the modules ask for.
USUAL = {"use_rrdb": False, "use_ltae": False, "use_highresnet": False, "use_rrdb_ltae": False, "clip_input": True}


class MisrS2:
    def __init__(self, options: dict[str, str], weights: dict[str, str], checkout: str) -> None:
        self.network, self.variant = options["network"], options["variant"]
        self.files, self.checkout = weights, checkout

    def load(self, device: str, dtype: str) -> None:
        import torch

        os.chdir(self.checkout)  # it opens files of its own by relative paths
        torch.manual_seed(0)  # of random weights
        self.device = torch.device(device)
        self.settings = importlib.import_module("utils.hparams").hparams
        self.settings.clear()
        self.settings.update(USUAL)
        published = Path(self.checkout, CONFIGURATIONS[self.network, self.variant])
        self.settings.update(_configuration(Path(self.files.get("config", published))))
        encoder = ENCODERS.get(self.network)
        self.encoder_settings = json.loads(Path(encoder).read_text(encoding="utf-8")) if encoder else {}
        try:
            self.model = self._made()
        except KeyError as error:
            raise UserError(
                f"the config has no {error}; give the config.yaml that the checkpoint's training wrote"
            ) from None
        if "checkpoint" in self.files:
            self._load_state(self.files["checkpoint"])
        self.model.to(self.device).eval()

    def _made(self) -> Any:
        settings = self.settings
        blocks, encoder = importlib.import_module("models.diffsr_modules"), self._encoder()
        if self.variant == "regressor":
            return encoder
        widths = [int(n) for n in str(settings["unet_dim_mults"]).split("|")]
        unet = blocks.Unet(settings["hidden_size"], out_dim=3, cond_dim=settings["rrdb_num_feat"], dim_mults=widths)
        diffusion = importlib.import_module("models.diffusion").GaussianDiffusion(
            denoise_fn=unet, rrdb_net=encoder, timesteps=settings["timesteps"], loss_type=settings["loss_type"]
        )
        diffusion.sample_tqdm = False
        return diffusion

    def _encoder(self) -> Any:
        """The network that answers by itself (``variant=regressor``) or conditions the diffusion."""
        if self.network == "ltae":
            return importlib.import_module("models.misr_module").HighResLtaeNet(self.encoder_settings)
        if self.network == "highresnet":
            return importlib.import_module("models.HRNet").HRNet(self.encoder_settings["network"])
        keys = ("hidden_size", "num_block") if self.variant == "regressor" else ("rrdb_num_feat", "rrdb_num_block")
        width, depth = (self.settings[k] for k in keys)
        if self.network == "rrdb-ltae":
            return importlib.import_module("models.misr_module").RRDBLtaeNet(3, 3, width, depth, width // 2)
        return importlib.import_module("models.diffsr_modules").RRDBNet(3, 3, width, depth, width // 2)

    def _load_state(self, path: str) -> None:
        import torch

        name = Path(path).name
        try:
            document = torch.load(path, map_location="cpu", weights_only=True)
            state = document["state_dict"]["model"]
        except Exception as error:
            raise UserError(
                f"{name} is no checkpoint of upstream's trainer ({type(error).__name__}: {str(error)[:80]})"
            ) from None
        try:
            self.model.load_state_dict(state, strict=True)
        except RuntimeError as error:
            text = " ".join(str(error).split())[:160]
            raise UserError(f"{name} is of another network or variant: choose network= and variant= ({text})") from None

    def upscale(self, batch: Batch) -> dict[str, Any]:
        import torch

        answers = []
        for i in range(
            len(batch.ids)
        ):  # one by one: upstream takes the wrong reference for all but the first of a batch
            frames = torch.from_numpy(np.ascontiguousarray(np.moveaxis(batch.arrays["frames"][i], 3, 1))).to(
                self.device
            )
            days = torch.from_numpy(batch.arrays["days"][i : i + 1]).to(self.device)
            up = self._enlarged(batch.arrays["reference"][i], batch.arrays["ceiling"])
            low = frames[:1] if self.network not in ENCODERS else frames[None]
            known = torch.arange(len(frames), device=self.device)[None] < int(batch.arrays["distinct"][i])
            draws = []
            for k in range(batch.draws):
                batch.seed_everything(i, k)
                with torch.no_grad():
                    found = self._answered(low, up, days, known.float())
                network = np.moveaxis(found[0].float().cpu().numpy(), 0, 2)
                draws.append((network + 1) / 2 * batch.arrays["ceiling"])  # it may go beyond, as upstream's does
            answers.append(draws)
        facts = [{"distinct_dates": int(n)} for n in batch.arrays["distinct"]]
        values = np.array(answers, np.float32)
        return (
            {"mean": values[:, 0], "facts": facts}
            if self.variant == "regressor"
            else {"samples": values, "facts": facts}
        )

    def _answered(self, low: Any, up: Any, days: Any, known: Any) -> Any:
        """``known`` is 1 for each date of the series and 0 for a repeat of its last."""
        of_dates = {"dates": days, "config": self.encoder_settings}
        more = {"highresnet": {"alphas": known}, "rrdb": {}}.get(self.network, of_dates)
        if self.variant == "regressor":
            return self.model(low, **more)
        return self.model.sample(low, up, tuple(up.shape), **more)[0]

    def _enlarged(self, reflectance: np.ndarray, ceiling: np.ndarray) -> Any:
        """The reference x4, bicubic (a = -0.75, not antialiased: OpenCV's), and only then cut, as upstream does."""
        import torch

        low = torch.from_numpy(np.ascontiguousarray(np.moveaxis(reflectance, 2, 0)))[None].to(self.device)
        up = torch.nn.functional.interpolate(low, scale_factor=4, mode="bicubic", align_corners=False)
        highest = torch.from_numpy(ceiling).to(self.device)[:, None, None]
        return torch.minimum(up.clamp(min=0), highest) / highest * 2 - 1


def _configuration(path: Path) -> dict[str, Any]:
    """A configuration with those that it is based on below it."""
    import yaml

    if not path.exists():  # what training writes names files that it does not need any more
        return {}
    own = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    based_on = own.pop("base_config", None) or []
    found: dict[str, Any] = {}
    for other in [based_on] if isinstance(based_on, str) else based_on:
        found.update(_configuration((path.parent if other.startswith(".") else Path()) / other))
    return {**found, **own}
