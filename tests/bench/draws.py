"""What the number of draws does to the metrics of uncertainty, for a model that is right: python -m tests.bench.draws

The truth and the draws of each pixel come from one Gaussian, and the metrics see them as they see a run. With --write
the tables go into docs/uncertainty.md. A minute on one core; nothing here is timed.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from scipy.special import digamma, ndtri, stdtr

from bench.core.files import write_bytes
from bench.metrics.base import Estimate, Metric, Reference, SetScore
from bench.metrics.uncertainty import (
    LEVELS,
    CoverErr90,
    Crps,
    CrpsFair,
    Ece,
    EceFair,
    Nll,
    SpreadSkillErr,
    draws_of,
    interval_coverage,
    predicted,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "uncertainty.md"
BEGIN, END = "<!-- figures: python -m tests.bench.draws --write -->", "<!-- end of figures -->"
DRAWS = (2, 4, 8, 16, 32, None)
SIGMA = 0.05  # far above the floor of one grey level
_IMAGES, _SIDE_PX = 48, 128


def images(
    draws: int | None, count: int, side_px: int, seed: int = 0, claimed: float = 1.0
) -> list[tuple[Estimate, Reference]]:
    """Pairs of a truth and a model that knows its distribution, but for ``claimed`` times the deviation that it says.

    For None the model gives mean and deviation; else it draws.
    """
    shape = (side_px, side_px, 3)
    valid = np.ones(shape[:2], bool)
    pairs = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        centre = rng.uniform(0.3, 0.7, shape)
        truth = np.float32(centre + SIGMA * rng.standard_normal(shape))
        reference = Reference(f"{i}", f"{i}", truth, truth, None, None, None, valid)
        if draws is None:
            mean, std, samples = centre, np.full(shape, SIGMA * claimed), None
        else:
            samples = np.float32(centre + claimed * SIGMA * rng.standard_normal((draws, *shape)))
            mean, std = samples.mean(axis=0, dtype=np.float64), samples.std(axis=0, ddof=1, dtype=np.float64)
        estimate = Estimate(
            np.float32(centre), np.float32(centre), mean=np.float32(mean), std=np.float32(std), draws=samples
        )
        pairs.append((estimate, reference))
    return pairs


def of_set(metric: Metric, pairs: list[tuple[Estimate, Reference]]) -> SetScore:
    """A set metric of pairs."""
    found = metric.reduce([metric.features(e, r, None) for e, r in pairs])
    return found


def of_images(metric: Metric, pairs: list[tuple[Estimate, Reference]]) -> float:
    """The mean of an image metric."""
    return float(np.mean([metric.value(e, r, None) for e, r in pairs]))  # type: ignore[arg-type]


def nll_excess(draws: int | None) -> float:
    """By how much K draws of the truth's Gaussian raise the expected NLL of the Gaussian with their mean and deviation.

    ``E ln s = ln sigma + (psi((K-1)/2) + ln(2/(K-1))) / 2`` and ``E 1/s^2 = (K-1)/(K-3) / sigma^2``.
    """
    if draws is None:
        return 0.0
    if draws <= 3:
        return math.inf
    k = float(draws)
    return float(0.5 * (digamma((k - 1) / 2) + math.log(2 / (k - 1)) + (1 + 1 / k) * (k - 1) / (k - 3) - 1))


def ece_of(draws: int | None) -> float:
    """The ECE of a right model of K draws: its Gaussian quantiles cover what Student's t says."""
    if draws is None:
        return 0.0
    return float(np.abs(stdtr(draws - 1, ndtri(LEVELS) / math.sqrt(1 + 1 / draws)) - LEVELS).mean())


def ece_of_chance(values: int) -> float:
    """The expected ECE of a right model with known mean and deviation, from so many independent values.

    Each share scatters binomially, and the mean of |x| of a Gaussian is sqrt(2/pi) of its deviation.
    """
    return float(math.sqrt(2 / (math.pi * values)) * np.sqrt(LEVELS * (1 - LEVELS)).mean())


def by_draws() -> list[str]:
    """A row for each number of draws."""
    headings = (
        "draws",
        "`nll` above the truth's",
        "`ece` (theory)",
        "`ece_fair`",
        "coverage of mu ± 1.645 sigma",
        "of `cover_err_90`",
        "spread/skill as it is",
        "of `spread_skill_err`",
        "`crps` / sigma",
        "ensemble / sigma",
        "`crps_fair` / sigma",
    )
    rows = [f"| {' | '.join(headings)} |", "|" + "---|" * len(headings)]
    truth = 0.5 * math.log(2 * math.pi * math.e) + math.log(SIGMA)
    for k in DRAWS:
        pairs = images(k, _IMAGES, _SIDE_PX)
        spread = of_set(SpreadSkillErr(), pairs).details["ratio"]
        plain = float(np.mean([interval_coverage(*predicted(e, r), np.array([0.9]))[0] for e, r in pairs]))
        factor = 1.0 if k is None else math.sqrt(k / (k + 1))
        fair = None if k is None else of_images(CrpsFair(), pairs) / SIGMA
        ensemble = None if fair is None or k is None else fair + pair_term(pairs) / (k * SIGMA)
        cells = [
            "mean and deviation" if k is None else f"{k}",
            f"{nll_excess(k):.3f}" if nll_excess(k) < math.inf else "infinite",
            f"{of_set(Ece(), pairs).value:.4f} ({ece_of(k):.4f})",
            f"{of_set(EceFair(), pairs).value:.4f}",
            f"{plain:.3f}",
            f"{of_set(CoverErr90(), pairs).details['coverage']:.3f}",
            f"{spread * factor:.3f}",
            f"{spread:.3f}",
            f"{of_images(Crps(), pairs) / SIGMA:.4f}",
            f"{ensemble:.4f}" if ensemble is not None else "–",
            f"{fair:.4f}" if fair is not None else "–",
        ]
        assert draws_of(pairs[0][0]) == k
        rows.append(f"| {' | '.join(cells)} |")
        if k in (4, 16):
            found = of_images(Nll(), pairs) - truth
            rows[-1] = rows[-1].replace(f"{nll_excess(k):.3f}", f"{nll_excess(k):.3f} (simulated {found:.2f})")
    return rows


def pair_term(pairs: list[tuple[Estimate, Reference]]) -> float:
    """Half the mean distance of two draws: what the ensemble's CRPS counts (K - 1) / K of, and the fair one all."""
    found = []
    for estimate, _ in pairs:
        draws = estimate.draws
        assert draws is not None
        found += [np.abs(draws[i] - draws[0]).mean() / 2 for i in range(1, len(draws))]
    return float(np.mean(found))


def by_values() -> list[str]:
    """The ECE of a right model by how many independent values there are: 200 repetitions each."""
    rows = ["| independent values | `ece` of a right model | theory |", "|---|---|---|"]
    for side in (4, 12, 36, 110):
        found = [of_set(Ece(), images(None, 1, side, seed=s)).value for s in range(200)]
        rows.append(f"| {3 * side**2:,} | {np.mean(found):.4f} | {ece_of_chance(3 * side**2):.4f} |")
    return rows


def main() -> None:
    """Print the tables, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true", help="into docs/uncertainty.md")
    arguments = parser.parse_args()
    text = "\n".join([*by_draws(), "", *by_values()])
    if not arguments.write:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    write_bytes(PAGE, f"{before}{BEGIN}\n\n{text}\n\n{END}{after}".encode())


if __name__ == "__main__":
    main()
