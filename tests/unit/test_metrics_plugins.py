"""Whatever a metric's own code does, it costs its own column in one line: the other metrics and the command go on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.check.pairs import scene
from bench.core import registry
from bench.core.reason import Reason
from bench.metrics import scorer
from bench.metrics.base import Metric, Reference, Setting
from bench.metrics.scorer import Scorer, built, chosen, default_set, distributions, metric_class
from bench.metrics.software import Software
from tests.commands import CODE

Register = Callable[[type[Metric]], None]


class Mine(Metric):
    """A plugin's metric: the mean of the prediction.

    Traps: none.
    """

    name = "mine"
    title = "Mine"
    direction = "up"
    group = "fidelity"
    decimals = 5
    default = 100
    software = (Software("mine-iqa", "somebody 2020", "MIT"),)

    def value(self, estimate: Any, reference: Any, state: Any) -> float:
        return float(estimate.display.mean())


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Register]:
    """Register a class as the metric ``mine``, as an entry point would."""

    def as_mine(kind: type[Metric]) -> None:
        points = dict(registry.points("metrics")) | {"mine": None}
        load = registry.load
        monkeypatch.setattr(registry, "points", lambda of: points)
        monkeypatch.setattr(registry, "load", lambda of, name: kind if name == "mine" else load(of, name))

    for cached in (scorer.default_set, scorer.families, scorer.software_of):
        cached.cache_clear()
    yield as_mine
    for cached in (scorer.default_set, scorer.families, scorer.software_of):
        cached.cache_clear()


def score(*names: str) -> Any:
    estimate, reference = scene(64, 64)
    return Scorer(names, Setting()).score(reference, {"sample": estimate})


def test_a_metric_is_one_file(register: Register) -> None:
    """Decimals, a place in the default set, software and citation come from the class; nothing is edited elsewhere."""
    from bench.reports.numbers import decimals_of
    from bench.score.choice import described

    register(Mine)
    assert default_set()[-1] == "mine" and chosen(None)[-1] == "mine"
    assert distributions(["mine", "psnr_rgb"])[0] == "mine-iqa"
    assert {decimals_of(described(built(name, Setting()))) for name in ("mine", "mine_reg")} == {5}


def raising(error: BaseException) -> Any:
    def raises(*args: Any, **kwargs: Any) -> Any:
        raise error

    return raises


ERRORS = [ValueError("odd\nlines"), SystemExit(3), MemoryError(), KeyError("w"), RecursionError()]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("where", ["__init__", "identity", "missing", "setup", "reference_state", "value"])
def test_errors_cost_one_column(where: str, error: BaseException, register: Register) -> None:
    register(type("Broken", (Mine,), {where: raising(error)}))
    found = score("psnr_rgb", "mine", "sam_rgb")
    scores = found.scores["sample"]
    assert scores["psnr_rgb"].value == score("psnr_rgb").scores["sample"]["psnr_rgb"].value
    assert scores["sam_rgb"].value is not None
    why = scores["mine"].reason
    assert why.kind == "failed" and why.may_pass and str(why).startswith("failed: ") and "\n" not in str(why)
    assert ("sys.exit(3)" if isinstance(error, SystemExit) else type(error).__name__) in str(why)
    assert len(found.tracebacks) == 1 and type(error).__name__ in found.tracebacks[0]
    assert Path(__file__).name in found.tracebacks[0]


def test_an_identity_that_is_no_text_is_told(register: Register) -> None:
    register(type("Odd", (Mine,), {"identity": lambda self, fit="": np.float32(1.0)}))
    metric = built("mine", Setting())
    assert "expected one line of text" in str(metric.missing()) and metric.identity() == "mine|broken"


def test_what_a_metric_is_given_cannot_be_written_to(register: Register) -> None:
    """One that wrote into its reference once turned the next column's 27.55 dB into 14.51."""

    def value(self: Any, estimate: Any, reference: Reference, state: Any) -> float:
        assert reference.hr is not None and reference.display is not None
        for array in (estimate.display, estimate.mean, estimate.draws, reference.hr.values):
            with pytest.raises(ValueError, match="read-only"):
                array[:] = 0.0
        reference.display[:] = 0.0
        return 0.0

    register(type("Greedy", (Mine,), {"value": value}))
    estimate, reference = scene(64, 64)
    found = Scorer(["mine", "psnr_rgb"], Setting()).score(reference, {"sample": estimate})
    assert "read-only" in str(found.scores["sample"]["mine"].reason)
    assert found.scores["sample"]["psnr_rgb"] == score("psnr_rgb").scores["sample"]["psnr_rgb"]
    assert reference.display is not None and reference.display.flags.writeable  # the caller's own are as before


def test_printing_and_the_working_folder(register: Register, capsys: Any, tmp_path: Path) -> None:
    def value(self: Any, estimate: Any, reference: Any, state: Any) -> float:
        print("\x1b[31mloud")
        os.chdir(tmp_path)
        return 1.0

    register(type("Loud", (Mine,), {"value": value}))
    before = Path.cwd()
    assert score("mine").scores["sample"]["mine"].value == 1.0
    assert Path.cwd() == before
    said = capsys.readouterr()
    assert said.out == "" and "loud" in said.err


def test_a_reason_is_data_and_prints_as_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import weights

    small = metric_class("logspec_l1")(Setting()).assess(*scene(10, 20))
    assert small.reason == Reason("unfit", "image of 10x20 px is smaller than 16 px") and not small.reason.may_pass
    monkeypatch.setattr(weights, "folders", lambda weights_dir=None: [tmp_path])
    lacking = metric_class("fid_tf")(Setting())
    why = lacking.missing()
    if why is not None and lacking.lacking_weights():
        assert why.kind == "missing" and why.remedy == f"'rfbench weights fetch {lacking.weights_files[0]}' gets it"
        assert str(why) == f"{why.text}; {why.remedy}"


LOUD = """
import os, warnings

def loud(scorer):
    'What a library does in a scoring process: it warns, prints, and writes to the stream under Python.'
    warnings.warn_explicit("of a library", UserWarning, "/site-packages/pyiqa/archs/x.py", 1)
    os.write(1, b"printed")
    return 1

if __name__ == "__main__":
    import loud_library
    from bench.metrics.base import Setting
    from bench.metrics.scorer import metric_class
    from bench.score.pool import Scoring

    identities = {"psnr_rgb": metric_class("psnr_rgb")(Setting()).identity()}
    with Scoring(identities, Setting(), 1) as pool:
        print([*pool.submit("a", loud_library.loud), *pool.drain()])
"""


def test_a_scoring_process_keeps_libraries_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loud_library.py").write_text(LOUD)
    seen = os.pathsep.join([str(tmp_path), str(CODE)])
    said = subprocess.run(
        [sys.executable, tmp_path / "loud_library.py"], capture_output=True, text=True, check=True, timeout=120,
        env=os.environ | {"PYTHONPATH": seen},
    )  # fmt: skip
    assert said.stdout == "[('a', 1)]\n" and "of a library" not in said.stderr and "printed" in said.stderr
