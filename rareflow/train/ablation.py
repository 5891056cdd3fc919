"""The ablation of the paper: the six rows of Table 3 and the two extremes of Figure 1, as changes of one configuration.

All variants share the frozen prior, the chips, the seed, the batches and the steps of the control stage; they differ
only in what ``VARIANTS`` says. The names of streams do not contain the variant, so every variant sees the same noise.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rareflow.card import read_card
from rareflow.config import Config, with_changes
from rareflow.errors import RareflowError
from rareflow.train.chips import Data
from rareflow.train.loop import Report
from rareflow.train.run import Tick, train

_NO_CAPTIONS = {"captions": False}
_BASE_LOSS = {"lambda_fft": 0.0, "lambda_color": 0.0, "lambda_lpips": 0.0}
_NO_GATES = {"gates": False}


@dataclass(frozen=True)
class Variant:
    """A row: its number in Table 3 (empty for the extremes of Figure 1), its name there, what is special about it in
    one clause, and the changes that make it from a configuration with everything on."""

    number: str
    title: str
    summary: str
    changes: Mapping[str, Mapping[str, Any]]

    @property
    def label(self) -> str:
        """How a table calls the row."""
        return f"{self.number} {self.title}".strip()


# "Pre-trained" is the control that is there before the paper's stage. Without a base (tiny) it is the one that was
# trained jointly with the prior, which makes rows 2 to 6 a fine-tuning of it and row 1 the loss of that start. With a
# base it is a copy of the transformer's first blocks, or the ControlNet folder that ``control.init`` names.
VARIANTS: dict[str, Variant] = {
    "from-scratch": Variant(
        "1", "Baseline (from scratch)", "control from random weights, no captions, no gates, loss of eq. 8 alone",
        {"control": {"init": "scratch"} | _NO_GATES, "text": _NO_CAPTIONS, "loss": _BASE_LOSS},
    ),
    "pretrained-control": Variant(
        "2", "+ Pre-trained CN", "as 1, with the pre-trained control",
        {"control": _NO_GATES, "text": _NO_CAPTIONS, "loss": _BASE_LOSS},
    ),
    "caption": Variant("3", "+ Caption", "2 with captions", {"control": _NO_GATES, "loss": _BASE_LOSS}),
    "caption-gate": Variant("4", "+ Caption & α-gate", "3 with the gates of eq. 2-3", {"loss": _BASE_LOSS}),
    "caption-loss": Variant("5", "+ Caption & Loss", "3 with the further losses of eq. 12", {"control": _NO_GATES}),
    "full": Variant("6", "Full Model", "captions, gates and losses", {}),
    "spatial-only": Variant("", "spatial only", "6 without captions", {"text": _NO_CAPTIONS}),
    # Nothing of it trains and its u is 0, so a bank of one chip is enough.
    "text-only": Variant(
        "", "text only", "the prior and the caption, no control (s_ctrl 0), nothing trained",
        {"control": {"s_ctrl": 0.0} | _NO_GATES, "loss": _BASE_LOSS,
         "train": {"control": {"steps": 0}, "bank_size": 1}},
    ),
}  # fmt: skip


def start_config(prior: Path) -> Config:
    """The configuration of a prior's card, named as before its training put ``-prior`` behind.

    RareflowError for a checkpoint that went through the paper's stage: its control is no common start.
    """
    card = read_card(prior)
    if card.stages is not None:
        raise RareflowError(
            f"prior {prior}: found a finished model ({card.label[:40]}), expected a prior: every variant "
            f"starts from before the control was trained; give {prior / 'prior'}"
        )
    config = Config.from_dict(card.config, f"{prior / 'card.json'}: config")
    return with_changes(config, {"name": config.name.removesuffix("-prior"), "control": {"gates": True}})


def variant_config(config: Config, name: str, steps: int | None = None) -> Config:
    """The configuration of a variant, named ``CONFIG-VARIANT``; ``steps`` replaces those of the control stage.

    ``config`` has captions, gates and losses on; RareflowError where it lacks what the variants take away.
    """
    lacking = [
        what
        for what, there in {
            "text.captions": config.text.captions,
            "control.gates": config.control.gates,
            "control.s_ctrl above 0": config.control.s_ctrl > 0,
            "one of loss.lambda_fft, lambda_color, lambda_lpips": any(
                (config.loss.lambda_fft, config.loss.lambda_color, config.loss.lambda_lpips)
            ),
        }.items()
        if not there
    ]
    if lacking:
        raise RareflowError(
            f"config {config.name}: found no {lacking[0]}, expected a configuration with everything on, from which "
            "the variants take away; turn it on"
        )
    # Only row 1 starts at random, whatever the configuration would do.
    init = "prior" if config.control.init == "scratch" else config.control.init
    common: dict[str, Any] = {"name": f"{config.name}-{name}", "control": {"init": init}}
    if steps is not None:
        common["train"] = {"control": {"steps": steps}}
    return with_changes(with_changes(config, common), dict(VARIANTS[name].changes))


def train_variants(
    config: Config, data: Data, out: Path, names: Sequence[str], *, prior: Path | None = None, steps: int | None = None,
    weights: Path | None = None, provenance: Mapping[str, Any] | None = None, report: Report = lambda *_: None,
    tick: Tick = lambda *_: None, device: str | None = None,
) -> dict[str, Path]:  # fmt: skip
    """Train the control of each variant in ``out/NAME``, or what is left of it; a finished one is not trained again.

    Parameters
    ----------
    names : of ``VARIANTS``; they are trained in this order.
    prior : the checkpoint with the frozen parts; None for a configuration with a base.
    steps : of the control stage, in place of the configuration's.
    weights, provenance, report, tick, device : as for ``rareflow.train.run.train``; ``report`` gets the variant's name
        before the stage's.

    Returns the checkpoint of each variant. Raises RareflowError for an unknown name, a missing or unfit prior, and
    what ``train`` raises.
    """
    unknown = [n for n in names if n not in VARIANTS]
    if unknown or not names:
        found = f"'{unknown[0][:40]}'" if unknown else "none"
        raise RareflowError(f"variants: found {found}, expected some of {', '.join(VARIANTS)}")
    if (prior is None) != bool(config.base):
        raise RareflowError(
            f"config {config.name}: found {'no prior' if prior is None else 'a prior beside the base ' + config.base}, "
            f"expected {'one to start all variants from' if prior is None else 'the base alone'}"
        )
    if prior is not None:
        start_config(prior)
    configs = {name: variant_config(config, name, steps) for name in names}
    cache = out / "cache"
    for name, settings in configs.items():
        train(
            settings, data, out / name, prior=prior, weights=weights, cache=cache, provenance=provenance,
            report=_named(report, name), tick=tick, device=device,
        )  # fmt: skip
    shutil.rmtree(cache, ignore_errors=True)
    return {name: out / name for name in names}


def _named(report: Report, name: str) -> Callable[[str, int, int, dict[str, float]], None]:
    return lambda stage, step, steps, numbers: report(f"{name}, {stage}", step, steps, numbers)
