"""What the statistics of ``rfbench compare``, ``table --ci`` and ``gate`` keep of their word, by simulation.

``python -m tests.bench.statistics`` prints, for n images in G scenes of unequal sizes (the largest twice the smallest)
and four shapes of differences, how often the 95 % interval holds the truth, how often p < 0.05 without a difference,
and how often the effect that is called detectable is found; beside them methods that were not taken. Then the same of
sets (FID, KID) whose features are drawn. ``--jobs 2`` uses two processes; no number depends on it.

Differences are sqrt(r) scene + sqrt(1 - r) image with r = 0.3, both of one shape with mean 0 and variance 1: normal,
skewed (exponential, skewness 2), very skewed (lognormal, sigma 0.75, skewness 3.3), heavy (Student's t, 3 degrees of
freedom). So "no difference" is a mean of 0, also where that is not symmetric, for which sign flips are not exact.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import time
from collections.abc import Callable

import numpy as np
from scipy import stats

from bench.metrics.realism import FidTf, KidTf
from bench.stats.means import flipped, generator, holm, inverted, needed, quantiles, studentised
from bench.stats.sets import set_difference
from tests.bench.common import machine

CORRELATION = 0.3
RESAMPLES, BLOCK = 1999, 500  # replicates that share their resamples
SCENES = {24: (6, 8, 12, 24), 30: (6, 10, 15, 30), 100: (6, 10, 20, 50), 300: (6, 10, 30, 60)}
_LOGNORMAL = 0.75
SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewed": lambda rng, shape: rng.standard_exponential(shape) - 1.0,
    "very skewed": lambda rng, shape: (
        (np.exp(_LOGNORMAL * rng.standard_normal(shape)) - np.exp(_LOGNORMAL**2 / 2))
        / np.sqrt((np.exp(_LOGNORMAL**2) - 1) * np.exp(_LOGNORMAL**2))
    ),
    "heavy": lambda rng, shape: rng.standard_t(3, shape) / np.sqrt(3.0),
}
Cell = tuple[int, int, str, int]


def sizes_of(n: int, count: int) -> np.ndarray:
    """The images of each scene: n in all, rising to about twice as many."""
    ends = np.rint(np.cumsum(np.linspace(1.0, 2.0, count)) * n / (1.5 * count))
    return np.diff(np.concatenate([[0.0], ends]))


def draw(rng: np.random.Generator, shape: str, sizes: np.ndarray, replicates: int) -> np.ndarray:
    """The scenes' sums of differences, (G, replicates)."""
    one = SHAPES[shape]
    scene = np.sqrt(CORRELATION) * one(rng, (len(sizes), replicates)) * sizes[:, None]
    image = [one(rng, (int(m), replicates)).sum(axis=0) for m in sizes]
    return np.asarray(scene + np.sqrt(1.0 - CORRELATION) * np.stack(image))


def bca_holds_0(sums: np.ndarray, sizes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Whether the 95 % interval of the BCa bootstrap over scenes (Efron 1987) holds 0, (R,)."""
    mean = sums.sum(axis=0) / sizes.sum()
    drawn = np.sort((counts @ sums) / (counts @ sizes)[:, None], axis=0)
    share = np.clip((drawn < mean).mean(axis=0), 1e-4, 1 - 1e-4)
    left = (sums.sum(axis=0) - sums) / (sizes.sum() - sizes)[:, None]
    away = left.mean(axis=0) - left
    acceleration = (away**3).sum(axis=0) / (6.0 * (away**2).sum(axis=0) ** 1.5)
    middle = stats.norm.ppf(share)
    ends = []
    for z in stats.norm.ppf([0.025, 0.975]):
        level = stats.norm.cdf(middle + (middle + z) / (1.0 - acceleration * (middle + z)))
        ends.append(drawn[np.clip((level * len(drawn)).astype(int), 0, len(drawn) - 1), np.arange(sums.shape[1])])
    return np.asarray((ends[0] <= 0) & (ends[1] >= 0))


def means(cell: Cell) -> dict[str, float]:
    """The shares of one cell: coverage of three intervals, false alarms of p and of flips alone, power."""
    n, count, shape, replicates = cell
    sizes = sizes_of(n, count)
    rng = generator("simulation", [*map(str, cell)])
    exact = 2**count <= RESAMPLES
    hits: dict[str, float] = dict.fromkeys(("interval", "student", "bca", "alarm", "flips", "power"), 0)
    # The variance of the mean, of which the effect that is called detectable is a multiple.
    spread = np.sqrt(CORRELATION * (sizes**2).sum() + (1.0 - CORRELATION) * n) / n
    for _ in range(replicates // BLOCK):
        sums = draw(rng, shape, sizes, BLOCK)
        counts = rng.multinomial(count, np.full(count, 1.0 / count), RESAMPLES).astype(float)
        signs = signs_of(rng, count, exact)
        mean = sums.sum(axis=0) / n
        residuals = sums - sizes[:, None] * mean
        error = np.sqrt(count / (count - 1) * (residuals**2).sum(axis=0)) / n
        ratios = studentised(residuals, sizes[:, None], counts)
        low, high = quantiles(ratios, count)
        observed = mean / error
        hits["interval"] += np.count_nonzero((low <= observed) & (observed <= high))
        hits["student"] += np.count_nonzero(np.abs(observed) <= stats.t.ppf(0.975, count - 1))
        hits["bca"] += np.count_nonzero(bca_holds_0(sums, sizes, counts))
        p_flip = flipped(sums, signs, exact)
        hits["flips"] += np.count_nonzero(p_flip < 0.05)
        hits["alarm"] += np.count_nonzero(np.maximum(p_flip, inverted(ratios, observed, count)) < 0.05)
        shift = needed(count) * spread
        p_flip = flipped(sums + shift * sizes[:, None], signs, exact)
        hits["power"] += np.count_nonzero(np.maximum(p_flip, inverted(ratios, (mean + shift) / error, count)) < 0.05)
    return {name: found / (replicates // BLOCK * BLOCK) for name, found in hits.items()}


GATES = ((24, 24), (24, 8), (100, 20), (300, 60))
METRICS = 8


def gate(cell: Cell) -> float:
    """How often a gate with a statistical rule for each of 8 metrics raises an alarm where none has moved: half of each
    metric's difference is common to all, as where they see the same errors."""
    n, count, shape, replicates = cell
    sizes = sizes_of(n, count)
    rng = generator("simulation of gates", [*map(str, cell)])
    exact = 2**count <= RESAMPLES
    alarms, each = 0, BLOCK // METRICS
    for _ in range(replicates // BLOCK):
        common = np.repeat(draw(rng, shape, sizes, each), METRICS, axis=1)
        sums = np.sqrt(0.5) * (common + draw(rng, shape, sizes, each * METRICS))
        counts = rng.multinomial(count, np.full(count, 1.0 / count), RESAMPLES).astype(float)
        found = p_values(sums, sizes, counts, signs_of(rng, count, exact), exact)
        alarms += sum(min(holm(list(p))) < 0.05 for p in found.reshape(each, METRICS))
    return alarms / (replicates // BLOCK * each)


def signs_of(rng: np.random.Generator, count: int, exact: bool) -> np.ndarray:
    """All signs of scenes, or as many as there are resamples."""
    if exact:
        return 1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    return 1.0 - 2.0 * rng.integers(0, 2, (RESAMPLES, count))


def p_values(sums: np.ndarray, sizes: np.ndarray, counts: np.ndarray, signs: np.ndarray, exact: bool) -> np.ndarray:
    """The p of each column, the larger of the two, as ``bench.stats.means.mean_of`` has it."""
    count, n = len(sizes), sizes.sum()
    residuals = sums - sizes[:, None] * sums.sum(axis=0) / n
    error = np.sqrt(count / (count - 1) * (residuals**2).sum(axis=0)) / n
    ratios = studentised(residuals, sizes[:, None], counts)
    return np.maximum(flipped(sums, signs, exact), inverted(ratios, sums.sum(axis=0) / n / error, count))


SETS = ((24, 6), (24, 12), (24, 24), (60, 20))
DIMENSIONS, SWAPS = 32, 99
SetCell = tuple[type[FidTf] | type[KidTf], int, int, bool, int]


def sets(cell: SetCell) -> dict[str, float]:
    """Coverage (also of a percentile bootstrap over scenes) and false alarms (or power) of the difference of two sets'
    FID or KID, of 32 features an image.

    The truth is the mean difference of other sets of that size; 0 where the models are exchangeable.
    """
    kind, n, count, differ, replicates = cell
    metric = kind()
    rng = generator("simulation of sets", [kind.name, *map(str, cell[1:])])
    scenes = np.repeat(np.arange(count), n // count)

    def models() -> list[list[dict[str, np.ndarray]]]:
        reference = rng.standard_normal((count, DIMENSIONS))[scenes] + rng.standard_normal((n, DIMENSIONS))
        keeps = (0.8, 0.6 if differ else 0.8)
        found = [keep * reference + 0.5 * rng.standard_normal((n, DIMENSIONS)) for keep in keeps]
        return [[{"prediction": p, "reference": r} for p, r in zip(f, reference, strict=True)] for f in found]

    def difference() -> float:
        a, b = models()
        return metric.reduce(a).value - metric.reduce(b).value

    truth = float(np.mean([difference() for _ in range(20 * replicates)])) if differ else 0.0
    held = found = resampled = 0
    for _ in range(replicates):
        a, b = models()
        inference = set_difference(metric, a, b, [f"s{s:03}" for s in scenes], swaps=SWAPS)
        assert not isinstance(inference, str) and inference.low is not None and inference.high is not None
        held += inference.low <= truth <= inference.high
        found += inference.p is not None and inference.p < 0.05
        drawn = []
        for picked in rng.integers(0, count, (SWAPS, count)):
            i = np.concatenate([np.flatnonzero(scenes == s) for s in picked])
            drawn.append(metric.reduce([a[j] for j in i]).value - metric.reduce([b[j] for j in i]).value)
        low, high = np.quantile(drawn, [0.025, 0.975])
        resampled += low <= truth <= high
    return {"held": held / replicates, "resampled": resampled / replicates, "found": found / replicates}


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=4000, help="of a cell; of sets a twentieth  [default: 4000]")
    parser.add_argument("--jobs", type=int, default=1, help="processes  [default: 1]")
    given = parser.parse_args()
    started = time.perf_counter()
    print(f"{machine()}; {given.replicates} replicates, {RESAMPLES} resamples\n")
    cells = [(n, g, shape, given.replicates) for n in SCENES for g in SCENES[n] for shape in SHAPES]
    of_sets: list[SetCell] = [
        (kind, n, g, differ, given.replicates // 20)
        for kind, (n, g), differ in itertools.product((FidTf, KidTf), SETS, (False, True))
    ]
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        print("| images | scenes | differences | 95 % interval | Student | BCa | p < 0.05 | flips alone | found |")
        print("|--:|--:|:--|--:|--:|--:|--:|--:|--:|")
        for (n, g, shape, _), found in zip(cells, pool.imap(means, cells), strict=True):
            shares = " | ".join(
                f"{100 * found[k]:.1f}" for k in ("interval", "student", "bca", "alarm", "flips", "power")
            )
            print(f"| {n} | {g} | {shape} | {shares} |", flush=True)
        print(f"\n| images | scenes | differences | gate of {METRICS} metrics: alarms |\n|--:|--:|:--|--:|")
        gates = [(n, g, shape, 2 * given.replicates) for n, g in GATES for shape in SHAPES]
        for (n, g, shape, _), share in zip(gates, pool.imap(gate, gates), strict=True):
            print(f"| {n} | {g} | {shape} | {100 * share:.1f} |", flush=True)
        print("\n| set | images | scenes | models | 95 % interval | bootstrap | p < 0.05 |")
        print("|:--|--:|--:|:--|--:|--:|--:|")
        for (kind, n, g, differ, _), found in zip(of_sets, pool.imap(sets, of_sets), strict=True):
            what = "differ" if differ else "alike"
            shares = " | ".join(f"{100 * share:.1f}" for share in found.values())
            print(f"| {kind.title} | {n} | {g} | {what} | {shares} |", flush=True)
    print("\n| scenes | detectable, in standard deviations of scenes' differences |\n|--:|--:|")
    for g in (6, 8, 10, 12, 24, 30, 60, 100, 300):
        print(f"| {g} | {needed(g) / np.sqrt(g):.2f} |")
    print(f"\n{time.perf_counter() - started:.0f} s, {given.jobs} process{'es' * (given.jobs != 1)}")


if __name__ == "__main__":
    main()
