"""The study of inputs out of distribution: the inputs, the scores, their statistics, and the whole command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner
from scipy import stats

from bench.core.errors import RfbenchError
from bench.stats.percentiles import auroc, auroc_interval, mean_interval
from rareflow.errors import RareflowError
from rareflow.experiments.cli import ood
from rareflow.experiments.inputs import KINDS, corrupt
from rareflow.experiments.run import ALL, KNOWN, Study, markdown, study
from rareflow.experiments.scores import SCORES, Gaussian, Image, Measured, Reference, image_seed, measure_image, misfit
from rareflow.model import RareFlow
from rareflow.uncertainty import Scale
from tests.conftest import write_dataset
from tests.small_rareflow import pixels, small_config, small_model

# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("size", [(40, 40), (9, 13), (1, 1)])
def test_a_counterpart_is_an_image_that_depends_on_names_alone(kind: str, size: tuple[int, int]) -> None:
    lr = pixels(3, *size)
    made = corrupt(lr, kind, "a")
    assert made.shape == lr.shape and made.dtype == np.float32
    assert np.isfinite(made).all() and made.min() >= 0 and made.max() <= 1
    assert np.array_equal(made, corrupt(lr, kind, "a"))
    drawn = kind in ("city", "noise", "snow")
    if size == (40, 40):
        assert np.array_equal(made, corrupt(lr, kind, "b")) is not drawn
        assert not np.array_equal(made, lr)


def test_counterparts_are_what_they_are_called() -> None:
    lr = pixels(5, 40, 40)
    made = {kind: corrupt(lr, kind, "a").astype(np.float64) for kind in KINDS}
    assert np.allclose(made["inverted"], 1 - lr, atol=1e-6)
    assert np.allclose(made["flat"], lr.mean(axis=(0, 1)), atol=1e-6) and np.ptp(made["flat"], axis=(0, 1)).max() == 0
    assert np.abs(np.diff(made["blurred"], axis=0)).mean() < 0.3 * np.abs(np.diff(lr, axis=0)).mean()
    assert np.allclose(made["blurred"].mean(), lr.mean(), atol=0.02)
    assert stats.kstest(made["noise"].ravel(), "uniform").pvalue > 1e-3
    neighbours = np.corrcoef(made["noise"][:, 1:, 0].ravel(), made["noise"][:, :-1, 0].ravel())[0, 1]
    assert abs(neighbours) < 0.1
    white = made["snow"].min(axis=2) > 0.75
    assert 0.75 < white.mean() < 0.99
    below = np.corrcoef(made["snow"][white].mean(axis=1), lr[white].mean(axis=1))
    assert below[0, 1] > 0.5  # what lies under the snow shows through
    assert np.array_equal(corrupt(pixels(6, 40, 40), "city", "a"), made["city"].astype(np.float32))  # of its name alone
    red = made["city"][:, :, 0] - made["city"][:, :, 1:].max(axis=2)
    assert 0.05 < (red > 0.05).mean() < 0.6 and (np.abs(red) < 0.05).mean() > 0.2  # red roofs among greys


# --- statistics -------------------------------------------------------------------------------------------------------


def test_auroc_is_mann_and_whitney_s_statistic() -> None:
    random = np.random.default_rng(0)
    for _ in range(5):
        a, b = random.integers(0, 6, 17).astype(float), random.integers(1, 8, 11).astype(float)  # with many ties
        assert auroc(a, b) == pytest.approx(stats.mannwhitneyu(b, a).statistic / (17 * 11), abs=1e-12)
        assert auroc(a, b) + auroc(b, a) == pytest.approx(1)
    assert auroc([0, 1], [2, 3]) == 1 and auroc([1], [1]) == 0.5
    for wrong in ([], [np.nan], [np.inf]):
        with pytest.raises(ValueError, match="finite"):
            auroc(wrong, [1.0])


def test_an_interval_is_of_scenes_and_not_of_images() -> None:
    random = np.random.default_rng(1)
    a, b = random.normal(0, 1, 20), random.normal(0.8, 1, 20)
    scenes = [f"s{i}" for i in range(20)]
    low, high = auroc_interval(a, b, scenes)
    assert low < auroc(a, b) < high and 0.1 < high - low < 0.5
    # Every scene shown twice is no more evidence.
    assert auroc_interval(np.tile(a, 2), np.tile(b, 2), scenes * 2) == pytest.approx((low, high))
    # Several counterparts an image: the same as their blocks say.
    both = auroc_interval(a, np.concatenate([b, b]), scenes)
    assert both == pytest.approx((low, high))
    assert mean_interval(np.tile(a, 2), scenes * 2) == pytest.approx(mean_interval(a, scenes))
    assert mean_interval(a, ["one"] * 20) == pytest.approx([a.mean()] * 3)


def test_an_interval_covers_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    hits = 0
    for _ in range(100):
        mean, low, high = mean_interval(random.normal(0, 1, 30), [str(i) for i in range(30)])
        hits += low < 0 < high
        assert low < mean < high
    assert 87 <= hits <= 99  # 95 % of 100, less what a percentile interval of 30 lacks


def rows(values: np.ndarray) -> list[dict[str, float]]:
    return [dict(zip("abcde", row, strict=False)) for row in values.tolist()]


def test_the_distance_is_mahalanobis_s_with_schafer_and_strimmer_s_shrinkage() -> None:
    random = np.random.default_rng(3)
    values = random.normal(0, 1, (40, 4)) @ random.normal(0, 1, (4, 4)) * (1, 10, 0.1, 3) + 5
    names = ("a", "b", "c", "d")
    fit = Gaussian.fit(rows(values), names)
    # Written out element by element.
    n, z = 40, (values - values.mean(0)) / values.std(0, ddof=1)
    r, noise, square = np.eye(4), 0.0, 0.0
    for i in range(4):
        for j in range(4):
            if i != j:
                w = [z[k, i] * z[k, j] for k in range(n)]
                r[i, j] = sum(w) / (n - 1)
                noise += n / (n - 1) ** 3 * sum((x - sum(w) / n) ** 2 for x in w)
                square += r[i, j] ** 2
    share = noise / square
    assert 0 < share < 1
    r = r * (1 - share) + np.eye(4) * share
    point = values[0] + 3
    d = (point - values.mean(0)) / values.std(0, ddof=1)
    expected = np.sqrt(d @ np.linalg.solve(r, d))
    assert fit.distance(rows(point[None])[0]) == pytest.approx(expected, rel=1e-9)
    # Units do not matter, a constant column does no harm, and the mean is nowhere away from itself.
    other = Gaussian.fit(rows(values * (7, 0.01, 2, 1) + 1), names)
    assert other.distance(rows((point * (7, 0.01, 2, 1) + 1)[None])[0]) == pytest.approx(expected, rel=1e-9)
    constant = Gaussian.fit(rows(np.column_stack([values, np.full(40, 2.0)])), (*names, "e"))
    assert np.isfinite(constant.distance(rows(np.append(point, 2.0)[None])[0]))
    assert fit.distance(rows(values.mean(0)[None])[0]) == pytest.approx(0, abs=1e-7)


# --- the T passes -----------------------------------------------------------------------------------------------------


def image(number: int, hr: bool = True) -> Image:
    """LR 12x12 px of changing contrast, HR 48x48 px."""
    lr = np.float32(0.5) + (pixels(number, 12, 12) - np.float32(0.5)) * np.float32(0.3 + 0.1 * (number % 7))
    return Image(f"i{number}", f"s{number}", f"word{number % 5} and lake", lr, (48, 48), pixels(number, 48, 48))


@pytest.fixture(scope="module")
def model() -> RareFlow:
    made = small_model()
    found = [measure_image(made, image(i)).mean_v for i in range(4)]
    made.scale = Scale(max(found) * 1.2, float(np.median(found)))
    return made


def test_u_and_v_of_the_study_are_those_of_sampling(model: RareFlow) -> None:
    one = image(2)
    found = measure_image(model, one)
    seeds = [(image_seed(one.id),)]
    sampled = model.upscale(one.lr[None], one.size, captions=[one.caption], seeds=seeds)
    assert np.array_equal(found.v, sampled.v[0]) and found.u == float(sampled.u[0])
    assert found.mean_v == float(sampled.mean_v[0])
    assert found.statistics["log_v"] == pytest.approx(np.log(found.mean_v), abs=1e-4)
    assert found.statistics["unevenness"] == pytest.approx(np.log(found.v.std(ddof=1) / found.v.mean()), abs=1e-3)
    again = measure_image(model, one)
    assert again.statistics == found.statistics


def test_statistics_are_of_the_t_images(model: RareFlow) -> None:
    """The T images made by hand: the same noise and masks through field and decoder."""
    import torch

    from rareflow.flow import clean
    from rareflow.images import pad_to, upsample
    from rareflow.noise import normal

    one, seed = image(3), image_seed("i3")
    x = model.codec.encode(pad_to(upsample(torch.from_numpy(one.lr.transpose(2, 0, 1)[None]), (48, 48)), (48, 48)))
    z = normal([seed], (4, 12, 12), "noise")
    tokens, pooled = model.captions.get([one.caption])
    images = []
    with torch.no_grad():
        for t in range(3):
            with model.masks.use([(seed, t)]):
                v = model.field.velocity(z, torch.ones(1), x, tokens, pooled, torch.zeros(1))
            images.append(model.codec.decode(clean(z, v, torch.ones(1)))[0].numpy().astype(np.float64))
    stack = np.array(images)  # (T, 3, 48, 48)
    by_channel = stack.var(axis=0, ddof=1).mean(axis=(1, 2))
    blocks = stack.reshape(3, 3, 12, 4, 12, 4).mean(axis=(3, 5))
    deviation, coarse = stack - stack.mean(0), blocks - blocks.mean(0)
    found = measure_image(model, one)
    expected = {
        "log_v": np.log(by_channel.mean()),
        "red_blue": np.log(by_channel[0] / by_channel[2]),
        "green": np.log(by_channel[1] / np.sqrt(by_channel[0] * by_channel[2])),
        "coarseness": np.log((coarse**2).mean() / (deviation**2).mean()),
        "mean_g": stack[:, 1].mean(),
        "contrast": np.log(stack.mean((0, 1)).std(ddof=1)),
    }
    for name, value in expected.items():
        assert found.statistics[name] == pytest.approx(value, abs=2e-3), name
    assert np.allclose(found.answer, blocks.mean(0).transpose(1, 2, 0), atol=1e-4)


# --- scores -----------------------------------------------------------------------------------------------------------


def made_up(number: int, log_v: float | None = None) -> Measured:
    """A measurement without a model: statistics around those of a bank, an answer that is a colour map of the LR."""
    random = np.random.default_rng(number)
    names = ("log_v", "unevenness", "red_blue", "green", "coarseness", "mean_r", "mean_g", "mean_b", "contrast",
             "sharpening", "input_r", "input_g", "input_b", "input_contrast", "input_gradient")  # fmt: skip
    values = dict(zip(names, random.normal(0, 1, len(names)).tolist(), strict=True))
    values["log_v"] = log_v if log_v is not None else values["log_v"]
    lr = random.random((6, 6, 3)).astype(np.float32)
    answer = (lr @ np.array([[0.8, 0.1, 0], [0, 0.9, 0], [0.1, 0, 0.7]]) + 0.05).astype(np.float32)
    mean_v = float(np.exp(values["log_v"]))
    return Measured(min(1.0, mean_v / 4), mean_v, np.full((3, 3), mean_v, np.float32), values, lr, answer)


def test_a_two_sided_score_calls_too_little_strange_as_well_as_too_much() -> None:
    bank = [made_up(i) for i in range(60)]
    reference = Reference.fit(bank, Scale(4.0, 1.0))
    level = np.array([m.statistics["log_v"] for m in bank])
    middle = float(np.median(level))
    low, high, usual = (reference.scores(made_up(1, middle + d)) for d in (-5.0, 5.0, 0.0))
    distance = 5 / stats.median_abs_deviation(level, scale="normal")
    assert (low["two_sided"], high["two_sided"]) == pytest.approx((distance, distance), rel=1e-4)
    assert usual["two_sided"] == pytest.approx(0, abs=1e-9)
    for name in ("u", "u_kappa", "ratio"):  # which rise with v and cannot see this
        assert low[name] < usual[name] <= high[name] == 1.0
    wild = np.full((3, 3), 0.5, np.float32)
    wild[0, 0] = 1e4  # for the clipped forms no more than a pixel at the limit
    one = reference.scores(dataclasses.replace(made_up(1), mean_v=float(wild.mean()), v=wild))
    assert one["ratio"] == 1 and one["u"] == pytest.approx((8 * 0.5 + 4) / 9 / 4, rel=1e-5)
    for name in ("two_scales", "three", "passes"):
        assert min(low[name], high[name]) > usual[name]
    assert min(low["relative"], high["relative"]) > 2 and low["input"] == high["input"] == usual["input"]


def test_limits_are_passed_by_one_in_twenty_of_the_bank() -> None:
    bank = [made_up(i) for i in range(60)]
    reference = Reference.fit(bank, Scale(4.0, 1.0))
    for name in SCORES:
        assert sum(reference.scores(m)[name] > reference.limits[name] for m in bank) <= 3
    assert list(reference.limits) == list(reference.scores(bank[0])) == list(SCORES)


def test_the_misfit_is_what_no_colour_map_explains() -> None:
    bank = [made_up(i) for i in range(20)]
    reference = Reference.fit(bank, Scale(4.0, 1.0))
    assert np.allclose(reference.expected(bank[3].lr), bank[3].answer, atol=1e-5)
    assert misfit(bank[0].answer, reference.expected(bank[0].lr)) < 1e-5  # the map is exact here
    off = dataclasses.replace(bank[0], answer=bank[0].answer + np.float32(0.1))
    assert misfit(off.answer, reference.expected(off.lr)) == pytest.approx(0.1, rel=1e-4)
    assert reference.scores(off)["passes"] > reference.scores(bank[0])["passes"] + 2
    assert reference.scores(off)["three"] == reference.scores(bank[0])["three"]


def test_a_small_bank_is_refused() -> None:
    with pytest.raises(RareflowError, match="bank of 3 images"):
        Reference.fit([made_up(i) for i in range(3)], Scale(1.0, 1.0))


# --- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(model: RareFlow) -> Study:
    return study(model, [image(i) for i in range(20, 32)], [image(i) for i in range(4)], kinds=("noise", "flat"))


def test_a_study_says_the_same_again_and_is_json(model: RareFlow, found: Study) -> None:
    again = study(model, [image(i) for i in range(20, 32)], [image(i) for i in range(4)], kinds=("noise", "flat"))
    assert json.dumps(again.document, allow_nan=False) == json.dumps(found.document)
    assert list(found.document["auroc"]) == ["noise", "flat", ALL] and list(found.scores) == [KNOWN, "noise", "flat"]
    for kind in ("noise", "flat"):
        for name in SCORES:
            value, low, high = found.document["auroc"][kind][name]
            inside, outside = found.scores[KNOWN][name], found.scores[kind][name]
            assert value == pytest.approx(stats.mannwhitneyu(outside, inside).statistic / 16, abs=1e-4)
            assert 0 <= low <= high <= 1
    text = markdown(found.document)
    assert text.count("\n| noise |") == 2 and "| noise (4) |" in text  # AUROC, u, and the strange samples


def test_what_the_gates_do_is_eq_2_and_3(model: RareFlow, found: Study) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    gates = model.field.gates
    assert gates is not None
    scheduler = FlowMatchEulerDiscreteScheduler(shift=model.config.sampling.shift)
    scheduler.set_timesteps(2)
    p0, pt, pu = (p.detach().double().numpy() for p in (gates.p0, gates.pt, gates.pu))
    expected = []
    for u in found.scores[KNOWN]["u"]:
        terms = [p0 + pt * float(s) + pu * u for s in scheduler.sigmas[:-1]]
        expected.append(np.mean([2.0 / (1 + np.exp(-t)) for t in terms]))
    mean, deviation = found.document["u"][KNOWN]["control"]
    assert (mean, deviation) == pytest.approx((np.mean(expected), np.std(expected, ddof=1)), rel=1e-4)


def test_forcing_u_is_compared_from_the_same_noise(model: RareFlow, found: Study) -> None:
    psnr = {}
    for key, u in (("0", 0.0), ("measured", None), ("1", 1.0)):
        values = []
        for one in (image(i) for i in range(4)):
            seeds = [(image_seed(one.id),)]
            sample = model.upscale(one.lr[None], one.size, captions=[one.caption], seeds=seeds, u=u).samples[0, 0]
            assert one.hr is not None
            values.append(-10 * np.log10(np.square(sample.astype(np.float64) - one.hr).mean()))
        psnr[key] = np.array(values)
    given = found.document["samples"]
    assert given["psnr"] == pytest.approx({k: v.mean() for k, v in psnr.items()}, abs=1e-3)
    assert given["psnr_minus_u0"]["1"][0] == pytest.approx((psnr["1"] - psnr["0"]).mean(), abs=1e-3)
    assert given["moved_grey_levels"] > 0


def test_without_gates_u_changes_nothing_and_the_study_says_so() -> None:
    model = small_model(small_config({"control": {"gates": False}}))
    ungated = study(model, [image(i) for i in range(20, 32)], [image(i) for i in range(2)], kinds=("flat",))
    assert ungated.document["samples"] is None and ungated.document["strange_samples"] is None
    assert "no gates" in markdown(ungated.document)


def test_the_command_writes_table_numbers_and_figure(trained: Path, tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", count=15, hr_px=(40, 50), factor=5)
    lines = (data / "pairs.csv").read_text().splitlines()
    lines = [lines[0], *(r.replace(",test,", ",train,") if i >= 2 else r for i, r in enumerate(lines[1:]))]
    (data / "pairs.csv").write_text("\n".join(lines) + "\n")
    words = ["--checkpoint", str(trained), "--data", str(data), "--bank", str(data), "--threads", "1"]
    out = tmp_path / "out"
    done = CliRunner().invoke(ood, [*words, "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0 and done.stdout == (out / "ood.md").read_text()
    assert PIL.Image.open(out / "ood.png").width == 2000
    document = json.loads((out / "ood.json").read_text())
    assert (document["images"], document["bank"], list(document["scores"])) == (2, 13, [KNOWN, *KINDS])
    assert document["checkpoint"]["label"] == "rareflow-small" and "rareflow-small" in done.stdout
    assert str(tmp_path) not in done.stdout + (out / "ood.json").read_text()  # no machine's paths

    with pytest.raises(RfbenchError, match="is in the bank and among the images"):
        same = [*words, "--bank-split", "test", "--bank-limit", "12", "--out", str(tmp_path / "no")]
        CliRunner().invoke(ood, same, catch_exceptions=False)
    assert not (tmp_path / "no").exists()
