"""Intervals, p-values and what data can show: against textbooks, SciPy and plain loops, and what must not matter."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from bench.metrics.base import Features, Metric, SetScore
from bench.metrics.realism import FidTf, KidTf
from bench.stats.means import (
    detectable,
    draws_for,
    holm,
    mean_of,
    needed,
    quantiles,
    resamples,
    standard_error,
    studentised,
)
from bench.stats.sets import set_difference

# Heights of crossed minus self-fertilised plants of Zea mays, in eighths of an inch: C. Darwin 1876, analysed in
# R. A. Fisher, The Design of Experiments, 1935, sections 17 and 21: t = 2.148, and 1726 of 32768 arrangements as far.
DARWIN = (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)


def apart(count: int) -> list[str]:
    return [f"s{i:03}" for i in range(count)]


# --- textbooks and SciPy --------------------------------------------------------------------------------------


def test_darwin_s_maize() -> None:
    found = mean_of(DARWIN, apart(15))
    assert found.value == pytest.approx(314 / 15)
    assert found.p_flip == 1726 / 32768
    student = stats.ttest_1samp(DARWIN, 0)
    assert student.statistic == pytest.approx(2.148, abs=5e-4)
    assert found.p_interval is not None and found.p_interval >= student.pvalue  # never bolder than Student
    assert found.p == max(found.p_interval, found.p_flip)


def test_the_flips_are_scipy_s() -> None:
    for seed in range(3):
        x = np.random.default_rng(seed).normal(0.4, 1, 9)
        theirs = stats.permutation_test((x,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert mean_of(x, apart(9)).p_flip == pytest.approx(theirs.pvalue)


def test_random_flips_are_near_all_flips() -> None:
    x = np.random.default_rng(3).normal(0.3, 1, 18)
    signs = 1.0 - 2.0 * (np.arange(2**18)[:, None] >> np.arange(18) & 1)
    exact = np.mean(np.abs(signs @ x) >= abs(x.sum()) - 1e-12)
    found = mean_of(x, apart(18)).p_flip
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / draws_for(18)))


def test_the_interval_holds_student_s_and_nears_it_with_many_scenes() -> None:
    x = np.random.default_rng(4).normal(1, 2, 100)
    found = mean_of(x, apart(100))
    low, high = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert found.low is not None and found.high is not None
    assert found.low <= low + 1e-9 and found.high >= high - 1e-9
    assert found.low == pytest.approx(low, abs=0.1) and found.high == pytest.approx(high, abs=0.1)


def test_detectable_is_cohen_s() -> None:
    # J. Cohen, 1988, table 2.4.1 by its equation for one sample; G*Power: d = 0.5, two-sided 5 %, 80 % need n = 34.
    assert detectable(34) / math.sqrt(34) < 0.5 < detectable(33) / math.sqrt(33)
    for count in (4, 6, 24, 300):
        limit = stats.t.ppf(0.975, count - 1)
        assert stats.nct.sf(limit, count - 1, detectable(count)) == pytest.approx(0.8, abs=1e-4)


def test_holm_is_r_s() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # p.adjust(..., "holm")
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


# --- by loops -------------------------------------------------------------------------------------------------


def test_resampled_means_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(5)
    sizes = [1, 4, 2, 3, 1, 5, 2]
    scenes = [rng.normal(rng.normal(), 1, m) for m in sizes]
    mean = float(np.concatenate(scenes).mean())

    def error(values: Sequence[np.ndarray]) -> float:
        at, n, g = np.concatenate(values).mean(), sum(map(len, values)), len(values)
        return math.sqrt(g / (g - 1) * sum(((v - at).sum()) ** 2 for v in values)) / n

    residuals, m = np.array([(s - mean).sum() for s in scenes]), np.array(sizes, float)
    assert standard_error(residuals, m) == pytest.approx(error(scenes))
    counts = resamples(tuple(apart(7)))[:50]
    found = studentised(residuals[:, None], m[:, None], counts)[:, 0]
    for row, ratio in zip(counts, found, strict=True):
        drawn = [s for s, k in zip(scenes, row, strict=True) for _ in range(int(k))]
        assert ratio == pytest.approx((np.concatenate(drawn).mean() - mean) / error(drawn))


def test_one_image_a_scene_is_the_plain_standard_error() -> None:
    x = np.random.default_rng(6).normal(size=11)
    assert standard_error(x - x.mean(), np.ones(11)) == pytest.approx(stats.sem(x))


def test_quantiles_lie_between_once_and_twice_student_s() -> None:
    ratios = np.random.default_rng(7).normal(0, 0.1, (999, 3)) + np.array([0, 3, 9])
    low, high = quantiles(ratios, 10)
    student = stats.t.ppf(0.975, 9)
    assert low.tolist() == [-student] * 3 and high[0] == student and 3 < high[1] < 4 and high[2] == 2 * student


def test_p_below_5_per_cent_is_an_interval_without_0() -> None:
    rng = np.random.default_rng(14)
    for shift in np.linspace(0.2, 1.2, 40):
        found = mean_of(rng.exponential(1, 9) - 1 + shift, apart(9))
        assert found.low is not None and found.high is not None and found.p_interval is not None
        assert (found.p_interval < 0.05) == (not found.low <= 0 <= found.high)


def test_one_outlier_does_not_hide_what_all_others_show() -> None:
    found = mean_of([1.0 + 0.01 * k for k in range(23)] + [-2.0], apart(24))
    assert found.low is not None and found.low > 0.2 and found.p is not None and found.p < 0.01


def test_what_is_detectable_is_found_in_80_per_cent_of_cases() -> None:
    rng = np.random.default_rng(15)
    for count in (6, 12):
        shift, found = needed(count) / math.sqrt(count), 0
        for _ in range(150):
            p = mean_of(rng.standard_normal(count) + shift, apart(count)).p
            found += p is not None and p < 0.05
        assert found / 150 == pytest.approx(0.8, abs=0.1)


def test_coverage_and_false_alarms_of_a_small_simulation() -> None:
    """A guard against blunders; python -m tests.bench.statistics measures to a tenth of a per cent."""
    rng = np.random.default_rng(8)
    scenes = [f"s{i // 2:03}" for i in range(24)]
    held, alarms = 0, 0
    for _ in range(200):
        found = mean_of(np.repeat(rng.standard_normal(12), 2) + rng.standard_normal(24), scenes)
        assert found.low is not None and found.high is not None and found.p is not None
        held += found.low <= 0 <= found.high
        alarms += found.p < 0.05
    assert 0.92 <= held / 200 <= 0.99 and alarms / 200 <= 0.08


# --- what must not matter, and what must ----------------------------------------------------------------------


def test_order_and_sign() -> None:
    x, scenes = np.random.default_rng(9).exponential(1, 30) - 0.6, [f"s{i % 9}" for i in range(30)]
    found, order = mean_of(x, scenes), np.random.default_rng(10).permutation(30)
    assert mean_of(x[order], [scenes[i] for i in order]) == found
    mirrored = mean_of(-x, scenes)
    assert found.low is not None and found.high is not None
    assert (mirrored.low, mirrored.high, mirrored.p) == pytest.approx((-found.high, -found.low, found.p))


def test_twice_the_same_image_in_a_scene_is_no_evidence() -> None:
    x = np.random.default_rng(11).normal(0.5, 1, 12)
    once, twice = mean_of(x, apart(12)), mean_of(np.repeat(x, 2), np.repeat(apart(12), 2))
    assert twice.low == pytest.approx(once.low) and twice.p == once.p and twice.n == 24 and twice.scenes == 12
    alone = mean_of(np.repeat(x, 2), apart(24))
    assert alone.p is not None and once.p is not None and alone.p < once.p


def test_few_scenes() -> None:
    found = mean_of([1.0, 2.0, 3.0, 4.0, 5.0], apart(5))
    assert (found.low, found.high, found.p) == (None, None, None)
    assert found.reason == "5 scenes, an interval needs at least 6" and found.smallest is not None
    one = mean_of([1.0, 2.0, 3.0], ["a"] * 3)
    assert one.smallest is None and one.reason is not None and one.reason.startswith("one scene")
    assert mean_of([1.0], ["a"]).std is None
    six = mean_of([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], apart(6))
    assert six.p_flip == 2 / 64 and six.note is not None and "fewer than 12 scenes" in six.note


@pytest.mark.parametrize("count", [6, 16, 17, 1100])
def test_the_least_p_is_that_of_a_difference_without_doubt(count: int) -> None:
    found = mean_of(10 + np.random.default_rng(0).normal(size=count), [f"s{k}" for k in range(count)])
    assert found.p == pytest.approx(found.least)


def test_nothing_differs_everything_differs_alike_a_little_differs() -> None:
    same = mean_of([0.0] * 24, apart(24))
    assert (same.value, same.low, same.high, same.p, same.smallest) == (0, 0, 0, 1, 0)
    shifted = mean_of([0.3] * 24, apart(24))
    assert (shifted.low, shifted.high) == (0.3, 0.3) and shifted.p is not None and shifted.p < 1e-4
    some = mean_of([0.0] * 21 + [1.0, 2.0, 3.0], apart(24))
    assert some.low is None and some.p is not None and some.p > 0.2
    assert some.reason == "only 3 of 24 scenes differ, an interval needs at least 6 that do"


def test_no_image() -> None:
    with pytest.raises(ValueError, match="found 0 and 0"):
        mean_of([], [])


# --- sets -----------------------------------------------------------------------------------------------------


class SetMean(Metric):
    """The mean of one number an image, as a metric of the set."""

    name, title, direction, group, level = "set_mean", "mean", "up", "fidelity", "set"

    def reduce(self, features: Sequence[Features]) -> SetScore:
        return SetScore(float(np.mean([f["x"][0] for f in features])))


def of(values: Sequence[float]) -> list[Features]:
    return [{"x": np.array([v])} for v in values]


def test_a_set_metric_that_is_a_mean_has_the_mean_s_interval_and_flips() -> None:
    rng = np.random.default_rng(12)
    x, y = rng.normal(0.4, 1, 9), rng.normal(0, 1, 9)
    found = set_difference(SetMean(), of(x), of(y), apart(9))
    assert not isinstance(found, str)
    interval = stats.ttest_rel(x, y).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_flip == mean_of(x - y, apart(9)).p_flip  # 2^9 swaps are the 2^9 signs
    assert found.bias == pytest.approx(0, abs=1e-12)
    assert found.smallest == pytest.approx(mean_of(x - y, apart(9)).smallest)


def test_order_of_a_set_does_not_matter_and_few_scenes_are_told() -> None:
    rng = np.random.default_rng(13)
    x, y, scenes = rng.normal(size=20), rng.normal(size=20), [f"s{i % 10}" for i in range(20)]
    found = set_difference(SetMean(), of(x), of(y), scenes)
    by_scene = sorted(range(20), key=lambda i: scenes[i])
    again = set_difference(SetMean(), of(x[by_scene]), of(y[by_scene]), [scenes[i] for i in by_scene])
    assert found == again
    few = set_difference(SetMean(), of(x[:3]), of(y[:3]), apart(3))
    assert not isinstance(few, str) and few.p is None and few.reason == "3 scenes, an interval needs at least 6"
    same = set_difference(SetMean(), of(x), of(x), scenes)
    assert not isinstance(same, str) and (same.value, same.p, same.low) == (0, 1, 0)


@pytest.mark.parametrize("metric", [FidTf(), KidTf()])
def test_fid_and_kid(metric: Metric) -> None:
    """Predictions that keep more of the reference are nearer to it, and surely so; alike ones are not."""
    rng = np.random.default_rng(16)
    reference = rng.standard_normal((24, 16))

    def predicted(keep: float) -> list[Features]:
        found = keep * reference + 0.5 * rng.standard_normal((24, 16))
        return [{"prediction": p, "reference": r} for p, r in zip(found, reference, strict=True)]

    near, alike, far = predicted(0.9), predicted(0.9), predicted(0.5)
    found = set_difference(metric, near, far, apart(24), swaps=199)
    assert not isinstance(found, str) and found.low is not None and found.high is not None and found.p is not None
    assert found.low < found.value < found.high < 0 and found.p < 0.05 and found.bias is not None
    whole = [metric.combine(side) for side in (near, far)]
    assert found.value == pytest.approx(whole[0].value - whole[1].value)  # type: ignore[operator]
    tie = set_difference(metric, near, alike, apart(24), swaps=199)
    assert not isinstance(tie, str) and tie.p is not None and tie.p > 0.05


class Pairs(SetMean):
    min_images = 2


def test_what_a_set_metric_cannot_compute_is_a_reason() -> None:
    assert set_difference(Pairs(), of([1.0]), of([2.0]), ["a"]) == "needs at least 2 images, found 1"
    alone = set_difference(Pairs(), of([1.0, 2.0]), of([2.0, 2.0]), ["a", "b"])
    assert not isinstance(alone, str) and alone.reason == "it cannot be computed without one of the scenes"
