"""One tester for all registered metrics, ``bench.check``, and the choice of the default ones."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import weights
from bench.check.metrics import check_metric
from bench.check.pairs import measure, scene
from bench.core import registry
from bench.metrics.base import Score, Setting
from bench.metrics.identity import rebuild
from bench.metrics.scorer import chosen, default_set, metric_class
from tests.reference.random_weights import (
    ALEXNET,
    CLIP,
    DINOV2,
    INCEPTION,
    KONIQ,
    PIPAL,
    VGG16,
    accepted,
    narrow_inception,
    narrow_maniqa,
)

NAMES = list(registry.names("metrics"))
FILES = {INCEPTION, ALEXNET, VGG16, KONIQ, PIPAL, DINOV2, CLIP}
# Of two metrics that share all code but their weights or their last step, one goes through every check.
SIBLINGS = {
    "kid_tf": "fid_tf",
    "lpips_vgg": "lpips_alex",
    "maniqa_pipal": "maniqa_koniq",
    "recall_dinov2": "precision_dinov2",
}


@contextlib.contextmanager
def random_weights(name: str) -> Iterator[Setting]:
    """With the metric's own files; where one is not here, with random ones, and InceptionV3 and MANIQA narrow: what is
    promised here does not depend on a network's width, and the full ones are held against others in tests/reference."""
    kind = metric_class(name)
    with contextlib.ExitStack() as stack:
        if kind(Setting()).missing() is None:
            yield Setting()
            return
        if importlib.util.find_spec(kind.package) is None:
            pytest.skip(f"needs the package {kind.package}")
        lacking = [f for f in kind.weights_files if f not in FILES and not weights.listed()[f].package_path]
        if lacking:
            pytest.skip(f"needs the weights {' and '.join(lacking)}, of which no random ones can be made")
        if INCEPTION in kind.weights_files:
            yield stack.enter_context(narrow_inception())
            return
        if name.startswith("maniqa"):
            stack.enter_context(narrow_maniqa())
        yield stack.enter_context(accepted(*(f for f in kind.weights_files if f in FILES)))


MADE = ("mean_error", "pyiqa:psnry", "psnr_rgb_reg")  # by a plugin, from pyiqa, from another metric


@pytest.mark.parametrize("name", [*(n for n in NAMES if n not in SIBLINGS), *MADE])
def test_a_metric_keeps_its_promises(name: str, plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.startswith("pyiqa:"):
        pytest.importorskip("pyiqa")
    if name not in ("niqe", "precision_dinov2"):  # one of images, one of sets: dozens of them go through its network
        monkeypatch.setattr("bench.check.metrics.extent", lambda new: [("nothing", None)])
    with random_weights(name) as setting:
        report = check_metric(name, setting, tell=print)
        metric = metric_class(name)(setting)
    lines = {line.check: line for line in report.lines}
    assert report.exit_code == 0, report.summary()
    if metric.symmetric:
        assert lines["symmetry"].status == "pass"
    if "reference" in metric.needs and not (metric.level == "set" and "distribution" in metric.needs):
        expected = "skip" if metric.describes else "pass"  # of what only describes, neither end is better
        assert lines["direction"].status == lines["identical"].status == expected
    masked = "left out:" if metric.masks else r"a reason: [0-9]+ pixels without data"
    assert re.match(masked, lines["no data"].found) or metric.level == "set"


def test_the_default_set_is_the_paper_s() -> None:
    assert chosen(None) == default_set() and set(default_set()) <= set(NAMES)
    both = chosen(("psnr_rgb", "default"))
    assert both[0] == "psnr_rgb" and len(both) == len(default_set())


@pytest.mark.parametrize("name", SIBLINGS)
def test_a_sibling_has_a_number_that_its_identity_gives_back(name: str) -> None:
    assert metric_class(name).value is metric_class(SIBLINGS[name]).value
    assert metric_class(name).features is metric_class(SIBLINGS[name]).features
    side = 32 if name == "lpips_vgg" else 120
    with random_weights(name) as setting:
        metric = metric_class(name)(setting)
        pairs = [scene(side, side, seed) for seed in range(max(2, metric.min_images))]
        found = measure(metric, *pairs)
        again = measure(rebuild(metric.identity(), weights_dir=setting.weights_dir), *pairs)
    assert found.value is not None and found == again
    low, high = metric.bounds
    assert low - 1e-6 <= found.value <= high + 1e-6


@pytest.mark.parametrize("name", [n for n in NAMES if metric_class(n)(Setting()).missing() is not None])
def test_missing_weights_are_a_reason_that_names_the_file(name: str) -> None:
    metric = metric_class(name)(Setting())
    found = metric.gather(*scene(256, 256)) if metric.level == "set" else metric.assess(*scene(256, 256))
    assert isinstance(found, Score) and found.reason == metric.missing()
    assert "weights missing: " in str(found.reason) or "is not installed" in str(found.reason)
