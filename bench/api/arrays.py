"""Metrics on arrays: the numbers that a run would give these pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, Unavailable
from bench.core.image import RGB, Image, quantised
from bench.core.registry import names
from bench.metrics.base import Estimate, Metric, Reference, Score, Setting
from bench.metrics.scorer import metric_class


class MetricFunction:
    """A metric as a function of arrays.

    Attributes
    ----------
    identity : the signature that travels with its numbers.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._kind = metric_class(name)
        self.__doc__ = self._kind.__doc__
        self.__name__ = self.__qualname__ = name

    @property
    def identity(self) -> str:
        """The signature with the default rounding."""
        return self._kind(Setting()).identity()

    def __call__(
        self,
        pred: Any,
        ref: Any = None,
        *,
        valid: Any = None,
        draws: Any = None,
        quantise: int | None = 8,
        device: str = "cpu",
        exact_libraries: bool = False,
    ) -> float:
        """The metric's number.

        Parameters
        ----------
        pred, ref : RGB images (H, W, 3): uint8, or floats in [0, 1]. A metric of the set takes sequences of them (and
            of ``draws``), or one. ``ref`` may be left out where the metric needs none.
        valid : bool (H, W), False where there is no data.
        draws : floats (K, H, W, 3), the draws of a distribution, for NLL, ECE and CRPS.
        quantise : 8 rounds both once to 8 bit, as protocols do; None keeps floats.
        exact_libraries : by the library that defines the metric instead of our own kernel, where we have one.

        Raises
        ------
        RfbenchError
            Why there is no number: shapes, ranges, what the metric lacks.
        """
        metric = self._kind(Setting(device, quantise=quantise, exact=exact_libraries))
        if metric.level == "set":
            if np.ndim(pred) == 3:  # a set of one
                pred, ref, draws = [pred], None if ref is None else [ref], None if draws is None else [draws]
            return self._of_set(metric, pred, ref, draws, quantise)
        found = metric.assess(_estimate(pred, quantise, draws), _reference(pred, ref, valid, quantise))
        return self._number(found)

    def _of_set(
        self, metric: Metric, preds: Sequence[Any], refs: Sequence[Any] | None, draws: Sequence[Any] | None,
        quantise: int | None,
    ) -> float:  # fmt: skip
        nothing = [None] * len(preds)
        features = []
        for pred, ref, drawn in zip(preds, refs or nothing, draws or nothing, strict=True):
            kept = metric.gather(_estimate(pred, quantise, drawn), _reference(pred, ref, None, quantise))
            if isinstance(kept, Score):
                self._number(kept)
            else:
                features.append(kept)
        found = metric.combine(features)
        return self._number(found) if isinstance(found, Score) else found.value

    def _number(self, found: Score) -> float:
        if found.value is None:
            raise Unavailable(f"{self.name}: {found.reason}")
        return found.value


def metric_function(name: str) -> MetricFunction:
    """The function of a registered metric, ``NAME_reg`` included; RfbenchError for an unknown name."""
    return MetricFunction(name)


def metric_names() -> list[str]:
    """The names of all registered metrics."""
    return names("metrics")


def _display(image: Any, what: str) -> np.ndarray:
    values = np.asarray(image)
    if values.ndim != 3 or values.shape[2] != 3:
        raise RfbenchError(f"{what}: found the shape {values.shape}, expected (H, W, 3)")
    if values.dtype == np.uint8:
        return (values / np.float32(255)).astype(np.float32)
    if values.dtype.kind != "f":
        raise RfbenchError(f"{what}: found {values.dtype}, expected uint8, or floats in [0, 1]; divide by its white")
    low, high = float(np.min(values)), float(np.max(values))
    if not (low >= 0.0 and high <= 1.0):
        raise RfbenchError(f"{what}: found values from {low:.4g} to {high:.4g}, expected [0, 1]; divide by its white")
    return values.astype(np.float32)


def _estimate(pred: Any, quantise: int | None, draws: Any) -> Estimate:
    whole = _display(pred, "pred")
    if draws is None:
        return Estimate(quantised(whole, quantise), whole)
    stacked = np.stack([_display(d, "draws") for d in draws])
    if len(stacked) < 2:
        raise RfbenchError(f"draws: found {len(stacked)}, expected two or more")
    mean = stacked.mean(axis=0, dtype=np.float64).astype(np.float32)
    std = stacked.std(axis=0, ddof=1, dtype=np.float64).astype(np.float32)
    return Estimate(quantised(whole, quantise), whole, mean=mean, std=std, draws=stacked)


def _reference(pred: Any, ref: Any, valid: Any, quantise: int | None) -> Reference:
    size = np.asarray(pred).shape[:2]
    mask = np.ones(size, bool) if valid is None else np.asarray(valid, bool)
    whole = None if ref is None else _display(ref, "ref")
    hr = None if whole is None else Image(whole, "display", RGB, mask)
    shown = None if whole is None else quantised(whole, quantise)
    return Reference("array", "array", shown, whole, hr, None, None, mask)
