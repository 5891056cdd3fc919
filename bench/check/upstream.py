"""A system held against its authors' own code, with the same weights on the same images.

A system can be proved in this way if the package of its adapter has a script ``upstream.py``. It runs in an interpreter
of its own (the authors' packages), imports nothing of ours, and turns images into the authors' answers::

    python upstream.py CHECKOUT FOLDER

``FOLDER`` holds ``job.json`` (``{"options": {...}, "weights": {file: path}}``) and ``image0.npy``, ``image1.npy``, ...
as the adapter gets them: float32 (h, w, C) in the spec's unit and bands. The script writes ``answer0.npy``, ... beside
them, float32 (H, W, C) in the spec's output unit.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bench.check import Broken, Check, Line, Report, Skipped, examine
from bench.check.models import check_task
from bench.core.errors import RfbenchError, Unavailable, one_line
from bench.core.image import Array
from bench.models.call import Answer, Model
from bench.models.guests import checkout
from bench.models.spec import ModelSpec

TOLERANCE = 1e-4
"""Of the deviation of the authors' answer: rounding of the same sums in another order stays far below."""
_SIDES_PX = ((32, 32), (48, 32), (64, 64))  # of 16, which AdcSR's authors ask for
_LIMIT_S = 3600


def check_against_upstream(
    text: str,
    *,
    device: str = "cpu",
    clone: Path | None = None,
    python: str = sys.executable,
    tell: Callable[[Line], None] | None = None,
) -> Report:
    """The report of a system beside its authors' code on three images.

    Parameters
    ----------
    text : ``NAME[:key=value,...]``, with the published weights unless its options say otherwise.
    clone : a clone of the authors' repository; without it one is fetched from their address.
    python : the interpreter that has the authors' packages.
    """
    checks = _Checks(Model(text, device=device), text.partition(":")[0], clone, python)
    try:
        return examine("model", text, checks.all(), tell)
    finally:
        checks.model.adapter.close()


class _Checks:
    def __init__(self, model: Model, name: str, clone: Path | None, python: str) -> None:
        self.model, self.name, self.clone, self.python = model, name, clone, python
        self.images: list[Array] = []
        self.answers: list[Array] = []

    def all(self) -> Iterator[Check]:
        """The checks in order; the first ones are vital."""
        yield Check("comparable", self.comparable, vital=True)
        yield Check("checkout", self.checkout, vital=True)
        yield Check("loaded", self.loaded, vital=True)
        yield Check("authors' code", self.theirs, vital=True)
        for i in range(len(_SIDES_PX)):
            yield Check(f"image {i + 1}", lambda i=i: self.alike(i))  # type: ignore[misc]

    def comparable(self) -> str:
        spec = self.model.spec
        self.script = script_of(spec)
        if not self.script.is_file():
            raise Skipped(f"{self.name} has no upstream.py beside its adapter, which runs the authors' code")
        if spec.stochastic or spec.input_kind != "image" or spec.scale_factors is None:
            raise Skipped("only systems of one answer, one image and a fixed factor are compared")
        return f"{spec.upstream} at {spec.commit[:12]}, run by {self.script.parent.name}/{self.script.name}"

    def checkout(self) -> str:
        spec = self.model.spec
        try:
            self.folder, made = checkout.make(self.name, spec.upstream, spec.commit, self.clone)
        except RfbenchError as error:
            # Its advice is for models that always run in a guest.
            why = str(error).partition("; without network")[0]
            raise Skipped(f"{why}; give a clone of {spec.upstream} by --checkout", missing=True) from None
        return f"{'fetched' if made else 'there already'}, at the commit and unchanged: {self.folder}"

    def loaded(self) -> str:
        try:
            self.model.check_ready()
            self.model.load()
        except Unavailable as error:
            raise Skipped(str(error), missing=True) from None
        except RfbenchError as error:
            raise Broken(str(error), "the published files", "fetch them again") from None
        return f"{self.model.label} on {self.model.device}"

    def theirs(self) -> str:
        spec, model = self.model.spec, self.model
        assert spec.scale_factors is not None
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for i, (height, width) in enumerate(_sizes(spec)):
                factor = spec.scale_factors[0]
                task = check_task(f"upstream{i}", (height, width), (height * factor, width * factor), spec)
                (answer,) = model.predict([task], run_seed=0, draws=1)
                if not isinstance(answer, Answer):
                    raise Broken(str(answer), "an answer", "see 'rfbench check model'")
                self.answers.append(answer.arrays["mean"])
                given = (
                    task.lr_display
                    if spec.unit == "display"
                    else task.input.select(spec.bands or task.input.bands).values
                )
                np.save(folder / f"image{i}.npy", given)
            files = {file: str(model.adapter.weights_path(file).resolve()) for file in spec.weights}
            job = {"options": model.options, "weights": files}
            (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
            # -I: neither the user's folder nor PYTHONPATH has a part in it.
            words = [self.python, "-I", str(self.script), str(self.folder), name]
            try:
                done = subprocess.run(
                    words, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False
                )
            except OSError as error:
                raise Skipped(f"--python: {self.python} cannot be started ({one_line(error)})", missing=True) from None
            except subprocess.TimeoutExpired:
                raise Broken("no answer in an hour", "three images", "look at the authors' code") from None
            if done.returncode:
                last = one_line((done.stderr.strip().splitlines() or ["no word"])[-1], 200)
                raise Broken(
                    f"it ended with {done.returncode}: {last}", "three answers", "give --python its environment"
                )
            self.other = [np.load(folder / f"answer{i}.npy", allow_pickle=False) for i in range(len(_SIDES_PX))]
        return f"three images by {self.python}"

    def alike(self, i: int) -> str:
        mine, other = self.answers[i], self.other[i]
        if mine.shape != other.shape:
            raise Broken(f"{other.shape} of theirs, {mine.shape} of ours", "the same shape", "report it")
        apart = np.abs(mine.astype(np.float64) - other)
        deviation = float(other.std()) or 1.0
        found = (
            f"{'x'.join(map(str, mine.shape))}: largest difference {apart.max():.2g}, mean {apart.mean():.2g}, of a "
            f"deviation of {deviation:.3g}"
        )
        if apart.max() > TOLERANCE * deviation:
            raise Broken(found, f"at most {TOLERANCE:g} of it", "report it with both versions of torch")
        return found


def script_of(spec: ModelSpec) -> Path:
    """Where the script that runs the authors' code would be; nothing is promised of it being there."""
    module = importlib.import_module(spec.adapter.partition(":")[0])
    return Path(str(module.__file__)).with_name("upstream.py")


def _sizes(spec: ModelSpec) -> Iterator[tuple[int, int]]:
    """Sizes that the model takes without padding or tiles."""
    for sides in _SIDES_PX:
        height, width = (-(-max(n, spec.min_side_px) // spec.multiple) * spec.multiple for n in sides)
        yield (max(height, width),) * 2 if spec.square else (height, width)
