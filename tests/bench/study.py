"""What the statistics of ``rfbench study`` keep of their word: whole studies, simulated.

``python -m tests.bench.study`` draws 4,000 studies of each kind with a seed fixed here, planned by the study's own
design, and prints how often the 95 % interval of a share holds the truth, how often a share at the margin is called on
a par (at most 5 % are allowed), how often one that is 0.5 is, and beside them the bootstrap of reviewers and scenes
that was not taken. Each share of 4,000 has a standard error of 0.35 points at 5 %.

A vote is 1, 0 or a tie: of mean + reviewer + scene + noise, normal with the given deviations and 1, a tie within 0.4 of
0. The truth is the mean over all reviewers and scenes, not over those drawn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time

import numpy as np
from scipy import optimize, stats

from bench.stats.means import LEVEL, generator
from bench.study.crossed import EQUIVALENCE, Share, share_of, verdict
from bench.study.design import Sizes, plan_sittings
from tests.bench.common import machine

SEED = 20261130
TIE = 0.4
MARGIN = (0.4, 0.6)
PANELS = ((4, 24, 15), (5, 24, 20), (8, 24, 15), (12, 30, 30))  # reviewers, scenes, samples of each
SPREADS = ((0.0, 0.0), (0.3, 0.3), (0.6, 0.3), (0.3, 0.8))  # deviations of reviewers and of scenes
RESAMPLES, PLAN_EVERY = 199, 50  # studies that share a plan
Cell = tuple[tuple[int, int, int], tuple[float, float], int]


def truth(mean: float, spread: tuple[float, float]) -> float:
    """The share of votes for the system, ties half, over all reviewers and scenes."""
    deviation = float(np.sqrt(1.0 + spread[0] ** 2 + spread[1] ** 2))
    over, under = (float(stats.norm.sf((limit - mean) / deviation)) for limit in (TIE, -TIE))
    return (over + under) / 2.0


def mean_of_share(share: float, spread: tuple[float, float]) -> float:
    """The mean whose truth is ``share``."""
    return float(optimize.brentq(lambda m: truth(m, spread) - share, -20.0, 20.0))


def votes(
    rng: np.random.Generator, who: np.ndarray, of: np.ndarray, mean: float, spread: tuple[float, float]
) -> np.ndarray:
    """One study's votes of these reviewers on these scenes."""
    people, scenes = rng.normal(0, spread[0], who.max() + 1), rng.normal(0, spread[1], of.max() + 1)
    latent = mean + people[who] + scenes[of] + rng.standard_normal(len(who))
    return np.where(latent > TIE, 1.0, np.where(latent < -TIE, 0.0, 0.5))


def bootstrap(
    rng: np.random.Generator, x: np.ndarray, who: np.ndarray, of: np.ndarray, level: float
) -> tuple[float, float]:
    """The percentile interval of reviewers and scenes drawn together, which was not taken."""
    times = [rng.multinomial(n, np.full(n, 1.0 / n), RESAMPLES) for n in (who.max() + 1, of.max() + 1)]
    weights = (times[0][:, who] * times[1][:, of]).astype(float)
    total = weights.sum(axis=1)
    drawn = (weights @ x)[total > 0] / total[total > 0]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def one(cell: Cell) -> dict[str, float]:
    """The shares of one kind of study."""
    (reviewers, scenes, each), spread, studies = cell
    rng = generator("simulated studies", [str(SEED), *map(str, cell)])
    sizes = Sizes(reviewers, each, common=5, ratings=0)
    par, clear, margin = (mean_of_share(share, spread) for share in (0.5, 0.8, MARGIN[0]))
    hits = dict.fromkeys(("covers", "covers_clear", "bootstrap", "at_margin", "par"), 0)
    who = of = np.empty(0, int)
    for n in range(studies):
        if n % PLAN_EVERY == 0:
            sittings = plan_sittings([f"s{i:02}" for i in range(scenes)], ["m"], "blind", sizes, n)
            who = np.concatenate([np.full(len(s.items), r) for r, s in enumerate(sittings)])
            of = np.array([int(image[1:]) for s in sittings for image, _ in s.items])
        x = votes(rng, who, of, par, spread)
        hits["covers"] += holds(share_of(x, who, of), 0.5)
        low, high = bootstrap(rng, x, who, of, LEVEL)
        hits["bootstrap"] += low <= 0.5 <= high
        hits["covers_clear"] += holds(share_of(votes(rng, who, of, clear, spread), who, of), 0.8)
        for name, mean in (("at_margin", margin), ("par", par)):
            found = share_of(votes(rng, who, of, mean, spread), who, of, EQUIVALENCE)
            hits[name] += verdict(found, MARGIN) == "on a par"
    return {key: count / studies for key, count in hits.items()}


def holds(share: Share, expected: float) -> bool:
    """Whether the interval holds the truth."""
    assert share.low is not None and share.high is not None
    return share.low <= expected <= share.high


def main() -> int:
    """Simulate, print, and say whether the word is kept within two standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=4000, help="of each kind  [default: 4000]")
    parser.add_argument("--jobs", type=int, default=1, help="processes  [default: 1]")
    given = parser.parse_args()
    started = time.perf_counter()
    cells = [(panel, spread, given.studies) for panel in PANELS for spread in SPREADS]
    slack = 2.0 * float(np.sqrt(0.05 * 0.95 / given.studies))
    print(f"{machine()}; {given.studies} studies of each kind, seed {SEED}\n")
    print("| reviewers | scenes | samples each | deviation of reviewers | of scenes | "
          "95 % interval | at 0.8 | bootstrap | on a par at the margin | at 0.5 |")  # fmt: skip
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    kept = True
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        for ((people, scenes, each), spread, _), found in zip(cells, pool.imap(one, cells), strict=True):
            shares = " | ".join(
                f"{100 * found[k]:.1f}" for k in ("covers", "covers_clear", "bootstrap", "at_margin", "par")
            )
            print(f"| {people} | {scenes} | {each} | {spread[0]:g} | {spread[1]:g} | {shares} |", flush=True)
            kept &= min(found["covers"], found["covers_clear"]) >= 0.95 - slack and found["at_margin"] <= 0.05 + slack
    print(f"\n{'kept' if kept else 'NOT KEPT'} within two standard errors ({100 * slack:.1f} points); "
          f"{time.perf_counter() - started:.0f} s, {given.jobs} process{'es' * (given.jobs != 1)}")  # fmt: skip
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
