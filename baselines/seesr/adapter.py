"""SeeSR as a model of rfbench: files, prompts, and the way from an LR in [0, 1] to the task's grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.seesr import network, prompts, text
from baselines.seesr.prompted import Prompted, Renamed
from baselines.seesr.sampler import (
    CELL_PX,
    TURBO,
    Networks,
    Prompt,
    Settings,
    condition_image,
    resize,
    sample,
    work_size,
)
from baselines.seesr.spec import (
    BASE_FILES,
    CONTROLNET,
    MERGES,
    SPEC,
    TEXT,
    TURBO_FILES,
    TURBO_UNET,
    UNET,
    VAE,
    VOCABULARY,
)  # fmt: skip
from bench.models import Batch, ModelSpec, Prediction, RfbenchError, choice, number, read_state, whole_number

_LARGEST_PX = 8192  # side of what the networks see; only very long and thin images come to it


class SeeSR(Prompted):
    """Options: those of ``Prompted``, ``variant`` (``standard``, or ``turbo``: SD-Turbo's UNet with SeeSR's image
    transformers, 2 steps, no guidance), ``steps``, ``guidance``, ``conditioning``, ``start`` (``lr`` or ``noise``),
    ``process_px``, ``align`` (``adain``, ``wavelet``, ``nofix``), ``tile_cells``, ``overlap_cells``: those of
    ``sampler.Settings``, the variant's published ones by default (``auto``)."""

    system = SPEC.name
    base_files = BASE_FILES
    base_name = "stable-diffusion-2-base"

    def __init__(self, **options: str) -> None:
        self.is_turbo = choice(options, "variant", "standard", "turbo") == "turbo"
        if self.is_turbo and options["base"]:
            raise RfbenchError("option base: found one with variant=turbo, which reads SD-Turbo's files; leave it out")
        super().__init__(**options)
        usual = TURBO if self.is_turbo else Settings()
        options = options | {
            name: str(getattr(usual, name))
            for name in ("steps", "guidance", "overlap_cells")
            if options[name] == "auto"
        }
        self.settings = dataclasses.replace(
            usual,
            steps=whole_number(options, "steps", 1, 1000),
            guidance=number(options, "guidance", 0, 100),
            conditioning=number(options, "conditioning", 0, 10),
            start=choice(options, "start", "lr", "noise"),
            process_px=whole_number(options, "process_px", 8, 4096),
            align=choice(options, "align", "adain", "wavelet", "nofix"),
            tile_cells=whole_number(options, "tile_cells", 8, 1024),
            overlap_cells=whole_number(options, "overlap_cells", 0, 512),
        )
        if 2 * self.settings.overlap_cells > self.settings.tile_cells:
            raise RfbenchError("option overlap_cells: found more than half of tile_cells, expected at most that")
        self.networks: Networks | None = None

    def label(self) -> str | None:
        name = super().label()
        return f"{name or self.system}-turbo" if self.is_turbo else name

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        spec = super().specialise(spec)
        return dataclasses.replace(
            spec,
            weights={k: v for k, v in spec.weights.items() if k not in self.unread()},
            licence=f"{spec.licence}; {spec.option_licences['variant']}" if self.is_turbo else spec.licence,
            unlike_paper=spec.unlike_paper or ("the turbo variant" if self.is_turbo else ""),
        )

    def unread(self) -> set[str]:
        return super().unread() | (set(TURBO_FILES) if self.is_turbo else {TURBO_UNET, *TURBO_FILES.values()})

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"settings": dataclasses.asdict(self.settings)}

    def load(self, device: str, dtype: str) -> None:
        size = network.SMALL if self.is_tiny else network.FULL
        arithmetic: torch.dtype = getattr(torch, dtype)
        words = text.BYTES if self.is_random else text.WORDS
        build: dict[str, tuple[Callable[[], Any], Renamed]] = {
            UNET: (lambda: network.build_unet(size), self._unet(device)),
            CONTROLNET: (lambda: network.build_controlnet(size), network.from_published),
            VAE: (lambda: network.build_vae(size), network.vae_from_published),
            TEXT: (lambda: text.build_text_encoder(size.text_width, words), text.from_published),
        }
        nets = {file: self.filled(make, file, device, arithmetic, names) for file, (make, names) in build.items()}
        self.networks = Networks(nets[UNET], nets[CONTROLNET], nets[VAE], arithmetic, torch.device(device))
        self.load_prompts(nets[TEXT], VOCABULARY, MERGES, device)

    def _unet(self, device: str) -> Renamed:
        """How the UNet's file is read: in the turbo variant SeeSR's file gives the image transformers alone."""
        if not self.is_turbo:
            return network.from_published

        def merged(net: Any, seesr: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            turbo = read_state(self.weights_path(TURBO_UNET), device=device)
            return network.from_published(net, network.turbo_unet(turbo, seesr))

        return merged

    def path(self, file: str) -> Path:
        return super().path(TURBO_FILES.get(file, file) if self.is_turbo else file)

    def close(self) -> None:
        super().close()
        self.networks = None

    def upscale(self, batch: Batch) -> Prediction:
        assert self.networks is not None, "load() comes first"
        samples = [self._one(batch, i) for i in range(len(batch.ids))]
        return Prediction(samples=np.stack(samples))

    def _one(self, batch: Batch, i: int) -> np.ndarray:
        """The draws of one image, one by one: no draw depends on how many there are."""
        assert self.networks is not None and self.provider is not None
        lr = np.rint(batch.images[i] * 255).clip(0, 255).astype(np.uint8)  # the original reads 8-bit pictures
        height, width = batch.size
        upscale = max(1, math.ceil(max(height / lr.shape[0], width / lr.shape[1]) - 1e-9))
        work = work_size(lr.shape[:2], upscale, self.settings.process_px)[1]
        if max(work) > _LARGEST_PX:
            raise RfbenchError(
                f"found an LR image of {lr.shape[0]}x{lr.shape[1]} px, for which the published inference works at "
                f"{work[0]}x{work[1]} px, expected at most {_LARGEST_PX} px a side; crop it nearer to a square"
            )
        condition = condition_image(lr, upscale, self.settings.process_px)
        tags = self.provider.tags(batch.ids[i], lr, batch.offset)
        prompt = Prompt(
            self.embedding(prompts.prompt_text(tags.text, self.options["prompt"])),
            self.embedding(prompts.NEGATIVE),
            torch.from_numpy(tags.tokens)[None].to(self.networks.device),
        )
        cells = (condition.height // CELL_PX, condition.width // CELL_PX)
        draws = []
        for seed in batch.seeds[i]:
            mine = dataclasses.replace(batch, images=batch.images[i : i + 1], seeds=((seed,),))
            noise = mine.noise(self.settings.noise_channels, cells[0] / lr.shape[0], cells)[0, 0]
            drawn = torch.from_numpy(np.ascontiguousarray(np.moveaxis(noise, 2, 0)))
            answer = sample(condition, prompt, drawn, self.networks, self.settings)
            draws.append(resize(answer, batch.size))
        return np.stack(draws)
