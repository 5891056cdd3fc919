"""One loop for all stages: accelerate, moving averages, saving and resuming to the bit, logs.

A step is a function of (seed, stage, step): batch, noise and dropout come from names, so what must be kept between two
processes is the weights, the optimiser, the moving average and the number of the step.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from rareflow.base import one_line
from rareflow.config import StageConfig, TrainConfig
from rareflow.errors import RareflowError
from rareflow.train.chips import stream

Report = Callable[[str, int, int, dict[str, float]], None]
Batch = tuple[dict[str, Tensor], list[str]]  # the tensors of a step, and the names of its chips


class Stage(ABC):
    """What a stage trains and on what. ``module(**batch)`` gives (loss, terms by name)."""

    name: str
    config: StageConfig
    module: nn.Module

    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """The optimiser's groups of parameters that train; all others are frozen."""

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """The tensors of a step and the ids of its chips. Called from another thread, one step ahead."""

    def before(self, step: int) -> None:
        """Called ahead of a step, for what is renewed now and then (the bank of u)."""

    def renews(self, step: int) -> bool:
        """Whether ``before`` changes what ``batch`` gives from this step on, so that it cannot be read ahead."""
        return False

    def extra_state(self) -> dict[str, Any]:
        """What else a resume needs; plain values and tensors."""
        return {}

    def load_extra(self, state: dict[str, Any]) -> None:
        """Take back ``extra_state``."""

    def validate(self, step: int) -> dict[str, float]:
        """Numbers on the held-out scenes, with the averaged weights in place."""
        return {}

    def badness(self, numbers: dict[str, float]) -> float:
        """What ``keep = "best"`` wants low, of the numbers of a validation."""
        return numbers["loss"]


def run_stage(
    stage: Stage, train: TrainConfig, folder: Path, accelerator: Accelerator, report: Report, tensorboard: Any = None
) -> dict[str, float]:
    """Train a stage, or what is left of it, and leave the averaged weights in its modules: the last ones, or those of
    the best validation.

    ``folder`` keeps ``<stage>.pt`` (state) and ``<stage>.jsonl`` (losses). Returns the validation numbers of what is
    left in the modules.
    Raises RareflowError for a loss that is not finite, with the ids of the batch; the last good state stays.
    """
    config, device = stage.config, accelerator.device
    groups = stage.groups()
    trained = [p for group in groups for p in group["params"]]
    for p in stage.module.parameters():
        p.requires_grad_(False)
    for p in trained:
        p.requires_grad_(True)
    optimiser = _optimiser(groups, config.lr, train, device)
    schedule = get_scheduler("cosine", optimiser, num_warmup_steps=config.warmup, num_training_steps=config.steps)
    average = EMAModel(trained, decay=train.ema, foreach=True)
    state_file, log_file = folder / f"{stage.name}.pt", folder / f"{stage.name}.jsonl"
    start, numbers = 0, {}
    best: dict[str, Any] = {}  # badness, validation numbers and weights of the best validation so far
    state = read_state(state_file)
    if state is not None:
        start, numbers, best = int(state["step"]), dict(state["validation"]), dict(state.get("best", {}))
        for p, saved in zip(trained, state["parameters"], strict=True):
            p.data.copy_(saved)
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        stage.load_extra(state["extra"])
        if accelerator.scaler is not None and state.get("scaler"):
            accelerator.scaler.load_state_dict(state["scaler"])
    average.to(device if train.ema_on == "device" else "cpu")
    micro = config.batch
    if start < config.steps:
        module, optimiser = accelerator.prepare(stage.module, optimiser)
        module.train()
        _cut_log(log_file, start)
        clock = time.monotonic()
        for step, batches in _read_ahead(stage, start, accelerator):
            while True:
                try:
                    terms = _gradients(stage, step, batches, micro, module, accelerator, train.seed)
                    break
                except torch.OutOfMemoryError as error:
                    if micro == 1:
                        raise RareflowError(
                            f"stage {stage.name}: one sample of {config.crop_px} px does not fit into the memory of "
                            f"{device}; lower crop_px, or set train.gradient_checkpointing ({one_line(error)})"
                        ) from None
                optimiser.zero_grad()
                micro = -(-micro // 2)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                report(stage.name, step, config.steps, {"samples_at_once": micro})
            ids = [name for _, names in batches for name in names]
            norm = accelerator.clip_grad_norm_(trained, train.clip_norm)
            # fp16's loss scale expects a few overflows: its step() leaves the weights then, and lowers the scale
            if not math.isfinite(float(norm)) and accelerator.mixed_precision != "fp16":
                raise RareflowError(
                    f"stage {stage.name}, step {step}: the gradient is {float(norm)} for the chips {', '.join(ids)}; "
                    "the state of the last save is kept: look at those chips, or lower the learning rate"
                )
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            average.step(trained if train.ema_on == "device" else [p.detach().cpu().requires_grad_() for p in trained])
            done = step + 1
            terms |= {"lr": float(schedule.get_last_lr()[0]), "grad_norm": float(norm)}
            if done % 10 == 0 or done == config.steps:
                terms["seconds"] = round(time.monotonic() - clock, 1)
                _log(log_file, {"step": done, **{k: round(v, 6) for k, v in terms.items()}})
                report(stage.name, done, config.steps, terms)
                for name, value in terms.items() if tensorboard else ():
                    tensorboard.add_scalar(f"{stage.name}/{name}", value, done)
            if done % train.validate_every == 0 or done == config.steps:
                with averaged(average, trained), torch.no_grad():
                    stage.module.eval()
                    numbers = stage.validate(done)
                    stage.module.train()
                    if train.keep == "best" and (not best or stage.badness(numbers) < best["badness"]):
                        kept = [p.detach().cpu().clone() for p in trained]
                        best = {"badness": stage.badness(numbers), "validation": numbers, "parameters": kept}
                _log(log_file, {"step": done, "validation": {k: round(v, 5) for k, v in numbers.items()}})
                report(stage.name, done, config.steps, {f"val_{k}": v for k, v in numbers.items()})
                for name, value in numbers.items() if tensorboard else ():
                    tensorboard.add_scalar(f"{stage.name}/validation/{name}", value, done)
            if done % train.save_every == 0 or done == config.steps:
                write_state(
                    state_file,
                    {
                        "step": done, "parameters": [p.detach() for p in trained], "average": average.state_dict(),
                        "optimiser": optimiser.state_dict(), "schedule": schedule.state_dict(),
                        "extra": stage.extra_state(), "validation": numbers, "best": best,
                        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else {},
                    },
                )  # fmt: skip
        stage.module = accelerator.unwrap_model(module)
        accelerator.free_memory()  # else the next stage's gradients are unscaled by this one's optimiser too
    average.copy_to(trained)
    if best:
        numbers = dict(best["validation"])
        for p, kept in zip(trained, best["parameters"], strict=True):
            p.data.copy_(kept)
    stage.module.eval().requires_grad_(False)
    return numbers


def _read_ahead(stage: Stage, start: int, accelerator: Accelerator) -> Iterator[tuple[int, list[Batch]]]:
    """Each step with its batches (one, or ``accumulate``); the next ones are read while a step is computed, unless the
    stage renews what they are read from."""
    config = stage.config
    with ThreadPoolExecutor(1, "batches") as reader:
        ahead: Future[list[Batch]] | None = None

        def read(step: int) -> list[Batch]:
            return [stage.batch(step * config.accumulate + part) for part in range(config.accumulate)]

        for step in range(start, config.steps):
            with accelerator.autocast():
                stage.before(step)
            batches = read(step) if ahead is None else ahead.result()
            last = step + 1 == config.steps or stage.renews(step + 1)
            ahead = None if last else reader.submit(read, step + 1)
            yield step, batches


def _gradients(
    stage: Stage, step: int, batches: list[Batch], micro: int, module: nn.Module, accelerator: Accelerator, seed: int
) -> dict[str, float]:
    """Leave a step's gradients in the parameters, ``micro`` samples at a time; the terms of its loss.

    A loss is a mean over samples, so the parts of a batch count by their share and add up to the whole one's gradient.
    """
    device, terms = accelerator.device, dict[str, float]()
    for part, (batch, ids) in enumerate(batches):
        torch.manual_seed(int(stream(seed, stage.name, "dropout", step, part).integers(2**62)))
        count = len(next(iter(batch.values())))
        for first in range(0, count, micro):
            some = {k: v[first : first + micro].to(device) for k, v in batch.items()}
            share = min(micro, count - first) / count / len(batches)
            final = part + 1 == len(batches) and first + micro >= count
            context = contextlib.nullcontext() if final else accelerator.no_sync(module)
            with context, accelerator.autocast():
                loss, found = module(**some)
                if not bool(torch.isfinite(loss)):
                    raise RareflowError(
                        f"stage {stage.name}, step {step}: the loss is {loss.item()} for the chips {', '.join(ids)}; "
                        "the state of the last save is kept: look at those chips, or lower the learning rate"
                    )
                accelerator.backward(loss * share)
            for name, value in found.items():
                terms[name] = terms.get(name, 0.0) + float(value) * share
    return terms


def _optimiser(
    groups: list[dict[str, Any]], lr: float, train: TrainConfig, device: torch.device
) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"lr": lr, "weight_decay": train.weight_decay, "betas": (0.9, 0.99)}
    if train.optimiser == "adamw":
        return torch.optim.AdamW(groups, **settings)
    if device.type != "cuda":
        raise RareflowError(f"train.optimiser: found {train.optimiser}, which needs a GPU, expected adamw")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise RareflowError(
            f"train.optimiser: {train.optimiser} needs the package bitsandbytes; install it, or take adamw"
        ) from None
    made: torch.optim.Optimizer = AdamW8bit(groups, **settings)
    return made


@contextlib.contextmanager
def averaged(average: EMAModel, parameters: Iterable[nn.Parameter]) -> Any:
    """The averaged weights in place of the trained ones, for the block inside."""
    parameters = list(parameters)
    average.store(parameters)
    average.copy_to(parameters)
    try:
        yield
    finally:
        average.restore(parameters)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Save a state atomically: a kill leaves the old one or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")  # one name, so that what a kill leaves is overwritten
    try:
        torch.save(state, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch's own writer makes a RuntimeError of a full disk
        temporary.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise RareflowError(f"{path} cannot be written: {reason}; free some space and run the command again") from None


def read_state(path: Path) -> dict[str, Any] | None:
    """A saved state, or None; RareflowError for a file that is none."""
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or "step" not in state:
            raise ValueError("no training state")
        return state
    except Exception as error:
        raise RareflowError(
            f"{path} is no state of a training ({' '.join(str(error).split())[:80]}); remove it to begin anew"
        ) from None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a stage's log."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _log(path: Path, line: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _cut_log(path: Path, step: int) -> None:
    """Forget the lines of steps that are trained again."""
    kept = []
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError):
                if json.loads(text)["step"] <= step:
                    kept.append(text)
    path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
