"""OSEDiff as a model of rfbench: files, prompts, and the way from an LR in [0, 1] to the task's grid."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from baselines.osediff import network
from baselines.osediff.sampler import LATENT_CHANNELS, Settings, answer
from baselines.osediff.spec import BASE_FILES, MERGES, SPEC, TEXT, TUNED, UNET, VAE, VOCABULARY
from baselines.seesr import text
from baselines.seesr.network import FULL, SMALL, build_vae, vae_from_published
from baselines.seesr.prompted import Prompted, Renamed
from baselines.seesr.sampler import CELL_PX, condition_image, resize, work_size
from bench.models import Batch, ModelSpec, Prediction, RfbenchError, choice, read_state, whole_number

_LARGEST_PX = 8192  # side of what the networks see; only very long and thin images come to it


class OSEDiff(Prompted):
    """Options: those of ``Prompted``, ``process_px``, ``align`` (``adain``, ``wavelet``, ``nofix``), ``tile_cells``,
    ``overlap_cells``: those of ``sampler.Settings``."""

    system = SPEC.name
    base_files = BASE_FILES
    base_name = "stable-diffusion-2-1-base"

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.settings = Settings(
            process_px=whole_number(options, "process_px", 8, 4096),
            align=choice(options, "align", "adain", "wavelet", "nofix"),
            tile_cells=whole_number(options, "tile_cells", 8, 1024),
            overlap_cells=whole_number(options, "overlap_cells", 0, 512),
        )
        if 2 * self.settings.overlap_cells > self.settings.tile_cells:
            raise RfbenchError("option overlap_cells: found more than half of tile_cells, expected at most that")

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        spec = super().specialise(spec)
        return dataclasses.replace(spec, weights={k: v for k, v in spec.weights.items() if k not in self.unread()})

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"settings": dataclasses.asdict(self.settings)}

    def load(self, device: str, dtype: str) -> None:
        size = SMALL if self.is_tiny else FULL
        arithmetic: torch.dtype = getattr(torch, dtype)
        words = text.BYTES if self.is_random else text.WORDS
        self.unet = self.filled(
            lambda: network.build_unet(size), UNET, device, arithmetic, self._with_updates("state_dict_unet", device)
        )
        self.vae = self.filled(
            lambda: build_vae(size), VAE, device, arithmetic, self._with_updates("state_dict_vae", device)
        )
        encoder = self.filled(
            lambda: text.build_text_encoder(size.text_width, words), TEXT, device, arithmetic, text.from_published
        )
        self.load_prompts(encoder, VOCABULARY, MERGES, device)

    def _with_updates(self, under: str, device: str) -> Renamed:
        """How a network's file is read: its updates are in OSEDiff's own file, ``under`` a name."""

        def renamed(net: Any, tensors: Any) -> dict[str, torch.Tensor]:
            updates = read_state(self.weights_path(TUNED), under, device)
            return network.tuned(net, vae_from_published(net, tensors), updates, TUNED)

        return renamed

    def close(self) -> None:
        super().close()
        self.unet = self.vae = None

    def upscale(self, batch: Batch) -> Prediction:
        return Prediction(samples=np.stack([self._one(batch, i) for i in range(len(batch.ids))]))

    def _one(self, batch: Batch, i: int) -> np.ndarray:
        """The draws of one image, one by one: no draw depends on how many there are."""
        assert self.provider is not None, "load() comes first"
        lr = np.rint(batch.images[i] * 255).clip(0, 255).astype(np.uint8)  # the original reads 8-bit pictures
        height, width = batch.size
        upscale = max(1, math.ceil(max(height / lr.shape[0], width / lr.shape[1]) - 1e-9))
        work = work_size(lr.shape[:2], upscale, self.settings.process_px)[1]
        if max(work) > _LARGEST_PX:
            raise RfbenchError(
                f"found an LR image of {lr.shape[0]}x{lr.shape[1]} px, for which the published inference works at "
                f"{work[0]}x{work[1]} px, expected at most {_LARGEST_PX} px a side; crop it nearer to a square"
            )
        condition = condition_image(lr, upscale, self.settings.process_px, Image.Resampling.LANCZOS)
        # Unlike SeeSR's, the tags are those of the enlarged image.
        tags = self.provider.tags(batch.ids[i], lr, batch.offset, np.asarray(condition))
        prompt = self.embedding(f"{tags.text}, {self.options['prompt']},")
        cells = (condition.height // CELL_PX, condition.width // CELL_PX)
        draws = []
        for seed in batch.seeds[i]:
            mine = dataclasses.replace(batch, images=batch.images[i : i + 1], seeds=((seed,),))
            noise = mine.noise(LATENT_CHANNELS, cells[0] / lr.shape[0], cells)[0, 0]
            drawn = torch.from_numpy(np.ascontiguousarray(np.moveaxis(noise, 2, 0)))
            image = answer(condition, prompt, drawn, self.unet, self.vae, self.settings)
            draws.append(resize(image, batch.size))
        return np.stack(draws)
