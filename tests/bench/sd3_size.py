"""SD3 medium with random weights on a GPU: seconds an image and a training sample, and peak memory.

    python -m tests.bench.sd3_size --device cuda

24 blocks and a control of 12, 333 tokens of text, bfloat16 with the VAE in float16 for sampling and in float32 for
training, deterministic algorithms as in ``rfbench run`` and ``rfbench train``. Sampling: 512 px, 28 steps, no guidance,
encoding and decoding counted; u (T = 8) apart. Training: eq. 12 without LPIPS, whose weights random ones cannot stand
for, AdamW with control and gates in float32. ``--toy`` is the same at a size that any processor has time for: it shows
that the command works, and its figures mean nothing.
"""

from __future__ import annotations

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # repeatable matrix products on a GPU

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from bench.core import provenance
from rareflow.config import Config, with_changes
from rareflow.flow import training_levels
from rareflow.train.stages import ControlModule
from rareflow.uncertainty import measure
from tests.bench.common import machine
from tests.bench.sizes import config_of, random_model

_TOY = {
    "name": "toy", "control": {"layers": 1}, "text": {"positions": 12},
    "vae": {"block_out_channels": [8] * 4, "norm_num_groups": 4, "layers_per_block": 1},
    "transformer": {"num_layers": 2, "num_attention_heads": 1, "caption_projection_dim": 64},
}  # fmt: skip


def timed(call: Callable[[], object], device: str, repeats: int) -> str:
    """Mean seconds of a call after a first one, and the peak of memory; or that memory does not suffice."""
    cuda = device.startswith("cuda")
    try:
        call()
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        if cuda:
            torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return "out of memory"
    peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if cuda else ""
    return f"{(time.perf_counter() - started) / repeats:.3f} s{peak}"


def sampling(config: Config, device: str, px: int, steps: int) -> None:
    """Print seconds a batch of images, and of u."""
    model = random_model(config, device, torch.bfloat16)
    for batch in (1, 8):
        images = np.random.default_rng(0).uniform(0.2, 0.8, (batch, px // 5, px // 5, 3)).astype(np.float32)
        took = timed(lambda: model.upscale(images, (px, px), steps=steps, guidance=1, u=0.5), device, 3)  # noqa: B023
        print(f"sampling, {px} px, {steps} steps, batch {batch}: {took}")
    cells = px // model.codec.factor
    z = torch.randn(1, model.codec.channels, cells, cells, device=device, dtype=model.dtype)
    tokens, pooled = (t.to(device, model.dtype) for t in model.captions.get([""]))
    passes = config.uncertainty.passes
    took = timed(
        lambda: measure(
            model.field, model.masks, model.codec.decode, z=z, sigma=1.0, x=z, tokens=tokens, pooled=pooled, seeds=[0],
            passes=passes,
        ), device, 3,
    )  # fmt: skip
    print(f"u, {px} px, T = {passes}: {took}")


def training(config: Config, device: str, px: int, batch: int, checkpointing: bool) -> None:
    """Print seconds a step of ``batch`` samples."""
    model = random_model(config, device, torch.bfloat16)
    control, gates = model.field.control, model.field.gates
    assert control is not None and gates is not None
    for part in (control, model.codec.vae):
        nn.Module.to(part, dtype=torch.float32)
    if checkpointing:
        for part in (control, model.field.transformer, model.codec.vae):
            part.enable_gradient_checkpointing()
    loss = with_changes(config, {"loss": {"lambda_lpips": 0.0}}).loss
    module = ControlModule(model.field, model.masks, model.codec, loss, None).train()
    trained = [p.requires_grad_(True) for p in (*control.parameters(), *gates.parameters())]
    optimiser = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.99))
    cells, generator = px // model.codec.factor, torch.Generator().manual_seed(0)
    shape = (batch, model.codec.channels, cells, cells)
    tokens, pooled = (t.to(device) for t in model.captions.get([""] * batch))
    z0, x, eps = (torch.randn(shape, generator=generator).to(device) for _ in range(3))
    target = torch.rand(batch, 3, px, px, generator=generator).to(device)

    def step() -> None:
        sigma = training_levels(batch, 3.0, generator, uniform=0.5).to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            value, _ = module(z0, x, eps, sigma, tokens, pooled, torch.zeros_like(sigma), target)
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        optimiser.zero_grad()

    how = ", gradient checkpointing" if checkpointing else ""
    print(f"training, {px} px, batch {batch}{how}: a step {timed(step, device, 5)}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sd3_size")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--toy", action="store_true")
    given = parser.parse_args()
    provenance.deterministic()
    if given.device == "cpu":
        torch.set_num_threads(1)
        print(machine())
    else:
        facts = provenance.machine(given.device)
        print(f"{facts['accelerator']}, CUDA {facts['cuda']}, driver {facts['driver']}, torch {torch.__version__}")
    config = with_changes(config_of("sd3"), _TOY) if given.toy else config_of("sd3")
    print(f"{config.name}: {config.transformer['num_layers']} blocks, a control of {config.control.layers}")
    sampling(config, given.device, *((64, 2) if given.toy else (512, 28)))
    for px, batch, checkpointing in ((256, 4, False), (512, 4, False), (512, 8, True), (256, 1, True)):
        training(config, given.device, px // 8 if given.toy else px, batch, checkpointing)


if __name__ == "__main__":
    main()
