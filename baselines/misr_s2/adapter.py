"""MISR-S2's side in rfbench: options, and eight dates of a series with their distance to the target.

The network sees Sentinel-2's R, G, B as reflectance, cut at fixed values and stretched to [-1, 1], and answers in the
same space, so its answer is reflectance too. Facts are from upstream's data loader at the pinned commit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from baselines.series import days_from, nearest
from bench.models import RGB, Array, Batch, GuestAdapter, ModelSpec, RfbenchError, choice, sha256

DATES = 8
# The 98th percentiles of upstream's training images; values beyond them are cut.
CEILING = np.array([0.2058, 0.1583, 0.1118], np.float32)


class MisrS2(GuestAdapter):
    """
    Options
    -------
    checkpoint : upstream's ``model_ckpt_steps_N.ckpt`` of the variant; ``config``: the ``config.yaml`` that its
        training wrote beside it (upstream's published configuration of the variant where empty).
    network : ``ltae`` (HighRes-net with temporal attention), ``highresnet`` (plain, fused pair by pair), ``rrdb-ltae``
        (an ESRGAN with temporal attention), each of eight dates, or ``rrdb`` (one image).
    variant : ``srdiff``, or ``regressor``: the encoder's own answer, without diffusion, the same for every draw. Of
        ``rrdb-ltae`` the regressor alone: upstream's sampler does not ask that encoder.
    series : ``dataset``, or ``repeat``: the LR itself eight times with a distance of 0 days, where there is no series.
        The model was not made for that, and tables call it ``misr-s2-one-date``.
    weights : ``own``, or ``random`` to prove the code.
    """

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        choice(options, "network", "ltae", "highresnet", "rrdb-ltae", "rrdb")
        choice(options, "variant", "srdiff", "regressor")
        choice(options, "series", "dataset", "repeat")
        self.is_random = choice(options, "weights", "own", "random") == "random"
        if options["network"] == "rrdb-ltae" and options["variant"] == "srdiff":
            raise RfbenchError(
                "network=rrdb-ltae with variant=srdiff: upstream's sampler leaves that encoder out at the pinned "
                "commit; write variant=regressor"
            )
        if options["network"] == "rrdb" and options["series"] == "repeat":
            raise RfbenchError("network=rrdb reads one image; leave series=repeat out")
        if self.is_random and options["checkpoint"]:
            raise RfbenchError("weights=random takes no checkpoint; give one of the two")
        for name in ("checkpoint", "config"):
            if options[name] and not Path(options[name]).is_file():
                raise RfbenchError(f"option {name}: {options[name]} is no file; give the one that training wrote")

    def label(self) -> str:
        parts = [
            "" if self.options["network"] == "ltae" else self.options["network"],
            self.options["variant"].replace("srdiff", ""),
        ]
        parts += ["one-date"] * (self.options["series"] == "repeat") + ["random"] * self.is_random
        return "-".join(["misr-s2", *filter(None, parts)])

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        one_image = self.options["network"] == "rrdb" or self.options["series"] == "repeat"
        return dataclasses.replace(
            spec,
            input_kind="image" if one_image else "series",
            square=self.options["network"] != "rrdb",
            stochastic=self.options["variant"] == "srdiff",
            needs_options=() if self.is_random else spec.needs_options,
            unlike_paper="random weights" if self.is_random else "",
        )

    def identity(self) -> dict[str, Any]:
        hashes = {
            name: sha256(Path(self.options[name])) if self.options[name] else None for name in ("checkpoint", "config")
        }
        return super().identity() | {"weights_kind": self.options["weights"], "files": hashes}

    def weights(self) -> Mapping[str, Any]:
        given = {name: Path(self.options[name]).resolve() for name in ("checkpoint", "config") if self.options[name]}
        return {**super().weights(), **given}

    def arrays(self, batch: Batch) -> dict[str, np.ndarray]:
        """``frames`` float32 (N, T, h, w, 3) in [-1, 1]; ``days`` float32 (N, T) from the target; ``reference``
        float32 (N, h, w, 3), the reflectance of the nearest; ``distinct`` int64 (N,), how many dates are not repeats;
        ``ceiling`` float32 (3,), the reflectance that is 1."""
        chosen = [self._chosen(batch, i) for i in range(len(batch.ids))]
        frames, days, distinct = zip(*chosen, strict=True)
        nearest = [f[np.argmin(np.abs(d))] for f, d in zip(frames, days, strict=True)]
        return {
            "frames": np.stack([to_network(f) for f in frames]),
            "days": np.stack(days),
            "reference": np.stack(nearest),
            "distinct": np.array(distinct),
            "ceiling": CEILING,
        }

    def _chosen(self, batch: Batch, i: int) -> tuple[Array, Array, int]:
        if not batch.series:
            count = 1 if self.options["network"] == "rrdb" else DATES
            return np.stack([batch.images[i]] * count), np.zeros(count, np.float32), 1
        series = batch.series[i]
        missing = [b for b in RGB if b not in series.bands]
        if missing:
            raise RfbenchError(f"band {', '.join(missing)} is needed; the series has {' '.join(series.bands)}")
        values = series.values[..., [series.bands.index(b) for b in RGB]]
        return nearest_dates(values, days_from(series.dates, batch.target_dates[i] or batch.dates[i]))


def to_network(reflectance: Array) -> Array:
    """Reflectance (..., 3) to the network's [-1, 1]."""
    return (np.clip(reflectance, 0, CEILING) / CEILING * 2 - 1).astype(np.float32)


def nearest_dates(frames: Array, days: Array) -> tuple[Array, Array, int]:
    """The ``DATES`` frames nearest to the target (``series.nearest``), their days, and how many are not repeats."""
    kept, distinct = nearest(days, DATES)
    return frames[kept], days[kept], distinct
