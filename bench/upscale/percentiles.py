"""Exact percentiles of more numbers than fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError
from bench.core.image import Array


def exact_percentiles(passes: Callable[[], Iterable[Array]], percents: Sequence[float]) -> npt.NDArray[np.float64]:
    """The percentiles of more numbers than fit into memory, as ``numpy.percentile`` (linear) gives them.

    Two passes of a radix selection: counts of the upper 16 bits of each number find the bucket of each wanted order
    statistic, counts of the lower 16 bits within that bucket find its value. Memory: half a megabyte a band.

    Parameters
    ----------
    passes : each call gives all numbers again, finite float32 (n, C) a piece.
    percents : in [0, 100].

    Returns
    -------
    float64 (len(percents), C). Raises RfbenchError where there is no number.
    """
    coarse: npt.NDArray[np.int64] | None = None
    for piece in passes():
        keys = _ordered_bits(piece)
        if coarse is None:
            coarse = np.zeros((keys.shape[1], 1 << 16), np.int64)
        for c, counts in enumerate(coarse):
            counts += np.bincount(keys[:, c] >> 16, minlength=1 << 16)
    total = int(coarse[0].sum()) if coarse is not None else 0
    if coarse is None or not total:
        raise RfbenchError("percentiles of an image without a single valid pixel; leave the image out")
    places = (np.asarray(percents, np.float64) / 100) * (total - 1)
    below = np.floor(places).astype(np.int64)
    ranks = np.unique([below, np.minimum(below + 1, total - 1)])
    ends = coarse.cumsum(axis=1)
    buckets = [np.searchsorted(band, ranks, side="right") for band in ends]
    fine = [{int(b): np.zeros(1 << 16, np.int64) for b in of_band} for of_band in buckets]
    for piece in passes():
        keys = _ordered_bits(piece)
        for c, wanted in enumerate(fine):
            for bucket, counts in wanted.items():
                inside = keys[:, c][keys[:, c] >> 16 == bucket]
                counts += np.bincount(inside & 0xFFFF, minlength=1 << 16)
    found = np.empty((len(percents), len(fine)))
    for c, wanted in enumerate(fine):
        value = {}
        for rank, bucket in zip(ranks, buckets[c], strict=True):
            inside = rank - (ends[c][bucket] - coarse[c][bucket])
            lower = np.searchsorted(wanted[int(bucket)].cumsum(), inside, side="right")
            value[int(rank)] = _from_ordered_bits(int(bucket) << 16 | int(lower))
        for i, (place, rank) in enumerate(zip(places, below, strict=True)):
            pair = [value[int(rank)], value[min(int(rank) + 1, total - 1)]]
            found[i, c] = np.quantile(np.array(pair, np.float64), place - rank)
    return found


def _ordered_bits(values: Array) -> npt.NDArray[np.uint32]:
    """The bits of finite float32 as whole numbers in the order of the values."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))


def _from_ordered_bits(key: int) -> float:
    bits = np.array([key ^ (1 << 31) if key >> 31 else key ^ 0xFFFFFFFF], np.uint32)
    return float(bits.view(np.float32)[0])
