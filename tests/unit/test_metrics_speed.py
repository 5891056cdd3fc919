"""What makes scoring fast moves no number: the reference's side once for all models, pieces, crops, streams."""

from __future__ import annotations

import dataclasses
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.metrics import distances, fidelity, kernels
from bench.metrics.base import Estimate, Metric, Reference, SetScore, Setting
from bench.metrics.distances import frechet_distance, kernel_distance
from bench.metrics.fidelity import Fsim, Fsimc
from bench.metrics.networks import as_tensor
from bench.metrics.physics import De00
from bench.metrics.realism import FidTf, KidTf
from bench.metrics.scorer import Scorer, default_set, metric_class
from bench.records.scores import ImageScores, Scores, read_features, write_tensors
from bench.score.kept import Kept
from tests.reference import texture_equations
from tests.unit.test_metrics_networks import folder, images, inception  # noqa: F401 - fixtures

torch = pytest.importorskip("torch")

SET = [m for m in default_set() if not metric_class(m).slow_on_cpu]
SET += ["kid_tf", "lpips_vgg", "fsimc", "logspec_l1", "niqe_ref", "crps"]


def models(count: int, height: int = 96, width: int = 100) -> tuple[Reference, dict[str, dict[str, Estimate]]]:
    """One reference and what several models made of it, each with a distribution."""
    reference = images(height, width)[1]
    estimates = {}
    for i in range(count):
        display = images(height, width, seed=i + 1)[0].display
        estimates[f"model {i}"] = {"sample": Estimate(display, display, mean=display, std=0 * display + 0.1)}
    return reference, estimates


def fresh(reference: Reference) -> Reference:
    return dataclasses.replace(reference, cache={})


def alone(scorer: Scorer, reference: Reference, of_model: dict[str, Estimate]) -> Any:
    again = {kind: dataclasses.replace(e) for kind, e in of_model.items()}
    return scorer.score(fresh(reference), again)


@pytest.mark.usefixtures("inception")
def test_models_scored_together_have_the_scores_of_each_alone(folder: Path) -> None:  # noqa: F811
    """To the bit: a score does not say whether the reference's side was there already, nor in which order."""
    pytest.importorskip("pyiqa")
    scorer = Scorer(SET, Setting(weights_dir=folder))
    reference, estimates = models(2)
    together = scorer.score_models(fresh(reference), dict(reversed(estimates.items())))
    values = 0
    for label, of_model in estimates.items():
        one = alone(scorer, reference, of_model)
        assert together[label].scores == one.scores
        values += sum(s.value is not None for s in one.scores["sample"].values())
        for name, features in one.features["sample"].items():
            for key, array in features.items():
                assert array.tobytes() == together[label].features["sample"][name][key].tobytes()
    assert values >= 2 * (len(SET) - 5)  # all but the sets' and, without its file, NIQE


@pytest.mark.usefixtures("inception")
def test_the_reference_s_side_is_computed_once_and_let_go(folder: Path, monkeypatch: Any) -> None:  # noqa: F811
    pytest.importorskip("pyiqa")
    scorer = Scorer(SET, Setting(weights_dir=folder))
    calls: Counter[str] = Counter()
    held: list[set[str]] = []

    def counted(metric: Metric) -> None:
        compute = metric.reference_state

        def state(reference: Reference) -> Any:
            calls[metric.name] += 1
            held.append(set(reference.cache) & set(SET))
            return compute(reference)

        monkeypatch.setattr(metric, "reference_state", state)

    for metric in scorer.metrics:
        counted(metric)
    extracted = []
    fid = next(m for m in scorer.metrics if m.name == "fid_tf")
    monkeypatch.setattr(type(fid), "_extract", lambda self, x: extracted.append(id(x)) or np.zeros(2048, np.float32))
    reference, estimates = models(4)
    scorer.score_models(reference, estimates)
    assert set(calls.values()) == {1} and len(calls) >= len(SET) - 1
    assert not any(held)  # one metric's state at a time
    assert not set(reference.cache) & set(SET)
    assert len(extracted) == len(set(extracted)) == 1 + len(estimates)  # FID and KID share each image's features


@pytest.mark.parametrize("size", [(256, 256), (150, 200), (400, 500), (37, 61), (97, 131), (8, 9)])
@pytest.mark.parametrize("metric", [Fsim, Fsimc])
def test_fsim_is_pyiqa(size: tuple[int, int], metric: type[Fsim]) -> None:
    fsim_arch = pytest.importorskip("pyiqa.archs.fsim_arch")
    estimate, reference = images(*size)
    assert reference.display is not None
    theirs = fsim_arch.fsim(
        as_tensor(estimate.display, "cpu"), as_tensor(reference.display, "cpu"), chromatic=metric.chromatic
    )
    found = metric(Setting()).assess(estimate, reference)
    assert found.value == pytest.approx(float(theirs), abs=1e-6) and found.value < 0.99
    exact = texture_equations.fsim(estimate.display, reference.display, chromatic=metric.chromatic)
    assert found.value == pytest.approx(exact, abs=2e-6)


def test_the_filter_bank_is_built_once_a_size(monkeypatch: Any) -> None:
    built: list[tuple[int, int]] = []
    bank = fidelity._bank
    monkeypatch.setattr(fidelity, "_bank", lambda h, w, device: built.append((h, w)) or bank(h, w, device))
    metric = Fsim(Setting())
    for seed in range(3):
        for size in ((32, 40), (40, 32)):
            metric.assess(*images(*size, seed))
    assert built == [(32, 40), (40, 32)]


def test_de00_of_pieces_is_that_of_the_whole(monkeypatch: Any) -> None:
    estimate, reference = images(60, 70)
    holes = dataclasses.replace(reference, valid=np.random.default_rng(0).random((60, 70)) > 0.2, cache={})
    whole = [De00(Setting()).assess(estimate, r) for r in (fresh(reference), holes)]
    assert whole[0].value != whole[1].value
    monkeypatch.setattr(kernels, "_PIECE", 37)
    again = [De00(Setting()).assess(estimate, r) for r in (fresh(reference), fresh(holes))]
    # Vectors of a processor end elsewhere, and its last pixels are computed one by one.
    assert [s.value for s in again] == pytest.approx([s.value for s in whole], rel=1e-14)


# --- sets: the same distance from a stream ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 15, 16, 17, 32, 33, 100])
def test_frechet_distance_of_a_stream_is_that_of_the_whole(n: int) -> None:
    """16 features: below, at and above the number that a block holds, against eigenvalues of S1 S2."""
    random = np.random.default_rng(n)
    first = random.normal(0, 1, (n, 16)) @ random.normal(0, 1, (16, 16)) + 5
    second = random.normal(0.3, 2, (n + 1, 16))
    (m1, s1), (m2, s2) = ((x.mean(axis=0), np.cov(x.T)) for x in (first, second))
    root = np.sqrt(np.maximum(np.linalg.eigvals(s1 @ s2).real, 0)).sum()
    expected = ((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * root
    assert frechet_distance(iter(first), iter(second)) == pytest.approx(expected, rel=1e-6)


def test_kernel_distance_in_blocks_is_that_of_the_whole(monkeypatch: Any) -> None:
    random = np.random.default_rng(0)
    first, second = random.normal(0, 1, (23, 8)), random.normal(0.2, 1, (31, 8))
    kernel = lambda p, q: (p @ q.T / 8 + 1) ** 3  # noqa: E731
    xx, yy = kernel(first, first), kernel(second, second)
    expected = (xx.sum() - np.trace(xx)) / (23 * 22) + (yy.sum() - np.trace(yy)) / (31 * 30)
    expected -= 2 * kernel(first, second).mean()
    for block in (1, 5, 23, 100):
        monkeypatch.setattr(distances, "_BLOCK", block)
        assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-12)


def test_sets_are_reduced_from_files_one_image_at_a_time(monkeypatch: Any, tmp_path: Path) -> None:
    """What FID and KID hold does not grow with the set, whose features lie in files."""
    random = np.random.default_rng(0)
    scores, ids = Scores(tmp_path), [f"image {i}" for i in range(300)]
    for image_id in ids:
        sides = {side: random.random(32, np.float32) for side in ("prediction", "reference")}
        kept = {f"{name}/sample/{side}": array for name in ("fid_tf", "kid_tf") for side, array in sides.items()}
        scores.commit(ImageScores(id=image_id, prediction_sha256=""), kept)
    monkeypatch.setattr(distances, "_BLOCK", 16)
    held: list[Any] = []
    most = 0

    def load(image_id: str) -> Any:
        nonlocal most
        features = dict(scores.image_features(image_id))
        held.extend(weakref.ref(a) for a in features.values())
        alive = [r for r in held if r() is not None]
        held[:] = alive
        most = max(most, len(alive))
        return features

    for metric in (FidTf(), KidTf()):
        kept = Kept(load, [*ids, "without"], f"{metric.name}/sample/")
        assert kept.ids == ids
        score = metric.combine(kept)
        assert isinstance(score, SetScore) and score.details == {"images": 300}
        assert most < 150  # arrays alive: those of a block or two, of 600
        assert score == metric.combine([kept[i] for i in range(300)])
        most = 0


def test_features_are_written_in_parts_as_a_safetensors_file(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    random = np.random.default_rng(0)
    of_image: dict[str, dict[str, np.ndarray]] = {
        str(i): {
            "fid_tf/sample/prediction": random.random(5, np.float32),
            "niqe_ref/sample/blocks": random.random((i, 3)),
            "other/sample/count": np.array([i], np.int64),
            "other/sample/odd": np.array([i % 2 == 0] * 3),
        }
        for i in (1, 2, 4)
    }
    arrays: dict[str, Any] = {"niqe_ref/sample/fitted:mean": np.arange(3.0)}
    for metric in ("fid_tf", "niqe_ref", "other"):
        prefix = f"{metric}/sample/"
        arrays |= Kept(of_image.__getitem__, list(of_image), prefix).arrays(prefix)
    write_tensors(tmp_path / "features.safetensors", arrays)
    found = load_file(tmp_path / "features.safetensors")
    assert set(found) == {*of_image["1"], "niqe_ref/sample/blocks:rows", "niqe_ref/sample/fitted:mean"}
    assert found["niqe_ref/sample/blocks:rows"].tolist() == [1, 2, 4]
    for i, (image_id, features) in enumerate(of_image.items()):
        start = [0, 1, 3][i]
        assert (found["fid_tf/sample/prediction"][i] == features["fid_tf/sample/prediction"]).all()
        blocks = found["niqe_ref/sample/blocks"][start : start + int(image_id)]
        assert (blocks == features["niqe_ref/sample/blocks"]).all() and blocks.dtype == np.float64
        assert found["other/sample/count"][i] == [int(image_id)]
        assert (found["other/sample/odd"][i] == features["other/sample/odd"]).all()
    assert [f["prediction"].tolist() for f in read_features(tmp_path / "features.safetensors", "fid_tf/sample/")] == [
        f["fid_tf/sample/prediction"].tolist() for f in of_image.values()
    ]
