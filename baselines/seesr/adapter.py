"""SeeSR as a model of rfbench: files, prompts, and the way from an LR in [0, 1] to the task's grid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.seesr import network, prompts, tagger, text
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
    DAPE,
    MERGES,
    RAM,
    SPEC,
    TAGGER_FILES,
    TEXT,
    THRESHOLDS,
    TURBO_FILES,
    TURBO_UNET,
    UNET,
    VAE,
    VOCABULARY,
    WORDS,
)  # fmt: skip
from bench.models import (
    Batch,
    ModelSpec,
    Prediction,
    Published,
    RfbenchError,
    choice,
    converted,
    load_state,
    number,
    randomise,
    read_state,
    sha256,
    whole_number,
)  # fmt: skip

_TAGGER_REVISION = 1
_LARGEST_PX = 8192  # side of what the networks see; only very long and thin images come to it
_OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


class SeeSR(Published):
    """Options: ``variant`` (``standard``, or ``turbo``: SD-Turbo's UNet with SeeSR's image transformers, 2 steps, no
    guidance), ``tags`` (``tagger``: found by RAM in this process; ``files``: from the folder ``prompts``; ``manual``:
    ``text``, and no image tokens), ``prompts`` (with ``tagger``, where its tags are kept), ``prompt`` (the user's own
    words), ``base`` (a diffusers folder of Stable Diffusion 2 base, instead of the listed files), ``steps``,
    ``guidance``, ``conditioning``, ``start`` (``lr`` or ``noise``), ``process_px``, ``align`` (``adain``, ``wavelet``,
    ``nofix``), ``tile_cells``, ``overlap_cells``: those of ``sampler.Settings``, the variant's published ones by
    default (``auto``)."""

    system = SPEC.name

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.is_turbo = choice(options, "variant", "standard", "turbo") == "turbo"
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
        self.tags = choice(options, "tags", "tagger", "files", "manual")
        self.folder = Path(options["prompts"]) if options["prompts"] else None
        for name, needed in (("text", "manual"), ("prompts", "files")):
            if self.tags == needed and not options[name]:
                raise RfbenchError(f"tags={needed} needs the option {name}; write seesr:tags={needed},{name}=...")
        if options["text"] and self.tags != "manual":
            raise RfbenchError(f"option text: found one with tags={self.tags}, expected tags=manual; leave it out")
        if self.folder and self.tags == "manual":
            raise RfbenchError("option prompts: found one with tags=manual, expected tags=files or tags=tagger")
        self.base = Path(options["base"]) if options["base"] else None
        if self.base is not None:
            if self.is_turbo:
                raise RfbenchError(
                    "option base: found one with variant=turbo, which reads SD-Turbo's files; leave it out"
                )
            if self.is_random:
                raise RfbenchError("option base: found one with weights=random, which reads no files; leave it out")
            for inner in BASE_FILES.values():
                if not (self.base / inner).is_file():
                    raise RfbenchError(
                        f"base: found no {inner} in {self.base}, expected a diffusers folder of stable-diffusion-2-base"
                    )
        self.precomputed = prompts.Precomputed(self.folder) if self.folder and self.tags == "files" else None
        self.provider: prompts.OfWholes | None = None
        self.networks: Networks | None = None

    def label(self) -> str | None:
        """Tags that the user gave are not the published inference, and are not called so."""
        name = super().label() or ("seesr-manual-tags" if self.tags == "manual" else None)
        return f"{name or self.system}-turbo" if self.is_turbo else name

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        spec = super().specialise(spec)
        unused = {*(TAGGER_FILES if self.tags != "tagger" else ()), *(BASE_FILES if self.base else ())}
        unused |= set(TURBO_FILES) if self.is_turbo else {TURBO_UNET, *TURBO_FILES.values()}
        return dataclasses.replace(
            spec,
            weights={k: v for k, v in spec.weights.items() if k not in unused},
            licence=f"{spec.licence}; {spec.option_licences['variant']}" if self.is_turbo else spec.licence,
            unlike_paper=spec.unlike_paper or ("the turbo variant" if self.is_turbo else ""),
        )

    def identity(self) -> dict[str, Any]:
        found = super().identity() | {"settings": dataclasses.asdict(self.settings)}
        if self.precomputed:
            found["prompts_sha256"] = self.precomputed.fingerprint()
        if self.base:
            found["base_sha256"] = {name: sha256(self.base / inner) for name, inner in BASE_FILES.items()}
        return found

    def load(self, device: str, dtype: str) -> None:
        size = network.SMALL if self.is_tiny else network.FULL
        arithmetic: torch.dtype = getattr(torch, dtype)
        build: dict[str, Callable[[], Any]] = {
            UNET: lambda: network.build_unet(size),
            CONTROLNET: lambda: network.build_controlnet(size),
            VAE: lambda: network.build_vae(size),
            TEXT: lambda: text.build_text_encoder(size.text_width, text.BYTES if self.is_random else text.WORDS),
        }
        nets = {file: self._ready(make, file, device, arithmetic) for file, make in build.items()}
        self.networks = Networks(nets[UNET], nets[CONTROLNET], nets[VAE], arithmetic, torch.device(device))
        self.text = nets[TEXT]
        self.tokenize: text.Tokenize = text.byte_tokenizer
        if not self.is_random:
            self.tokenize = text.clip_tokenizer(self._path(VOCABULARY), self._path(MERGES))
        self.provider = prompts.OfWholes(self._provider(device))
        self._embedded: dict[str, torch.Tensor] = {}

    def _ready(self, make: Callable[[], Any], file: str, device: str, dtype: torch.dtype) -> Any:
        if self.is_random:
            net = make()
            randomise(net, f"{self.system}/{file}")
        else:
            # CLIP computes a buffer when it is made, so it cannot be made without memory.
            with torch.device("cpu" if file == TEXT else "meta"):
                net = make()
            tensors = read_state(self._path(file), device=device)
            if self.is_turbo and file == UNET:
                tensors = network.turbo_unet(read_state(self.weights_path(TURBO_UNET), device=device), tensors)
            load_state(net, _names(net, file, tensors), file)
        # torch's own: diffusers' warns of parts to be kept in float32, and names none
        return torch.nn.Module.to(net.eval().requires_grad_(False), device=device, dtype=dtype)

    def _path(self, file: str) -> Path:
        if self.base and file in BASE_FILES:
            return self.base / BASE_FILES[file]
        return self.weights_path(TURBO_FILES.get(file, file) if self.is_turbo else file)

    def _provider(self, device: str) -> prompts.PromptProvider:
        if self.precomputed:
            return self.precomputed
        if self.tags == "manual":
            return prompts.Manual(self.options["text"].removeprefix("[").removesuffix("]"))
        found, name = self._tagger(device)
        return prompts.Kept(found, self.folder, name) if self.folder else found

    def _tagger(self, device: str) -> tuple[tagger.Tagger, str]:
        """The tagger, and a name that says what its answers depend on."""
        size = tagger.SMALL if self.is_tiny else tagger.FULL
        net = tagger.RecognizeAnything(size)
        if self.is_random:
            randomise(net, f"{self.system}/tagger")
            words, thresholds = [f"tag {i}" for i in range(size.tags)], np.full(size.tags, 0.5, np.float32)
            name = f"{self.system}-random-{self.options['size']}"
        else:
            words, thresholds = tagger.read_words(self.weights_path(WORDS), self.weights_path(THRESHOLDS), size.tags)
            sources = {file: self.weights_path(file) for file in (RAM, DAPE)}

            def convert() -> dict[str, torch.Tensor]:
                return tagger.from_published(
                    net, read_state(sources[RAM], "model", device), read_state(sources[DAPE], device=device)
                )

            if device == "meta":
                load_state(net.to(device), convert(), f"{RAM} and {DAPE}")
                return tagger.Tagger(net, words, thresholds), ""
            path = converted("seesr-tagger", _TAGGER_REVISION, sources, convert)
            load_state(net, read_state(path), f"{RAM} and {DAPE}")
            name = path.stem  # it holds a hash of both files and of the conversion
        return tagger.Tagger(net.eval().requires_grad_(False).to(device), words, thresholds), name

    def close(self) -> None:
        self.networks = self.provider = self.text = None
        self._embedded = {}

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
            self._embedding(prompts.prompt_text(tags.text, self.options["prompt"])),
            self._embedding(prompts.NEGATIVE),
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

    def _embedding(self, words: str) -> torch.Tensor:
        if len(self._embedded) > 1000:
            self._embedded.clear()
        if words not in self._embedded:
            self._embedded[words] = text.embed(self.text, self.tokenize, words)
        return self._embedded[words]


def _names(net: Any, file: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Published tensors under the network's names."""
    if file == TEXT:
        return text.from_published(net, tensors)
    if file == VAE:  # older files have diffusers' former names of attention
        renamed = {}
        for name, tensor in tensors.items():
            for old, new in _OLD_ATTENTION.items() if ".attentions." in name else ():
                name = name.replace(old, new)
            renamed[name] = tensor
        return renamed
    return network.from_published(net, tensors)
