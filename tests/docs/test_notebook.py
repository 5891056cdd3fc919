"""The notebook runs from its first cell to its last, and prints what is kept in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "first_comparison.ipynb"


def test_the_notebook_prints_what_is_kept_in_it(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="the notebook needs the extra docs")
    pytest.importorskip("nbclient", reason="the notebook needs the extra docs")
    pytest.importorskip("ipykernel", reason="the notebook needs the extra docs")
    from tests.docs.notebook import printed, run

    kept = nbformat.read(NOTEBOOK, as_version=4)
    found = run(tmp_path)
    assert printed(found) == printed(kept), "run: python -m tests.docs.notebook"
    assert (tmp_path / "report" / "index.html").is_file() and (tmp_path / "panel.png").is_file()


def test_the_notebook_is_small_and_has_pictures() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 1_000_000 and "image/png" in text
