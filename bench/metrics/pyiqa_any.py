"""Any other metric of pyiqa under the name ``pyiqa:NAME``, with whatever weights lie in pyiqa's cache.

The weights of these are not on our list, so they are not verified, and the identity says so. Nothing is fetched.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.core.errors import RfbenchError, Unavailable, one_line, unknown
from bench.metrics.base import Estimate, Metric, Need, Reference
from bench.metrics.networks import as_tensor, inference, no_downloads, quietly, safe_loading

SEED = 123
_OF_SETS = ("FID", "InceptionScore")  # types of network that look at folders


@functools.cache
def pyiqa_metric(name: str) -> type[Metric]:
    """The Metric for pyiqa's ``name``: full- or no-reference and up or down as pyiqa says.

    Raises
    ------
    Unavailable
        If pyiqa is not installed.
    RfbenchError
        If pyiqa has no such metric, or it is one of sets of images.
    """
    known = _configurations()
    if name not in known:
        raise unknown("pyiqa metric", name, known, hint="write pyiqa:NAME with a name that pyiqa lists")
    found = known[name]
    if found["metric_opts"]["type"] in _OF_SETS:
        raise RfbenchError(f"pyiqa:{name} looks at folders, not at images; use fid_tf or kid_tf")
    compared = found["metric_mode"] == "FR"
    needs: tuple[Need, ...] = ("reference",) if compared else ()
    direction: Literal["up", "down"] = "down" if found.get("lower_better") else "up"
    attributes = {
        "__doc__": f"pyiqa's ``{name}``, {'full' if compared else 'no'}-reference. {_Pyiqa.__doc__}",
        "__module__": __name__,
        "name": f"pyiqa:{name}",
        "title": name,
        "direction": direction,
        "group": "perceptual" if compared else "realism",
        "needs": needs,
        "parameters": (found["metric_mode"], "weights-unverified"),
        "summary": f"pyiqa's {name} ({'full' if compared else 'no'}-reference)",
        "pyiqa_name": name,
    }
    return type(f"Pyiqa_{name}", (_Pyiqa,), attributes)


class _Pyiqa(Metric):
    """pyiqa's own definition, options, range and source; RGB in [0, 1] goes in, one image at a time.

    Random crops, where a metric takes some, come from a fixed seed. Weights that are not in pyiqa's cache are not
    downloaded: the metric is then a reason that names the file. What is there is read as tensors only.
    """

    name = "pyiqa"
    title = "pyiqa"
    direction = "up"
    group = "perceptual"
    package = "pyiqa"
    licence = "PolyForm Noncommercial (pyiqa)"
    pyiqa_name: str

    def setup(self) -> None:
        """Build the metric from what is here, or say what is missing."""
        with quietly(), no_downloads(self.name), safe_loading():
            import pyiqa

            try:
                self._metric = pyiqa.create_metric(self.pyiqa_name, device=self.setting.device)
            except ImportError as error:
                raise Unavailable(f"{self.name} needs a package: {one_line(error, 160)}") from error

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """pyiqa's score of the displayed image."""
        import torch

        device = self.setting.device
        images = [as_tensor(np.clip(estimate.display, 0.0, 1.0), device)]
        if "reference" in self.needs:
            assert reference.display is not None
            images.append(as_tensor(np.clip(reference.display, 0.0, 1.0), device))
        with quietly(), no_downloads(self.name), inference():
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # noqa: NPY002 - what pyiqa draws from
            score = self._metric(*images)
        first = score[0] if isinstance(score, tuple) else score
        return float(first.reshape(-1)[0])


@functools.cache
def _configurations() -> dict[str, Any]:
    """pyiqa's list of metrics, read from its file alone: importing pyiqa takes many seconds."""
    spec = importlib.util.find_spec("pyiqa")
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable("package pyiqa is not installed")
    path = Path(spec.submodule_search_locations[0]) / "default_model_configs.py"
    source = importlib.util.spec_from_file_location("_rfbench_pyiqa_configurations", path)
    if source is None or source.loader is None:
        raise Unavailable(f"pyiqa's list of metrics is not at {path}")
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return dict(module.DEFAULT_CONFIGS)
