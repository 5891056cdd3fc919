"""Distances between two sets of feature vectors, in double precision: Fréchet's, kernel distances, and coverage.

The first two take their vectors a block at a time, so memory depends on the dimension and not on how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

_BLOCK = 1024  # vectors held at a time by what looks at all pairs


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


Kernel = Callable[[np.ndarray, np.ndarray], np.ndarray]


def kernel_distance(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """The unbiased squared MMD of two sets of vectors with the kernel (x.y / d + 1)^3, at least two each."""
    return _unbiased(first, second, _cubic)


def gaussian_distance(first: Sequence[np.ndarray], second: Sequence[np.ndarray], sigma: float) -> float:
    """The same with the kernel exp(-|x - y|^2 / (2 sigma^2))."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1)[None, :] - 2.0 * (x @ y.T)
        return np.asarray(np.exp(-squares / (2.0 * sigma**2)))

    return _unbiased(first, second, kernel)


def _unbiased(first: Sequence[np.ndarray], second: Sequence[np.ndarray], kernel: Kernel) -> float:
    n, m = len(first), len(second)
    xx, yy, xy = (_kernel_sum(p, q, kernel) for p, q in ((first, first), (second, second), (first, second)))
    return float(xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2.0 * xy / (n * m))


def _kernel_sum(first: Sequence[np.ndarray], second: Sequence[np.ndarray], kernel: Kernel) -> float:
    """The kernel's sum over all pairs; of one set, over all pairs of two different vectors."""
    total = 0.0
    for i in range(0, len(first), _BLOCK):
        x = _block(first, i)
        if first is second:
            within = kernel(x, x)
            total += within.sum() - np.trace(within)
        for j in range(i + _BLOCK if first is second else 0, len(second), _BLOCK):
            total += (2.0 if first is second else 1.0) * kernel(x, _block(second, j)).sum()
    return float(total)


def _block(vectors: Sequence[np.ndarray], start: int) -> np.ndarray:
    return np.stack([vectors[i] for i in range(start, min(start + _BLOCK, len(vectors)))]).astype(np.float64)


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    scaled = x @ y.T / x.shape[1] + 1.0
    return scaled * scaled * scaled


def covered(points: Sequence[np.ndarray], support: Sequence[np.ndarray], neighbours: int) -> float:
    """The share of ``points`` that lie in a ball around some vector of ``support``, which has more than ``neighbours``.

    A ball reaches to the vector's nearest other vector of that number, its border included. Distances are sums of
    squared differences, so that equal vectors are exactly 0 apart and a set covers itself.
    """
    from scipy.spatial.distance import cdist

    centres = np.stack([np.asarray(v, np.float64) for v in support])
    blocks = range(0, len(centres), _BLOCK)
    own = (cdist(centres[i : i + _BLOCK], centres, "sqeuclidean") for i in blocks)
    radii = np.concatenate([np.partition(d, neighbours, axis=1)[:, neighbours] for d in own])
    inside = 0
    for i in range(0, len(points), _BLOCK):
        inside += int((cdist(_block(points, i), centres, "sqeuclidean") <= radii).any(axis=1).sum())
    return inside / len(points)
