"""One tester for all registered metrics, ``bench.check``, and the choice of the default ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.check.metrics import check_metric, scene
from bench.core import registry
from bench.metrics.base import Score, Setting
from bench.metrics.scorer import DEFAULT, chosen, metric_class

NAMES = list(registry.names("metrics"))


@pytest.mark.parametrize("name", [*NAMES, "mean_error", "pyiqa:psnry"])
def test_a_metric_keeps_its_promises(name: str, plugin: Path) -> None:
    if name.startswith("pyiqa:"):
        pytest.importorskip("pyiqa")
    report = check_metric(name, tell=print)
    metric = metric_class(name)(Setting())
    lines = {line.check: line for line in report.lines}
    assert lines["identity"].status == "pass" and lines["attributes"].status == "pass"
    if metric.missing() is not None:
        assert report.exit_code == 2 and lines["ready"].found == metric.missing()
        return
    assert report.exit_code == 0, report.summary()
    if "reference" in metric.needs and not (metric.level == "set" and "distribution" in metric.needs):
        assert lines["direction"].status == lines["identical"].status == "pass"
    assert lines["no data"].found.startswith("left out:" if metric.masks else "a reason: 5120 pixels without data") or (
        metric.level == "set"
    )


def test_the_default_set_is_the_paper_s() -> None:
    assert chosen(None) == DEFAULT and set(DEFAULT) <= set(NAMES)
    assert chosen(("psnr_rgb", "default"))[0] == "psnr_rgb" and len(chosen(("psnr_rgb", "default"))) == len(DEFAULT)


@pytest.mark.parametrize("name", [n for n in NAMES if metric_class(n)(Setting()).missing() is not None])
def test_missing_weights_are_a_reason_that_names_the_file(name: str) -> None:
    metric = metric_class(name)(Setting())
    found = metric.gather(*scene(256, 256)) if metric.level == "set" else metric.assess(*scene(256, 256))
    assert isinstance(found, Score) and found.reason == metric.missing()
    assert "weights missing: " in str(found.reason) or "is not installed" in str(found.reason)
