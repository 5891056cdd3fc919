"""What makes scoring fast moves no number: the reference's side once for all models, pieces, crops, streams."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.metrics import physics
from bench.metrics.base import Estimate, Metric, Reference, Setting
from bench.metrics.fidelity import Fsim, Fsimc
from bench.metrics.networks import as_tensor
from bench.metrics.physics import De00
from bench.metrics.scorer import DEFAULT, SLOW_ON_CPU, Scorer
from tests.unit.test_metrics_networks import folder, images, inception  # noqa: F401 - fixtures

torch = pytest.importorskip("torch")

SET = [*(m for m in DEFAULT if m not in SLOW_ON_CPU), "kid_tf", "lpips_vgg", "fsimc", "logspec_l1", "niqe_ref", "crps"]


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
    again = {kind: dataclasses.replace(e, cache={}) for kind, e in of_model.items()}
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


@pytest.mark.parametrize("size", [(256, 256), (150, 200), (400, 500), (37, 61), (8, 9)])
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


def test_the_filter_bank_is_built_once_a_size(monkeypatch: Any) -> None:
    fsim_arch = pytest.importorskip("pyiqa.archs.fsim_arch")
    built = []
    construct = fsim_arch._construct_filters
    monkeypatch.setattr(fsim_arch, "_construct_filters", lambda x: built.append(x.shape) or construct(x))
    metric = Fsim(Setting())
    for seed in range(3):
        for size in ((32, 40), (40, 32)):
            metric.assess(*images(*size, seed))
    assert [tuple(s[-2:]) for s in built] == [(32, 40), (40, 32)]


def test_de00_of_pieces_is_that_of_the_whole(monkeypatch: Any) -> None:
    pytest.importorskip("colour")
    estimate, reference = images(60, 70)
    holes = dataclasses.replace(reference, valid=np.random.default_rng(0).random((60, 70)) > 0.2, cache={})
    whole = [De00(Setting()).assess(estimate, r) for r in (fresh(reference), holes)]
    assert whole[0].value != whole[1].value
    monkeypatch.setattr(physics, "_PIECE", 37)
    assert [De00(Setting()).assess(estimate, r) for r in (fresh(reference), fresh(holes))] == whole
