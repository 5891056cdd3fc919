"""Distances between two sets of feature vectors, in double precision: Fréchet's and the kernel distance.

Both take their vectors a block at a time, so memory depends on the dimension and not on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

_BLOCK = 1024  # vectors held at a time by the kernel distance


def frechet_distance(first: Iterable[np.ndarray], second: Iterable[np.ndarray]) -> float:
    """The Fréchet distance of Gaussians fitted to two sets of vectors of d features, at least two each.

    With the centred vectors over sqrt(N - 1) as rows of A and B, S1 = A'A and S2 = B'B, and the eigenvalues of S1 S2
    are the squared singular values of A B', so the trace of its root is their sum. Any matrix with the same A'A will
    do: of more than d vectors the triangle R of a QR decomposition is kept, to which further ones are added.
    """
    a, b = _Spread(first), _Spread(second)
    root = np.linalg.svd(a.factor @ b.factor.T, compute_uv=False).sum()
    distance = ((a.mean - b.mean) ** 2).sum() + (a.factor**2).sum() + (b.factor**2).sum() - 2.0 * root
    return max(float(distance), 0.0)


class _Spread:
    """Mean (d,) and a ``factor`` F of at most d rows whose F'F is the unbiased covariance of a stream of vectors."""

    def __init__(self, vectors: Iterable[np.ndarray]) -> None:
        self.count, self.mean, self.factor = 0, np.zeros(0), np.zeros((0, 0))
        waiting: list[np.ndarray] = []
        for vector in vectors:
            waiting.append(np.asarray(vector))
            if len(waiting) == len(vector):
                self._add(np.stack(waiting))
                waiting = []
        if waiting:
            self._add(np.stack(waiting))
        self.factor /= np.sqrt(self.count - 1)

    def _add(self, block: np.ndarray) -> None:
        """Merge a block: the scatter about the common mean is both scatters and that of the two means."""
        x = block.astype(np.float64)
        mean = x.mean(axis=0)
        x -= mean
        if self.count:
            n, m = self.count, len(x)
            between = np.sqrt(n * m / (n + m)) * (mean - self.mean)
            x = np.concatenate([self.factor, x, between[None]])
            mean = self.mean + (mean - self.mean) * (m / (n + m))
        self.count, self.mean = self.count + len(block), mean
        self.factor = x if x.shape[0] <= x.shape[1] else np.asarray(np.linalg.qr(x, mode="r"))


def kernel_distance(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """The unbiased squared MMD of two sets of vectors with the kernel (x.y / d + 1)^3, at least two each."""
    n, m = len(first), len(second)
    xx, yy, xy = (_kernel_sum(p, q) for p, q in ((first, first), (second, second), (first, second)))
    return float(xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2.0 * xy / (n * m))


def _kernel_sum(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """The kernel's sum over all pairs; of one set, over all pairs of two different vectors."""
    total = 0.0
    for i in range(0, len(first), _BLOCK):
        x = _block(first, i)
        if first is second:
            within = _kernel(x, x)
            total += within.sum() - np.trace(within)
        for j in range(i + _BLOCK if first is second else 0, len(second), _BLOCK):
            total += (2.0 if first is second else 1.0) * _kernel(x, _block(second, j)).sum()
    return float(total)


def _block(vectors: Sequence[np.ndarray], start: int) -> np.ndarray:
    return np.stack([vectors[i] for i in range(start, min(start + _BLOCK, len(vectors)))]).astype(np.float64)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    scaled = x @ y.T / x.shape[1] + 1.0
    return scaled * scaled * scaled
