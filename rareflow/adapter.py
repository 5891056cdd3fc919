"""RareFlow as a model of rfbench."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.models import (
    RANDOM_KIND,
    Adapter,
    Batch,
    ModelSpec,
    Prediction,
    RfbenchError,
    Side,
    choice,
    randomise,
)
from rareflow.card import EMBEDDED, Card, card_identity, read_card, training_ids, verify
from rareflow.errors import RareflowError

if TYPE_CHECKING:
    from rareflow.model import RareFlow

# https://stability.ai/news/license-update of July 2024, which includes SD3 Medium: free for research and for other use
# without commerce, and for commerce below a million US$ of revenue a year. What was trained on them is under it too.
_BASE_LICENCE = "Stability AI Community License (SD3's weights, and what was trained on them)"

_WITHOUT_BASE = "a small network trained from nothing, without SD3 beneath it"

SPEC = ModelSpec(
    name="rareflow",
    adapter="rareflow.adapter:RareflowAdapter",
    summary="physics-aware flow matching on SD3 with gated control; embedded tiny checkpoint unless one is given",
    stochastic=True,
    supports_prompt=True,
    default_options={
        "checkpoint": "", "base": "", "steps": "", "guidance": "", "u": "measured", "temperature": "",
        "captions_dir": "", "weights": "checkpoint",
    },
    path_options=("checkpoint", "base", "captions_dir"),
    licence="Apache-2.0",
    option_licences={"base": _BASE_LICENCE},
    paper={
        "table 1": {"PSNR": 18.76, "SSIM": 0.59, "FSIM": 0.83, "LPIPS": 0.36, "DISTS": 0.30, "FID": 116.16,
                    "NIQE": 5.36, "MANIQA": 0.31},
        "table 2": {"PSNR": 28.20, "SSIM": 0.75, "FSIM": 0.87, "LPIPS": 0.13, "DISTS": 0.18, "FID": 82.53,
                    "NIQE": 4.32, "MANIQA": 0.46},
    },
    unverified=(
        "the paper's numbers: its checkpoint, data and code were not published with it. 'rfbench train --config "
        "sd3-medium --base SD3-FOLDER --data DIR' trains one of that size",
    ),
    citation="fallah2025rareflow esser2024sd3 zhang2023controlnet vonplaten2022diffusers",
    status="ready",
)  # fmt: skip


class RareflowAdapter(Adapter):
    """Options: ``checkpoint`` (a folder that ``rfbench train`` wrote; empty: the embedded one), ``base`` (the SD3
    folder or hub id beneath it), ``steps``, ``guidance`` and ``temperature`` of sampling, ``u`` (``measured``, or a
    number from 0 to 1 for the gates), ``captions_dir`` (where SD3's caption embeddings are kept), ``weights`` (of the
    ``checkpoint``, or ``random`` ones in its networks, to prove the code with)."""

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.folder = Path(options["checkpoint"]) if options["checkpoint"] else EMBEDDED
        self.steps = _number(options["steps"], "steps", int, 1, 1000)
        self.guidance = _number(options["guidance"], "guidance", float, 0, 100)
        self.temperature = _number(options["temperature"], "temperature", float, 0, 10)
        self.is_random = choice(options, "weights", "checkpoint", "random") == "random"
        self.u = None if options["u"] == "measured" else _number(options["u"], "u", float, 0, 1)
        self.model: RareFlow | None = None
        self.place: tuple[str, str] | None = None
        with _one_error():
            self.card = read_card(self.folder)

    def label(self) -> str:
        return self.card.label + "-random" * self.is_random

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        """Tiles whose answers are as large as what the checkpoint was trained on: positions beyond were never seen.

        A checkpoint on a base is under the licence of that too, whether ``base`` or its card names it.
        """
        if self.on_base:
            spec = dataclasses.replace(spec, licence=f"{spec.licence}; {_BASE_LICENCE}")
        else:
            spec = dataclasses.replace(spec, unlike_paper=_WITHOUT_BASE)
        if self.is_random:
            spec = dataclasses.replace(spec, unlike_paper="random weights")
        return dataclasses.replace(spec, max_out_side_px=self.card.crop_px, overlap_px=8)

    @property
    def on_base(self) -> bool:
        """Whether the checkpoint lies on SD3, by its card."""
        return bool(self.card.base or self.card.config.get("base"))

    def identity(self) -> dict[str, Any]:
        found: dict[str, Any] = {"checkpoint": card_identity(self.card)}
        return found | ({"weights_kind": RANDOM_KIND} if self.is_random else {})

    def training_ids(self) -> frozenset[str]:
        if self.is_random:
            return frozenset()
        with _one_error():
            return training_ids(self.folder)

    def input_side(self) -> Side | None:
        """What the numbers of an LR meant in training, for images that come without a dataset."""
        return _side(self.card, "lr")

    def output_side(self) -> Side | None:
        """What the answer's numbers mean: the HR side of the training data."""
        return _side(self.card, "hr")

    def check_weights(self) -> None:
        """Each file is held against the card's hash, a base against what the checkpoint was trained on."""
        with _one_error():
            if self.on_base:
                from rareflow.checkpoint import check

                check(self.folder, self.options["base"] or None)
            else:  # without an import that takes seconds
                verify(self.folder, self.card, self.card.files)

    def load(self, device: str, dtype: str) -> None:
        """With a base, no more than where to go: its captions are encoded first, in ``prepare``, so that the text
        encoders and the base never lie in memory together."""
        self.place = device, dtype
        self.model = None
        if not self.on_base:
            self._open(())

    def prepare(self, captions: Sequence[str]) -> None:
        if self.model is None:
            self._open(["", *captions])
        else:
            with _one_error():
                self.model.captions.prepare(["", *(captions if self.model.config.text.captions else ())])

    def _open(self, captions: Sequence[str]) -> RareFlow:
        from rareflow.checkpoint import load

        assert self.place is not None, "load() comes first"
        device, dtype = self.place
        with _one_error():
            self.model = load(
                self.folder, base=self.options["base"] or None, device=device, dtype=dtype,
                captions=self.options["captions_dir"] or None, prepare=captions,
            )  # fmt: skip
        if self.is_random:
            self._randomise(self.model)
        return self.model

    def _randomise(self, model: RareFlow) -> None:
        parts = {"transformer": model.field.transformer, "control": model.field.control, "gates": model.field.gates,
                 "vae": model.codec.vae, "text": getattr(model.captions, "table", None)}  # fmt: skip
        for name, part in parts.items():
            if part is not None:
                randomise(part, f"rareflow/{name}")

    def close(self) -> None:
        self.model = None

    def upscale(self, batch: Batch) -> Prediction:
        model = self.model or self._open(batch.captions)
        # The noise is laid over the whole image in cells of the latent grid; a tile crops it.
        cells = model.latent_cells(batch.size)
        per_px = batch.size[0] * model.config.work_scale / model.codec.factor / batch.images.shape[1]
        noise = batch.noise(model.codec.channels, per_px, cells)
        with _one_error():
            result = model.upscale(
                batch.images, batch.size, captions=batch.captions, seeds=batch.seeds, noise=noise, steps=self.steps,
                guidance=self.guidance, u=self.u, temperature=self.temperature,
            )  # fmt: skip
        facts = tuple({"u": float(u), "mean_v": float(v)} for u, v in zip(result.u, result.mean_v, strict=True))
        return Prediction(samples=result.samples, maps={"mc_dropout_var": result.v}, facts=facts)


class _one_error:
    """RareFlow's errors as the harness's."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RareflowError):
            raise RfbenchError(str(error)) from None


def _side(card: Card, name: str) -> Side | None:
    values = card.data.sides.get(name)
    if values is None:
        return None
    fields = {f.name for f in dataclasses.fields(Side)}
    return Side(**{k: v for k, v in values.items() if k in fields})


def _number(text: str, name: str, kind: type, low: float, high: float) -> Any:
    if not text:
        return None
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise RfbenchError(f"{name}: found '{text[:40]}', expected a number from {low:g} to {high:g}")
    return value
