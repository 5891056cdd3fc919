"""Stand-ins for the authors' code of SAMSR and MISR-S2: the module names and signatures that our shims use, over
arithmetic of our own. Nothing of theirs is here.

``repository`` makes a git repository of one, so that it is found as a checkout at a commit like the real one;
``installed`` has both systems run on theirs.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from baselines.misr_s2.spec import MISR_S2 as MISR_S2_SPEC
from baselines.samsr.spec import SAMSR as SAMSR_SPEC
from bench.core import registry
from bench.models.guests import checkout
from tests.guests import fake_environment

SAMSR = {
    "configs/SamSR.yaml": """
model: {target: models.unet.UNetModelSwin, params: {in_channels: 6}}
diffusion:
  target: models.script_util.create_gaussian_diffusion
  params: {sf: 4, schedule_name: exponential, schedule_kwargs: {power: 0.3}, steps: 15}
autoencoder: {target: ldm.models.autoencoder.VQModelTorch, params: {embed_dim: 3, ddconfig: {ch_mult: [1, 2, 4]}}}
""",
    "models/unet.py": """
import torch
class UNetModelSwin(torch.nn.Module):
    def __init__(self, in_channels):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(3))
    def forward(self, x, lq):
        assert x.shape == lq.shape and lq.shape[2] % 64 == lq.shape[3] % 64 == 0
        return lq * self.gain[:, None, None] + 0.1 * x
""",
    "models/script_util.py": """
from .gaussian_diffusion import Diffusion
def create_gaussian_diffusion(*, sf, schedule_name, schedule_kwargs, steps):
    assert (sf, schedule_kwargs, steps) == (4, {"power": 0.3}, 15)
    return Diffusion(sf)
""",
    "models/gaussian_diffusion.py": """
import torch
from script_segment import load_sam_model
class Diffusion:
    def __init__(self, sf):
        self.sf = sf
    def p_sample_loop(self, y, model, first_stage_model=None, noise=None, noise_repeat=False, clip_denoised=True,
                      denoised_fn=None, model_kwargs=None, device=None, progress=False, one_step=False,
                      apply_decoder=True):
        print("Using a modified parameter")
        assert noise is None and one_step and not clip_denoised and -1 <= y.min() and y.max() <= 1
        masks = load_sam_model()(y)
        z = torch.randn_like(y) * masks
        return first_stage_model.decode(model(z, **model_kwargs))
""",
    "script_segment.py": """
def load_sam_model(model_type="vit_b", checkpoint="weights/sam_vit_b_01ec64.pth", device=None):
    raise FileNotFoundError(checkpoint)
""",
    "segment_anything/__init__.py": """
import torch
class Sam(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.ones(1))
    def forward(self, y):
        return (y > 0).float() * self.level
sam_model_registry = {"vit_b": lambda checkpoint=None: Sam()}
""",
    "ldm/models/autoencoder.py": """
import torch
class VQModelTorch(torch.nn.Module):
    def __init__(self, embed_dim, ddconfig):
        super().__init__()
        assert ddconfig["ch_mult"] == [1, 2, 4]
        self.scale = torch.nn.Parameter(torch.ones(1))
    def decode(self, z, force_not_quantize=False, grad_forward=False):
        return torch.nn.functional.interpolate(z * self.scale, scale_factor=4, mode="nearest")
""",
}

MISR_S2 = {
    "utils/hparams.py": "hparams = {}\n",
    "configs/config_base.yaml": "seed: 1234\nsr_scale: 0\n",
    "configs/df2k4x.yaml": "sr_scale: 4\n",
    "configs/diffsr_base.yaml": "base_config: ./config_base.yaml\ntimesteps: 5\nloss_type: l1\nrrdb_num_block: 17\n"
    "rrdb_num_feat: 8\nhidden_size: 8\n",
    "configs/diffsr_hr_ltae.yaml": "base_config: [./diffsr_base.yaml, ./df2k4x.yaml]\nunet_dim_mults: 1|2|3|4\n"
    "use_ltae: true\nmisr_ref_image: median\n",
    "configs/diffsr_sat.yaml": "base_config: [./diffsr_base.yaml, ./df2k4x.yaml]\nunet_dim_mults: 1|2|3|4\n"
    "use_rrdb: true\nrrdb_num_block: 2\n",
    "configs/misr/misr_pretrain.yaml": "base_config: [../config_base.yaml, ../df2k4x.yaml]\nmisr_ref_image: closest\n",
    "configs/diffsr_highresnet.yaml": "base_config: [./diffsr_base.yaml, ./df2k4x.yaml]\nunet_dim_mults: 1|2|3|4\n"
    "use_highresnet: true\nsen2_amount: 8\n",
    "configs/misr/highresnet.yaml": "base_config: [../config_base.yaml, ../df2k4x.yaml]\nsen2_amount: 8\n",
    "configs/misr/rrdb_ltae.yaml": "base_config: [../config_base.yaml, ../df2k4x.yaml]\nhidden_size: 8\nnum_block: 3\n",
    "configs/rrdb/rrdb.yaml": "base_config: [../config_base.yaml, ../df2k4x.yaml]\nhidden_size: 8\nnum_block: 3\n",
    "tasks/config_hrnet.json": '{"network": {"encoder": {"channel_size": 8}}}\n',
    "tasks/config_rrdb_misr.json": '{"network": {"encoder": {"channel_size": 32}}}\n',
    "models/config_hrnet.json": '{"network": {"encoder": {"in_channels": 6}}}\n',
    "models/HRNet.py": """
import torch
from utils.hparams import hparams
class HRNet(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        assert config["encoder"]["in_channels"] == 6 and hparams["sen2_amount"] == 8
        self.weight = torch.nn.Parameter(torch.ones(1))
    def forward(self, lrs, alphas, get_fea=False):
        assert lrs.ndim == 5 and lrs.shape[:3] == (1, 8, 3) and lrs.shape[3] == lrs.shape[4]
        assert alphas.shape == (1, 8) and alphas.dtype == torch.float32
        low = (lrs * alphas[:, :, None, None, None]).sum(1) / alphas.sum() * self.weight
        out = torch.nn.functional.interpolate(low, scale_factor=4, mode="nearest")
        return (out, low) if get_fea else out
""",
    "models/misr_module.py": """
import torch
from utils.hparams import hparams
class HighResLtaeNet(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((3,), 0.5))
        self.drop = torch.nn.Dropout(0.9)
        assert hparams["sr_scale"] == 4
    def forward(self, lrs, dates, config, get_fea=False):
        assert lrs.ndim == 5 and lrs.shape[:3] == (1, 8, 3) and lrs.shape[3] == lrs.shape[4] and lrs.shape[3] % 2 == 0
        assert dates.shape == (1, 8) and config["network"]["encoder"]["channel_size"] == 8
        assert hparams["misr_ref_image"] in ("closest", "median")
        weights = torch.softmax(-dates.abs(), 1)[:, :, None, None, None]
        low = self.drop((lrs * weights).sum(1)) * 2 * self.weight[:, None, None]
        out = torch.nn.functional.interpolate(low, scale_factor=4, mode="nearest")
        return (out, low) if get_fea else out
class RRDBLtaeNet(HighResLtaeNet):
    def __init__(self, in_nc, out_nc, nf, nb, gc=32):
        super().__init__({})
        assert (in_nc, out_nc, nf, nb, gc) == (3, 3, 8, 3, 4)
    def forward(self, lrs, dates, config, get_fea=False):
        assert config["network"]["encoder"]["channel_size"] == 32
        hparams["misr_ref_image"] = "closest"
        return super().forward(lrs, dates, {"network": {"encoder": {"channel_size": 8}}}, get_fea)
""",
    "models/diffsr_modules.py": """
import torch
from utils.hparams import hparams
class RRDBNet(torch.nn.Module):
    def __init__(self, in_nc, out_nc, nf, nb, gc=32):
        super().__init__()
        assert (nf, gc) == (8, 4) and nb in (2, 3)
        self.weight = torch.nn.Parameter(torch.ones(1))
    def forward(self, x, get_fea=False):
        assert x.ndim == 4 and x.shape[1] == 3 and x.shape[2] % 2 == x.shape[3] % 2 == 0
        out = torch.nn.functional.interpolate(x * self.weight, scale_factor=4, mode="nearest")
        return (out, [x]) if get_fea else out
class Unet(torch.nn.Module):
    def __init__(self, dim, out_dim=None, dim_mults=(1, 2, 4, 8), cond_dim=32):
        super().__init__()
        assert (dim, out_dim, list(dim_mults), cond_dim) == (8, 3, [1, 2, 3, 4], 8)
        self.bias = torch.nn.Parameter(torch.zeros(1))
""",
    "models/diffusion.py": """
import torch
from utils.hparams import hparams
class GaussianDiffusion(torch.nn.Module):
    def __init__(self, denoise_fn, rrdb_net, timesteps=1000, loss_type="l1"):
        super().__init__()
        assert (timesteps, loss_type) == (5, "l1")
        self.denoise_fn, self.rrdb, self.sample_tqdm = denoise_fn, rrdb_net, True
    def sample(self, img_lr, img_lr_up, shape, save_intermediate=False, dates=None, config=None, alphas=None):
        assert not self.sample_tqdm and not self.training
        asked = {"dates": dates, "config": config} if hparams["use_ltae"] else {}
        out = self.rrdb(img_lr, **asked, **({"alphas": alphas} if hparams["use_highresnet"] else {}))
        residual = torch.randn(shape) * 0.05 + self.denoise_fn.bias
        return residual.clamp(-1, 1) / 2 + img_lr_up, out
""",
}


def repository(folder: Path, files: Mapping[str, str]) -> str:
    """Lay ``files`` into a new git repository; returns its commit."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.lstrip("\n"))
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"], ["rev-parse", "HEAD"]):
        done = subprocess.run(["git", *who, "-C", str(folder), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@contextmanager
def installed(folder: Path, **changes: Any) -> Iterator[None]:
    """Both systems with a stand-in as their checkout, and environments, below ``folder``; ``changes`` of specs."""
    plain = registry.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFBENCH_ENVS", str(folder / "envs"))
        patch.setenv("RFBENCH_WEIGHTS", str(folder / "weights"))
        patch.setenv("TMPDIR", str(folder))
        patch.setattr("tempfile.tempdir", None)
        specs = {}
        for spec, files in ((SAMSR_SPEC, SAMSR), (MISR_S2_SPEC, MISR_S2)):
            source = folder / spec.name
            commit = repository(source, files)
            # The tests' own files pass for the published ones.
            unlisted = {name: {**entry, "sha256": ""} for name, entry in spec.weights.items()}
            specs[spec.name] = dataclasses.replace(spec, commit=commit, weights=unlisted, **changes)
            checkout.make(spec.name, source.as_uri(), commit, source)
            assert spec.environment is not None
            fake_environment(spec.environment)
        points = dict(registry.points("models")) | {name: _Point(name) for name in specs}
        found = registry.points
        patch.setattr(registry, "load", lambda kind, name: specs.get(name) or plain(kind, name))
        patch.setattr(registry, "points", lambda kind: points if kind == "models" else found(kind))
        yield


class _Point:
    """An entry point of this package, whichever version of it is installed."""

    dist = None

    def __init__(self, name: str) -> None:
        self.module = {"samsr": "baselines.samsr.spec", "misr-s2": "baselines.misr_s2.spec"}[name]
        self.value = f"{self.module}:SPEC"
