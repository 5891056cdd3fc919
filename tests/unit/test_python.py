"""``import rfbench``: what its pages and docstrings say, run as they stand."""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rfbench

from bench.core import registry
from tests.commands import python
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "python.md"


@pytest.mark.parametrize(
    "module", ["rfbench", "rfbench.metrics", "bench.api.runs", "bench.api.models", "bench.api.arrays"]
)
def test_doctests(module: str, tmp_path: Path) -> None:
    names = {"folder": tmp_path, "pred": np.full((32, 32, 3), 0.6), "ref": np.full((32, 32, 3), 0.5)}
    names |= {name: getattr(rfbench, name) for name in ("Adapter", "Prediction", "resize")}
    found = doctest.testmod(importlib.import_module(module), extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    registry.forget()
    assert found.failed == 0
    assert found.attempted > 0 or module == "bench.api.arrays"


def test_the_page_s_script_compares_two_models(tmp_path: Path) -> None:
    """As a reader would: copied from the page, in a folder of its own, here on fewer images."""
    (script,) = re.findall(r"<!-- script -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    script = script.replace('out="compared"', 'out="compared", limit=7')
    (tmp_path / "script.py").write_text(script)
    done = python("script.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lanczos" in done.stdout and r"\toprule" in done.stdout and "difference" in done.stdout


def test_the_page_s_other_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = rfbench.run(["bicubic", "nearest"], metrics=["psnr_rgb"], limit=2, out="compared")
    assert isinstance(runs.compare(), pd.DataFrame) and len(runs.to_frame()) == 4
    from bench.reports.pictures import export

    for _ in export([runs[0].folder], tmp_path / "pictures", references=True):
        pass
    (tmp_path / "pictures" / "bicubic").rename(tmp_path / "my-outputs")
    (tmp_path / "pictures" / "hr").rename(tmp_path / "hr-images")
    blocks = re.findall(r"(?<!<!-- script -->\n)```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 4
    names: dict[str, object] = {"rfbench": rfbench}
    for block in blocks[:-1]:
        exec(block, names)
    scores = names["scores"]
    assert isinstance(scores, pd.DataFrame)
    assert scores["psnr_rgb"].tolist() == runs[:1].to_frame()["psnr_rgb"].tolist()


def test_a_model_of_a_notebook_is_predicted_anew_when_its_cell_changes(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A class without a file, as a notebook has it: its source is known to ``linecache`` alone."""
    import linecache
    import types

    module = types.ModuleType("a_notebook")
    module.__dict__["rfbench"], module.__dict__["np"] = rfbench, np
    sys.modules["a_notebook"] = module
    cell = """
def gain(images):
    return {factor} * images

class Mine(rfbench.Adapter):
    def upscale(self, batch):
        images = np.stack([rfbench.resize(image, batch.size) for image in batch.images])
        return rfbench.Prediction(mean=np.clip(gain(images), 0, 1).astype(np.float32))
"""
    try:
        numbers = []
        for number, factor in enumerate((0.9, 0.9, 0.5)):
            text = cell.format(factor=factor)
            file = f"<cell {number}>"
            linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
            exec(compile(text, file, "exec"), module.__dict__)
            rfbench.register_model(module.__dict__["Mine"])
            runs = rfbench.run("mine", data=dataset, metrics=["psnr_rgb"], out=tmp_path / "out", workers=0)
            numbers.append(float(runs.summary().loc["mine", "psnr_rgb"]))
    finally:
        del sys.modules["a_notebook"]
        registry.forget()
    said = capsys.readouterr().err
    assert numbers[0] == numbers[1] != numbers[2]
    assert said.count("predicted anew") == 1 and said.count("5 of 5 predictions were there") == 1


def test_arrays_are_refused_in_one_line() -> None:
    image = np.zeros((16, 16, 3))
    for pred, message in (
        (image[..., 0], "expected \\(H, W, 3\\)"),
        (image + 2, "found values from 2 to 2, expected \\[0, 1\\]"),
        (image.astype(np.int32), "expected uint8, or floats"),
    ):
        with pytest.raises(rfbench.RfbenchError, match=message):
            rfbench.metrics.psnr_rgb(pred, image)
    with pytest.raises(rfbench.RfbenchError, match="ece: no predictive distribution"):
        rfbench.metrics.ece(image, image)
    with pytest.raises(AttributeError, match="did you mean psnr_rgb"):
        rfbench.metrics.psnr_rbg  # noqa: B018


def test_numbers_by_the_libraries_that_define_them(tmp_path: Path) -> None:
    """The choice is in the identity of the run's metric, and reaches the function of arrays."""
    runs = rfbench.run("nearest", metrics=["psnr_rgb"], exact_libraries=True, limit=1, workers=0, out=tmp_path / "run")
    ours = "psnr_rgb|rgb|peak1|cap100|q8|r2"
    assert runs[0].metrics["psnr_rgb"].identity == "psnr_rgb|rgb|peak1|cap100|by:skimage|q8|r1"
    assert rfbench.score_runs(runs, ["psnr_rgb"], workers=0)[0].metrics["psnr_rgb"].identity == ours
    pred, ref = np.random.default_rng(0).random((2, 16, 16, 3))
    numbers = [rfbench.metrics.psnr_rgb(pred, ref, exact_libraries=exact) for exact in (False, True)]
    assert abs(numbers[0] - numbers[1]) < 1e-9


def test_import_rfbench_costs_nothing() -> None:
    code = "import sys, rfbench; print(sorted({'torch', 'numpy', 'pandas'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_surface_is_whole() -> None:
    for name in rfbench.__all__:
        assert getattr(rfbench, name) is not None
