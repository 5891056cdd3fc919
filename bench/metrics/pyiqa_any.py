"""Any other metric of pyiqa under the name ``pyiqa:NAME``, with the weights that are here for it.

Neither their options nor their weights are on a list of ours. The hash of the options that pyiqa gives the name, and
that of each file that it loads, are in the identity instead, so that two numbers of one identity come from the same of
both. To know them, the network is built once when a run is planned. Nothing is fetched.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench import weights
from bench.core.errors import RfbenchError, Unavailable, one_line, unknown
from bench.core.files import digest
from bench.core.reason import Reason
from bench.metrics.base import Estimate, Metric, Need, Reference, Setting
from bench.metrics.lookup import files_of
from bench.metrics.networks import as_tensor, inference, quietly, safe_loading
from bench.metrics.software import PYIQA

SEED = 123
MODERN = ("pyiqa:topiq_fr", "pyiqa:afine_fr", "pyiqa:musiq", "pyiqa:clipiqa+")
"""What newer papers print, asked for by ``--metrics modern`` with those of sets (``bench.metrics.modern``): two with
the reference, two without."""
_OF_SETS = ("FID", "InceptionScore")  # types of network that look at folders
_COMPARED = (
    "Where it is a network, it learned from photographs and from what people think of their faults; nobody judged "
    "satellite images. It is held to the HR image, so it orders methods on one dataset, but its scale is that of "
    "photographs: 'rfbench check metric' prints what HR images, noise and unrelated photographs get here."
)
_NO_REFERENCE = (
    "Made from what people think of photographs, or from photographs alone; nobody judged satellite images. It may "
    "order blur and artefacts, and takes haze, snow, shade and smooth ground for faults. It cannot say whether what is "
    "seen is there. Use it beside a metric with reference, on the same images; 'rfbench check metric' prints what HR "
    "images, noise and unrelated photographs get here."
)


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
    options = ", ".join(f"{key}={value}" for key, value in found["metric_opts"].items())
    extent = found.get("score_range")
    attributes = {
        "__doc__": (
            f"pyiqa's ``{name}``, {'full' if compared else 'no'}-reference, made with {one_line(options)}"
            + (f"; pyiqa gives its range as {one_line(extent, 40)}.\n\n    " if extent else ".\n\n    ")
            + str(_Pyiqa.__doc__)
        ),
        "__module__": __name__,
        "name": f"pyiqa:{name}",
        "title": name,
        "direction": direction,
        "group": "perceptual" if compared else "realism",
        "needs": needs,
        "parameters": (found["metric_mode"], f"opts:{digest(found['metric_opts'])[:8]}"),
        "summary": f"pyiqa's {name} ({'full' if compared else 'no'}-reference)",
        "on_satellite": _COMPARED if compared else _NO_REFERENCE,
        "pyiqa_name": name,
    }
    return type(f"Pyiqa_{name}", (_Pyiqa,), attributes)


class _Pyiqa(Metric):
    """pyiqa's own definition, options, range and source; RGB in [0, 1] goes in, one image at a time.

    Random crops, where a metric takes some, come from a fixed seed. Weights are looked for in the weights folders, then
    in the caches of pyiqa, torch.hub and the Hugging Face hub, and are not downloaded: without them the metric is a
    reason that names the file. What is there is read as tensors only, and a file whose name holds the beginning of its
    hash, as most do, must have that hash.

    Source: pyiqa's page on it; cite its authors, and pyiqa.

    Traps: pyiqa's names are not those of papers: its ``ssim`` is of luma and its ``psnr`` of RGB; its number moves with
    its version, which is recorded beside the run.
    """

    name = "pyiqa"
    title = "pyiqa"
    direction = "up"
    group = "perceptual"
    package = "pyiqa"
    software = (PYIQA,)
    licence = "PolyForm Noncommercial (pyiqa)"
    citation = "chen2022pyiqa"
    pyiqa_name: str
    _files: dict[str, str] | None = None

    def weights_hashes(self) -> tuple[str, ...]:
        """The short hashes of the files that pyiqa loads, in the order of their names."""
        if self.missing() is not None:
            return ("missing",)
        files = _known[self._key] if self._files is None else self._files
        return tuple(files[name][:8] for name in sorted(files))

    def missing(self) -> Reason | None:
        """Why the metric cannot work here: found by building it, since only that tells what it loads."""
        why = super().missing()
        if why is not None or self._files is not None or self._key in _known:
            return why
        try:
            self._build()
        except Unavailable as error:
            return Reason("missing", error.reason.text, error.reason.remedy)
        except Exception as error:  # pyiqa builds hundreds of networks by other libraries
            return Reason("failed", f"pyiqa cannot build it: {type(error).__name__}: {one_line(error, 160)}")
        return None

    def setup(self) -> None:
        """Build the metric from what is here, unless ``missing`` just did, or say what is missing."""
        if self._files is None:
            self._build()

    def _build(self) -> None:
        self._metric, self._files = _built(self.pyiqa_name, self.setting)
        _known[self._key] = self._files

    @property
    def _key(self) -> tuple[str, ...]:
        """All that decides which files are found."""
        return (self.pyiqa_name, *map(str, weights.folders(self.setting.weights_dir)))

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float:
        """pyiqa's score of the displayed image."""
        import torch

        device = self.setting.device
        images = [as_tensor(np.clip(estimate.display, 0.0, 1.0), device)]
        if "reference" in self.needs:
            assert reference.display is not None
            images.append(as_tensor(np.clip(reference.display, 0.0, 1.0), device))
        with quietly(), files_of(self.name, self.setting.weights_dir) as files, safe_loading(), inference():
            torch.manual_seed(SEED)
            np.random.seed(SEED)  # noqa: NPY002 - what pyiqa draws from
            score = self._metric(*images)
        if files.items() - (self._files or {}).items():
            late = one_line(", ".join(sorted(files)), 120)
            raise Unavailable(f"pyiqa loads {late} only while it scores, so the identity could not name it")
        first = score[0] if isinstance(score, tuple) else score
        return float(first.reshape(-1)[0])


_known: dict[tuple[str, ...], dict[str, str]] = {}  # what was loaded by each metric that could be built


def _built(pyiqa_name: str, setting: Setting) -> tuple[Any, dict[str, str]]:
    """pyiqa's metric, and the SHA-256 of each file that it loaded, by name."""
    what = f"pyiqa:{pyiqa_name}"
    with quietly():
        try:
            import pyiqa
        except ImportError as error:
            raise Unavailable(f"{what}: pyiqa cannot be imported: {one_line(error, 160)}") from error
        with files_of(what, setting.weights_dir) as files, safe_loading():
            try:
                return pyiqa.create_metric(pyiqa_name, device=setting.device), files
            except ImportError as error:
                raise Unavailable(f"{what} needs a package: {one_line(error, 160)}") from error


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
