"""Run the documentation's notebook and keep what it prints: ``python -m tests.docs.notebook``.

Outputs are committed, small, since a forge and the site show a notebook without running it; a test runs it and holds
what it prints against them.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

from tests.conftest import ROOT

NOTEBOOK = ROOT / "docs" / "notebooks" / "first_comparison.ipynb"
LIMIT_S = 240  # of a cell, so that none waits for ever


def run(folder: Path) -> Any:
    """The notebook with new outputs, run in ``folder``."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    client = NotebookClient(notebook, timeout=LIMIT_S, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute()
    return notebook


def printed(notebook: Any) -> list[list[str]]:
    """The texts of each cell's output, without progress, which is another one each time."""
    return [
        ["".join(o["data"]["text/plain"]) if "data" in o else o["text"] for o in cell.outputs if _is_said(o)]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def _is_said(output: Any) -> bool:
    if output["output_type"] == "stream":
        return bool(output["name"] == "stdout")
    return "image/png" not in output["data"]


def main() -> None:
    """Write the notebook with its outputs, without what differs from run to run."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = run(Path(folder))
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = [o for o in cell.outputs if o["output_type"] != "stream" or o["name"] == "stdout"]
            for output in cell.outputs:
                output.pop("execution_count", None)
                if output["output_type"] == "execute_result":
                    output["execution_count"] = None
                    output["metadata"] = {}
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    text = nbformat.writes(notebook)
    NOTEBOOK.write_text(re.sub(r"\n*$", "\n", text), encoding="utf-8")


if __name__ == "__main__":
    main()
