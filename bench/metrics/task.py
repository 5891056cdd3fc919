"""What the map is for: does a segmenter find in a prediction what it finds in the HR image, and what the mask holds?

A segmenter is a function of a displayed image, registered by its name::

    [project.entry-points."rfbench.segmenters"]
    ponds = "mypackage.ponds:segment"

``segment(display)`` takes float32 (H, W, 3) RGB in [0, 1] and gives bool (H, W), or scores of which those above 0 are
inside. A class may stand in its place: it is made once, without arguments, has ``segment(display)``, and may say in
``files`` which files of weights it reads, and in ``licence`` and ``citation`` what to say of it. Both are asked for by
``--metrics task:ponds``, which is ``task_iou:ponds``, ``task_f1:ponds`` and ``task_area:ponds``.

The segmenter's code and weights are part of the identity: numbers of two versions are never mixed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bench.core import registry
from bench.core.errors import RfbenchError, Unavailable, one_line, unknown
from bench.core.files import sha256
from bench.core.image import Array, Mask
from bench.metrics.base import Estimate, Features, Metric, Reference, SetScore

FAMILY = "task:"
Segment = Callable[[Array], Any]


def task_names(name: str) -> tuple[str, ...]:
    """The metrics that ``task:NAME`` stands for; RfbenchError for a segmenter that is not registered."""
    if name not in registry.names("segmenters"):
        raise unknown("segmenter", name, registry.names("segmenters"), hint="docs/authors.md says how to register one")
    return tuple(f"{kind}:{name}" for kind in _KINDS)


def is_task(name: str) -> bool:
    """Whether a metric's name is that of a task metric, ``task_iou:NAME``."""
    return name.partition(":")[0] in _KINDS and ":" in name


@functools.cache
def task_metric(name: str) -> type[Metric]:
    """The metric ``task_iou:NAME``, ``task_f1:NAME`` or ``task_area:NAME``.

    Raises
    ------
    RfbenchError
        For a segmenter that is not registered, or whose code cannot be loaded.
    """
    kind, _, segmenter = name.partition(":")
    task_names(segmenter)
    base = _KINDS[kind]
    found = registry.load("segmenters", segmenter)
    attributes = {
        "__doc__": f"{base.__doc__}\n\n    The segmenter ``{segmenter}``: {_described(found)}",
        "__module__": __name__,
        "name": name,
        "title": f"{base.title} ({segmenter})",
        "parameters": (*base.parameters, f"segmenter:{_fingerprint(found)}"),
        "licence": one_line(getattr(found, "licence", ""), 100),
        "citation": getattr(found, "citation", ""),
        "segmenter": segmenter,
    }
    return type(base.__name__, (base,), attributes)


def _described(found: Any) -> str:
    """The first line that its author wrote of it."""
    return one_line((inspect.getdoc(found) or "its author says nothing of it").split("\n")[0], 300)


def _fingerprint(found: Any) -> str:
    """Of the syntax of the segmenter's module and of its files."""
    hashed = hashlib.sha256()
    try:
        path = inspect.getsourcefile(found)
        text = Path(path).read_text(encoding="utf-8") if path and Path(path).is_file() else inspect.getsource(found)
        hashed.update(_syntax(inspect.cleandoc(text)).encode())
    except (OSError, TypeError, SyntaxError, ValueError):
        raise RfbenchError(
            f"the segmenter {one_line(getattr(found, '__qualname__', found), 60)} has no source that its identity "
            "could be made of; write it in a file"
        ) from None
    for file in getattr(found, "files", ()):
        if not Path(file).is_file():
            raise RfbenchError(f"a segmenter's file of weights is missing: {one_line(file, 200)}; install it again")
        hashed.update(sha256(Path(file)).encode())
    return hashed.hexdigest()[:8]


def _syntax(text: str) -> str:
    """Source without comments, docstrings and layout: what is reworded finds the same."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


class _Task(Metric):
    """What the metrics of a segmenter share: pixels that both, one or the other has inside, counted once an image."""

    group = "physics"
    level = "set"
    needs = ("mask",)
    masks = True
    revision = 1
    segmenter: ClassVar[str]
    on_satellite = (
        "The number is of the segmenter as much as of the image: one that was trained on HR images of one sensor may "
        "fail on any other picture. Read it beside the row of HR itself (--model hr:unit=display), which is what this "
        "segmenter reaches on this dataset, and beside bicubic, which is what it finds without super-resolution."
    )

    def setup(self) -> None:
        """Make the segmenter."""
        found: Any = registry.load("segmenters", self.segmenter)
        made: Any = found() if inspect.isclass(found) else None
        self._segment: Segment = found if made is None else made.segment

    def features(self, estimate: Estimate, reference: Reference, state: Any) -> Features:
        """How many valid pixels are inside on both sides, in the prediction alone, and in the mask alone."""
        key = FAMILY + self.segmenter
        known = estimate.cache.get(key)  # what the first of the three found, where the same pixels have data
        if known is None or known[0] is not reference.valid:
            known = reference.valid, self._inside(_filled(estimate.display, reference.valid))
            estimate.cache[key] = known
        found: Mask = known[1]
        assert reference.mask is not None  # ``needs`` says so
        true, valid = reference.mask, reference.valid
        counts = (found & true & valid).sum(), (found & ~true & valid).sum(), (~found & true & valid).sum()
        return {"counts": np.array(counts, np.float64)}

    def _inside(self, display: Array) -> Mask:
        found = np.asarray(self._segment(display))
        if found.shape != display.shape[:2] or found.dtype.kind not in "bfiu":
            shape = "x".join(map(str, found.shape))
            raise TypeError(f"the segmenter gave {found.dtype} {shape}, expected bool or scores of {display.shape[:2]}")
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise TypeError("the segmenter gave scores that are not finite")
        return found if found.dtype == bool else found > 0

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The number of all images' pixels together, and of each image's own where it has one."""
        counts = np.stack([f["counts"] for f in features])
        if not (counts[:, 0] + counts[:, 2]).any():
            raise Unavailable("no mask of these images has a pixel inside")
        own = [self._of(c[None]) if c.any() else None for c in counts]
        return SetScore(self._of(counts), tuple(own))

    def _of(self, counts: np.ndarray) -> float:
        """The number of images' counts (N, 3): both, prediction alone, mask alone."""
        raise TypeError(f"{type(self).__name__} makes no number of counts")


def _filled(display: Array, valid: Mask) -> Array:
    """A copy for a segmenter, which may keep or change it. Pixels without data hold the median of the others: what lies
    there must not change what is found beside them."""
    copied = np.array(display, np.float32)
    if not valid.all():
        copied[~valid] = np.median(copied[valid], axis=0)
    return copied


class TaskIou(_Task):
    """How much of what a segmenter finds in the prediction, and of the mask, is the same: intersection over union.

    Pixels of all images are counted together, so that an image without anything inside counts only by what is wrongly
    found in it. 1 is the mask itself.

    Traps: the mean of the images' own values is another number, which small objects decide.
    """

    name = "task_iou"
    title = "IoU"
    direction = "up"
    decimals = 3
    parameters = ("pooled",)
    summary = "Intersection over union of a segmenter's finds with the mask"
    equation = "TP / (TP + FP + FN) over the pixels of all images"
    bounds = (0.0, 1.0)
    perfect = None

    def _of(self, counts: np.ndarray) -> float:
        both, found, missed = counts.sum(axis=0)
        return float(both / (both + found + missed))


class TaskF1(_Task):
    """The harmonic mean of precision and recall of a segmenter's finds in the prediction, the mask being true.

    Pixels of all images are counted together. It orders one segmenter's rows as the IoU does.
    """

    name = "task_f1"
    title = "F1"
    direction = "up"
    decimals = 3
    parameters = ("pooled",)
    summary = "F1 of a segmenter's finds with the mask"
    equation = "2 TP / (2 TP + FP + FN) over the pixels of all images"
    bounds = (0.0, 1.0)

    def _of(self, counts: np.ndarray) -> float:
        both, found, missed = counts.sum(axis=0)
        return float(2 * both / (2 * both + found + missed))


class TaskArea(_Task):
    """By how much the area that a segmenter finds in an image is off the mask's, the mean over images, relative to the
    mean area; 0 is best.

    What is found in the wrong place counts as area all the same: an inventory's question, not a map's.

    Traps: a segmenter that finds nothing has 1, one that finds everything more.
    """

    name = "task_area"
    title = "Area error"
    direction = "down"
    decimals = 3
    parameters = ("mean-abs", "relative")
    summary = "Relative error of the area that a segmenter finds"
    equation = "sum |A(prediction) - A(mask)| / sum A(mask) over images"
    bounds = (0.0, float("inf"))

    def _of(self, counts: np.ndarray) -> float:
        found, true = counts[:, 0] + counts[:, 1], counts[:, 0] + counts[:, 2]
        return float(np.abs(found - true).sum() / true.sum()) if true.any() else float(found.any())


_KINDS: dict[str, type[_Task]] = {kind.name: kind for kind in (TaskIou, TaskF1, TaskArea)}
