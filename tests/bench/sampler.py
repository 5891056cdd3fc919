"""Our sampler and gates against diffusers' ``StableDiffusion3ControlNetPipeline``. Goal: at most 3 % more work.

Both have the same networks with the same random weights, the same LR image (already enlarged), noise and embedded
caption, Euler steps, batch and device; both encode and decode; guidance is off in both, and u is given, so that no
pass of MC dropout is counted here (``tests.bench.uncertainty`` counts those). With gates that let everything through,
the images agree. (The pipeline's VAE reads pixels, so tiny has an ordinary one here, of the same latents; and its
patches stay where they are.) Work is what is counted: floating-point operations of matrix products, convolutions and
attention, and calls of torch's operators (those that operators make included). Times are of repeats in turns: medians
of wall, and of the processor's time.

On a processor ``RareFlow.upscale`` runs one image after another, so that an image comes out the same in whatever batch.
What that costs is seen with a batch of 4, beside the same sampler with all four at once, as on a GPU.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3ControlNetPipeline
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from rareflow.flow import euler, noise_levels
from rareflow.model import RareFlow
from tests.bench.common import machine
from tests.bench.sizes import config_of, random_model

Call = Callable[[], np.ndarray]
_TEXT = ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")


def sides(model: RareFlow, px: int, steps: int, batch: int) -> dict[str, Call]:
    """Calls that give ``batch`` images (B, px, px, 3): diffusers', ours, and ours with all images at once."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0.2, 0.8, (batch, px, px, 3)).astype(np.float32)
    noise = rng.standard_normal((batch, 1, *model.latent_cells((px, px)), model.codec.channels)).astype(np.float32)
    tokens, pooled = (t.to(model.device, model.dtype) for t in model.captions.get([""] * batch))
    pipeline = StableDiffusion3ControlNetPipeline(
        transformer=model.field.transformer, vae=model.codec.vae, controlnet=model.field.control,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=model.config.sampling.shift), **dict.fromkeys(_TEXT),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    control = 2 * torch.from_numpy(images.transpose(0, 3, 1, 2)) - 1
    start = torch.from_numpy(noise[:, 0].transpose(0, 3, 1, 2).copy())

    def upscale() -> np.ndarray:
        return model.upscale(images, (px, px), noise=noise, steps=steps, guidance=1, u=0.5).samples[:, 0]

    def at_once() -> np.ndarray:
        u = torch.full((batch,), 0.5)
        with torch.no_grad():
            x = model.codec.encode((control + 1) / 2)
            levels = noise_levels(steps, model.config.sampling.shift)
            z = euler(start, levels, lambda _, now, sigma: model.field.velocity(now, sigma, x, tokens, pooled, u))
            return model.codec.decode(z).clamp(0, 1).permute(0, 2, 3, 1).numpy()

    def theirs() -> np.ndarray:
        found: np.ndarray = pipeline(
            prompt_embeds=tokens, pooled_prompt_embeds=pooled, num_inference_steps=steps, guidance_scale=1.0,
            control_image=control, latents=start.to(model.device, model.dtype), output_type="np",
        ).images  # fmt: skip
        return found

    return {"pipeline": theirs, "ours": upscale} | ({"ours, at once": at_once} if batch > 1 else {})


def count(call: Call) -> tuple[float, int]:
    """GFLOP and calls of operators."""
    with FlopCounterMode(display=False) as counter:
        call()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        call()
    calls = sum(e.count for e in profiled.key_averages() if e.key.startswith("aten::"))
    return counter.get_total_flops() / 1e9, calls


def times(calls: dict[str, Call], repeats: int) -> dict[str, tuple[float, float]]:
    """Medians of wall and of processor seconds, in turns."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            found[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {name: tuple(map(statistics.median, zip(*rows, strict=True))) for name, rows in found.items()}


def main(repeats: int = 7) -> None:
    """Measure and print; last in a line, how much more than the pipeline."""
    torch.set_num_threads(1)
    print(f"{machine()}, 1 thread")
    for size, px, steps, batch in (("tiny-pixels", 204, 20, 1), ("tiny-pixels", 204, 20, 4), ("mid", 256, 8, 1)):
        model = random_model(config_of(size))
        calls = sides(model, px, steps, batch)
        gates, model.field.gates = model.field.gates, None
        images = [call() for call in calls.values()]
        difference = max(float(np.abs(found - images[0]).max()) for found in images)
        print(f"{size}, {px} px, {steps} steps, batch {batch}: without gates images differ by {difference:.1e} at most")
        model.field.gates = gates
        counted = {name: count(call) for name, call in calls.items()}
        timed = times(calls, repeats)
        peer = (*counted["pipeline"], *timed["pipeline"])
        for name in calls:
            row = (*counted[name], *timed[name])
            more = (100 * (mine / theirs - 1) for mine, theirs in zip(row, peer, strict=True))
            print("  {}: {:.2f} GFLOP, {} calls, {:.3f} s wall, {:.3f} s processor".format(name, *row), end="; ")
            print("{:+.2f} %, {:+.1f} %, {:+.1f} %, {:+.1f} %".format(*more))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
