"""The sealed call: between a task and an adapter stands one place that does the dangerous parts for all models.

Units and bands are selected by name, small images are padded and large ones tiled, models of another scale are
brought to the grid by the protocol's policy, answers are checked, and running out of memory halves the batch (then
the tile) instead of losing the run. What was done to an image is noted with its scores.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from bench import weights
from bench.core import memory, registry
from bench.core.contain import PluginFailed, contained, described, kept_traceback, quiet
from bench.core.errors import ItemError, RfbenchError, Unavailable, one_line, unknown
from bench.core.files import digest
from bench.core.image import RGB, Array, Image, Unit
from bench.core.options import split_spec
from bench.core.resample import resize
from bench.core.seeds import seed_for
from bench.models.code import code_hash
from bench.models.ready import install, lacking
from bench.models.spec import Adapter, Batch, ModelSpec, Prediction
from bench.models.tiling import Span, pad, padded_size, ramp, spans
from bench.protocols.base import Policy, Task

_FOR_PEOPLE = (
    "summary", "licence", "option_licences", "allows", "without_bands", "citation", "paper", "published",
    "unlike_paper", "status", "verified", "unverified", "reimplementation", "requires", "extra", "dtypes",
    "default_options", "check_options", "needs_options", "path_options", "environment",
)  # fmt: skip
_SMALLEST_TILE_PX = 8
_STEP_PX = 8  # tiles start at multiples of it, so that the cells of latent noise fall into place in every tile
_NO_MEMORY = ItemError("out of memory")
# An answer beyond these is no image in its unit: most likely digital numbers where [0, 1] was expected.
PLAUSIBLE = {"display": (-2.0, 3.0), "reflectance": (-5.0, 50.0)}
MAP = "map:"
"""What the names of maps begin with where they stand among the arrays of a prediction."""


@dataclass(frozen=True)
class Window(Task):
    """A task whose LR is a window of a larger image; ``offset`` is the (row, column) of its first LR pixel there.

    Windows with the id of their image see the noise that the whole image would have had in their place.
    """

    offset: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Answer:
    """A model's answer to one task, on the task's grid.

    ``arrays`` holds float32 ``samples`` (K, H, W, C), or ``mean`` and perhaps ``std`` (H, W, C); ``native`` the same
    before a resize to the grid, where there was one. ``normalised`` says that the values went through the protocol's
    normalisation before the model saw them (a model that answers in display range), so they do not go through again.
    ``maps`` (float32 (H, W)) and ``facts`` are the adapter's extras, by name.
    """

    arrays: dict[str, Array]
    unit: Unit
    bands: tuple[str, ...]
    normalised: bool
    native: dict[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    maps: dict[str, Array] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)

    def stored(self) -> dict[str, Array]:
        """All arrays under the names that the run folder keeps them by."""
        native = {f"native_{k}": v for k, v in self.native.items()}
        return self.arrays | native | {MAP + k: v for k, v in self.maps.items()}


@dataclass(frozen=True)
class _Raw:
    """What an adapter gave for a batch, checked: ``arrays`` (N, ..., H, W, C), the maps among them as ``map:NAME`` with
    one channel, and ``facts``, float64 (N,) by name."""

    arrays: dict[str, Array]
    facts: dict[str, np.ndarray]


_BY_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)(?::(?P<options>.*))?", re.DOTALL)
"""A model by the file of its code: ``path/file.py:Class[:key=value,...]``."""
OF_EVERY_MODEL = ("label", "dtype", "draws", "batch")
"""Options that every model takes: what it is called, and what stands before the command's own."""
_NOTED_BEYOND = 1e-3  # of display range: what lies nearer to it is rounding


class Model:
    """A registered model with its options, ready to answer tasks."""

    def __init__(
        self,
        text: str,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        draws: int = 1,
        batch_size: int = 1,
        weights_dir: Path | None = None,
    ) -> None:
        """``text`` is ``NAME[:key=value,...]``, or ``path/file.py:Class[:key=value,...]`` for a class of a file.

        Every model takes the options ``label``, its name in tables, and ``dtype``, ``draws`` and ``batch``, which stand
        before those of the command, ``dtype``, ``draws`` and ``batch_size`` (0: the largest that fits). Where a model
        has an option of such a name itself, it is the model's. ``weights_dir`` is where pretrained files lie, beside
        the usual folders (``bench.weights.folders``).

        Raises
        ------
        RfbenchError
            An unknown model or option; whatever the model's own code raises while it is made.
        """
        spec, adapter_class, options = _resolved(text)
        name = spec.name
        every = {key: options.pop(key) for key in OF_EVERY_MODEL if key in options and key not in spec.default_options}
        for key in options:
            if key not in spec.default_options:
                raise unknown(f"option of model {name}", key, [*spec.default_options, *OF_EVERY_MODEL])
        label, dtype = every.get("label"), every.get("dtype", dtype)
        if dtype not in spec.dtypes:
            where = f"--model {name}:dtype" if "dtype" in every else "--dtype"
            raise RfbenchError(f"{where}: found {dtype}, expected {' or '.join(spec.dtypes)}, the arithmetic of {name}")
        self.text = text
        self.options = spec.default_options | options
        self.asked = every
        self.device, self.dtype = device, dtype
        self.draws = whole(every["draws"], f"--model {name}:draws") if "draws" in every else draws
        self.batch_size = batch_size_of(every["batch"], f"--model {name}:batch") if "batch" in every else batch_size
        with contained(f"model {name}", RfbenchError):
            adapter = adapter_class(**self.options)
            self.adapter: Adapter = adapter
            self.spec: ModelSpec = adapter.specialise(spec)
            adapter.spec = self.spec
            self._weights = weights.of_model(name, self.spec.weights)
            self._weights_dir = weights_dir
            adapter._find_weights = self._find_weights
            own = f"{name}-reimplemented" if self.spec.reimplementation else name
            self.label = one_line(label or adapter.label() or own, 60)
            self.training_ids = adapter.training_ids()
        self.retreats: list[str] = []  # what running out of memory changed, for the record of the run
        self._largest_batch: int | None = None

    def text_everywhere(self) -> str:
        """The model as ``--model`` takes it in another folder or on another machine: paths are whole."""
        by_file = _BY_FILE.fullmatch(self.text)
        head = f"{Path(by_file['file']).absolute()}:{by_file['name']}" if by_file else name_of(self.text)
        options = {k: v for k, v in self.options.items() if v != self.spec.default_options.get(k)} | self.asked
        for key in self.spec.path_options:
            if key in options and Path(options[key]).exists():
                options[key] = str(Path(options[key]).absolute())
        return f"{head}:{','.join(f'{k}={v}' for k, v in options.items())}" if options else head

    def fit_to(self, dataset: Any, split: str, protocol: Any) -> None:
        """Let a model that is fitted to a dataset be so before anything of it is recorded."""
        with contained(f"model {self.spec.name}", RfbenchError):
            self.adapter.fit_to(dataset, split, protocol)
            self.training_ids = self.adapter.training_ids()

    def identity(self) -> dict[str, Any]:
        """All of the model that can change a prediction, as a run records it (``ModelRecord`` without the label)."""
        spec = {k: v for k, v in dataclasses.asdict(self.spec).items() if k not in _FOR_PEOPLE}
        with contained(f"model {self.label}", RfbenchError):
            # Not where they come from.
            spec["weights"] = {f: weights.identified(entry, self._weights_dir) for f, entry in self._weights.items()}
            adapter = self.adapter.identity()
            asked = self.spec.environment
            code = code_hash(type(self.adapter), (asked.shim_file(),) if asked is not None else ())
            options = {k: str(v) for k, v in self.options.items() if k not in self.spec.path_options}
            found = {"spec": spec, "options": options, "adapter": adapter, "code": code}
            plain: dict[str, Any] = json.loads(json.dumps(found, default=_plain))
        return plain

    def check_ready(self) -> None:
        """Unavailable, with the command that helps, unless the packages and files that the model needs are here and
        right: with the hashes that are known, and the tensors that the model has as far as its adapter can tell."""
        self._check_packages()
        with contained(f"model {self.label}", Unavailable):
            self.adapter.check()
        for file in self._weights:
            try:
                self._find_weights(file)
            except Unavailable as error:
                raise Unavailable(
                    f"model {self.label}: {error} ('rfbench weights fetch --models {self.spec.name}' gets all of them)"
                ) from None
        try:
            with contained(f"model {self.label}"):
                self.adapter.check_weights()
        except PluginFailed:
            raise
        except RfbenchError as error:
            said = str(error)
            raise Unavailable(said if said.startswith("model ") else f"model {self.label}: {said}") from None
        except MemoryError:
            raise Unavailable(f"model {self.label}: out of memory while its weights were looked at") from None

    def _check_packages(self) -> None:
        packages = lacking(self.spec.requires)
        if packages:
            raise Unavailable(f"model {self.label}: {packages[0]}; {install(self.spec)} installs it")

    def _find_weights(self, file: str) -> Path:
        if file not in self._weights:
            raise unknown(f"weights file of model {self.spec.name}", file, self._weights)
        return weights.find(self._weights[file], self._weights_dir)

    def load(self) -> None:
        """Load weights and move the model to its device.

        Raises
        ------
        Unavailable
            A package or a file is missing, or memory ran out.
        RfbenchError
            Whatever else loading raised.
        """
        self._check_packages()
        try:
            with contained(f"model {self.label}: loading"):
                self.adapter.load(self.device, self.dtype)
        except (MemoryError, PluginFailed) as error:
            cause = error.__cause__ or error
            if not _out_of_memory(cause):
                raise
            self.close()
            raise Unavailable(
                f"model {self.label}: out of memory while loading; use a device with more, or a smaller --dtype"
            ) from None

    def prepare(self, captions: Sequence[str]) -> None:
        """Tell the model of the captions to come, if it reads any."""
        with contained(f"model {self.label}: captions"):
            self.adapter.prepare(captions)

    def device_peak_bytes(self) -> int | None:
        """The most that it held of its device's memory, in this process or a guest; None on a processor."""
        held = (memory.device_peak_bytes(self.device), self.adapter.device_peak_bytes())
        return max((n for n in held if n is not None), default=None)

    def close(self) -> None:
        """Let the model go, and give its memory back; whatever its own code raises then is of no matter."""
        with contextlib.suppress(RfbenchError), contained(f"model {self.label}: close"):
            self.adapter.close()
        gc.collect()
        _free_memory()

    def largest_batch(self, task: Task, *, policy: Policy = "post", at_most: int) -> int:
        """How many images like ``task``'s the device holds at once: a power of two, of which twice as many do not fit
        or come within an eighth of the memory there is."""
        import torch

        most, before = 1, list(self.retreats)
        total = torch.cuda.get_device_properties(self.device).total_memory
        while 2 * most <= at_most:
            torch.cuda.reset_peak_memory_stats(self.device)
            tasks = [dataclasses.replace(task, id=f"{task.id}/{i}") for i in range(2 * most)]
            answers = self.predict(tasks, run_seed=0, draws=self.draws, policy=policy)
            retreated, self.retreats, self._largest_batch = self.retreats != before, list(before), None
            fits = not retreated and not any(isinstance(answer, ItemError) for answer in answers)
            if not fits or torch.cuda.max_memory_allocated(self.device) > total * 7 / 8:
                break
            most *= 2
        return most

    def predict(
        self, tasks: Sequence[Task], *, run_seed: int, draws: int, policy: Policy = "post"
    ) -> list[Answer | ItemError]:
        """Answer each task, in order; a task that fails is its error, and the others go on."""
        groups: dict[Any, list[int]] = {}
        for i, task in enumerate(tasks):
            alike = (task.input.size, task.size, task.input.bands, task.input.unit, task.input.gsd_m, _offset(task))
            groups.setdefault(alike, []).append(i)
        answers: list[Answer | ItemError] = [ItemError("not run")] * len(tasks)
        for indices in groups.values():
            group = [tasks[i] for i in indices]
            for i, answer in zip(indices, self._group(group, run_seed, draws, policy), strict=True):
                answers[i] = answer
        return answers

    def _group(self, tasks: list[Task], run_seed: int, draws: int, policy: Policy) -> list[Answer | ItemError]:
        """Tasks of one shape; if they fail together, each runs alone so that only the guilty one is lost."""
        limit = self._largest_batch or len(tasks)
        if len(tasks) > limit:
            parts = [tasks[i : i + limit] for i in range(0, len(tasks), limit)]
            return [answer for part in parts for answer in self._group(part, run_seed, draws, policy)]
        found = self._attempt(tasks, run_seed, draws, policy, tile_px=None)
        if isinstance(found, list):
            return list(found)
        if len(tasks) > 1:
            if found is _NO_MEMORY:
                self._largest_batch = (len(tasks) + 1) // 2
                self.retreats.append(f"out of memory: batches of at most {self._largest_batch}")
                return self._group(tasks, run_seed, draws, policy)
            return [a for task in tasks for a in self._group([task], run_seed, draws, policy)]
        if found is _NO_MEMORY:
            return [self._in_smaller_tiles(tasks[0], run_seed, draws, policy)]
        return [found]

    def _attempt(
        self, tasks: list[Task], run_seed: int, draws: int, policy: Policy, tile_px: int | None
    ) -> list[Answer] | ItemError:
        """The answers, or why there are none. The error's frames, and the memory that they hold, are gone by then."""
        try:
            return self._answer(tasks, run_seed, draws, policy, tile_px)
        except (Exception, SystemExit) as error:  # a model that fails loses its images, not the run
            why = _NO_MEMORY if _out_of_memory(error) else _item_error(self.label, error)
        if why is _NO_MEMORY:
            _free_memory()
        return why

    def _in_smaller_tiles(self, task: Task, run_seed: int, draws: int, policy: Policy) -> Answer | ItemError:
        """One image that does not fit into memory: tiles of half, a quarter, ... of its side."""
        scale = max(out / side for out, side in zip(task.size, task.input.size, strict=True))
        largest = min(self.spec.largest_tile_px(scale) or max(task.input.size), max(task.input.size))
        tile, tried = largest // 2, ""
        # A smaller tile would be padded to this again.
        while tile >= max(_SMALLEST_TILE_PX, self.spec.min_side_px, self.spec.multiple):
            found = self._attempt([task], run_seed, draws, policy, tile_px=tile)
            if isinstance(found, list):
                note = f"out of memory: run in tiles of {tile} LR px"
                self.retreats.append(f"{task.id}: {note}")
                return dataclasses.replace(found[0], notes=(*found[0].notes, note))
            if found is not _NO_MEMORY:
                return found
            tried = f" even in tiles of {tile} LR px"
            tile //= 2
        return ItemError(f"{self.label}: out of memory{tried}; use a device with more memory, or smaller images")

    def _answer(
        self, tasks: list[Task], run_seed: int, draws: int, policy: Policy, tile_px: int | None
    ) -> list[Answer]:
        spec = self.spec
        first = tasks[0]
        inputs = [self._input(task) for task in tasks]
        bands = inputs[0].bands
        images = np.stack([i.values for i in inputs])
        size, notes = first.size, list[str]()
        if spec.scale_factors is not None:
            factor = _factor(spec.scale_factors, first.input.size, first.size)
            exact = tuple(n * factor for n in first.input.size)
            if exact != first.size:
                notes.append(f"x{factor} model on a grid of {first.size[0]}x{first.size[1]} px: {policy} resize")
                if policy == "pre" and spec.input_kind == "series":
                    raise ItemError("a model of time series takes the LR's own pixels; use the policy post")
                if policy == "pre":
                    small = (-(-first.size[0] // factor), -(-first.size[1] // factor))
                    images = np.stack([resize(image, small) for image in images])
                    images = np.clip(images, 0, 1) if spec.unit == "display" else images
            size = (images.shape[1] * factor, images.shape[2] * factor)
        seeds = tuple(tuple(seed_for(run_seed, t.id, k) for k in range(draws if spec.stochastic else 1)) for t in tasks)
        batch = Batch(
            images=images,
            size=size,
            bands=bands,
            ids=tuple(t.id for t in tasks),
            captions=tuple(t.caption if spec.supports_prompt else "" for t in tasks),
            seeds=seeds,
            offset=_offset(first),
            series=tuple(t.series for t in tasks) if spec.input_kind == "series" else (),
            dates=tuple(t.lr_date for t in tasks),
            target_dates=tuple(t.reference.hr_date for t in tasks),
            gsd_m=first.input.gsd_m,
        )
        scale = max(out / side for out, side in zip(size, images.shape[1:3], strict=True))
        raw = self._tiled(batch, tile_px or spec.largest_tile_px(scale))
        arrays = {k: a for k, a in raw.arrays.items() if not k.startswith(MAP)}
        unit: Unit = inputs[0].unit if spec.output_unit == "native" else spec.output_unit
        out_bands = bands if spec.output_unit == "native" else _output_bands(arrays, bands)
        answers = []
        for i, task in enumerate(tasks):
            mine = {k: a[i] for k, a in arrays.items()}
            self._check_values(mine, unit)
            on_grid = {k: _resize_all(a, task.size) for k, a in mine.items()} if size != task.size else mine
            native = mine if size != task.size else {}
            maps = {
                k.removeprefix(MAP): resize(a[i], task.size, "bilinear")[:, :, 0]
                for k, a in raw.arrays.items()
                if k.startswith(MAP)
            }
            facts = {k: float(values[i]) for k, values in raw.facts.items()}
            normalised = spec.output_unit == "display"
            beyond = _beyond(mine) if normalised else None
            own = (*notes, *([beyond] if beyond else []))
            answers.append(Answer(on_grid, unit, out_bands, normalised, native, own, maps, facts))
        return answers

    def _input(self, task: Task) -> Image:
        """The LR in the unit and bands that the model declares."""
        spec, lr = self.spec, task.input
        if spec.input_kind == "reference":
            return _reference(task, spec.output_unit)
        if spec.input_kind == "series":
            if task.series is None:
                raise ItemError("the model needs a time series; the image has none")
            if task.series.values.shape[1:3] != lr.size:
                h, w = task.series.values.shape[1:3]
                raise ItemError(f"the time series has {h}x{w} px, expected the LR's {lr.size[0]}x{lr.size[1]}")
        if spec.unit == "display":
            if spec.bands != RGB:
                raise ItemError("a model in display units reads the bands R G B")
            return Image(task.lr_display, "display", RGB, lr.valid, lr.gsd_m)
        why = unfit(spec, lr.bands, lr.unit)
        if why:
            raise ItemError(why)
        return lr if spec.bands is None else lr.select(spec.bands)

    def _tiled(self, batch: Batch, tile_px: int | None) -> _Raw:
        _, h, w, _ = batch.images.shape
        if tile_px is None or max(h, w) <= tile_px:
            return self._padded(batch)
        overlap = min(self.spec.overlap_px, tile_px // 2)
        rows = spans(h, batch.size[0], tile_px, overlap, _STEP_PX)
        columns = spans(w, batch.size[1], tile_px, overlap, _STEP_PX)
        total: dict[str, Array] = {}
        facts: dict[str, list[np.ndarray]] = {}
        weight = np.zeros((*batch.size, 1), np.float32)
        for r, row in enumerate(rows):
            for c, column in enumerate(columns):
                part = self._padded(_tile(batch, row, column))
                share = (ramp(rows, r)[:, None] * ramp(columns, c)[None, :])[:, :, None]
                where = (slice(row.out_start, row.out_stop), slice(column.out_start, column.out_stop))
                weight[where] += share
                if (r, c) != (0, 0) and (part.arrays.keys() != total.keys() or part.facts.keys() != facts.keys()):
                    raise RfbenchError("the tiles of an image have arrays, maps or facts of different names")
                for name, of_tile in part.facts.items():
                    facts.setdefault(name, []).append(of_tile)
                for name, values in part.arrays.items():
                    shape = (*values.shape[:-3], *batch.size, values.shape[-1])
                    total.setdefault(name, np.zeros(shape, np.float32))[(..., *where, slice(None))] += values * share
        means = {name: np.mean(of_tiles, axis=0) for name, of_tiles in facts.items()}
        return _Raw({name: values / weight for name, values in total.items()}, means)

    def _padded(self, batch: Batch) -> _Raw:
        spec = self.spec
        _, h, w, _ = batch.images.shape
        ph, pw = padded_size(h, w, multiple=spec.multiple, min_side_px=spec.min_side_px, square=spec.square)
        if (ph, pw) == (h, w):
            return self._checked(batch)
        size = (round(batch.size[0] * ph / h), round(batch.size[1] * pw / w))
        series = tuple(dataclasses.replace(s, values=pad(s.values, ph, pw)) for s in batch.series)
        grown = self._checked(dataclasses.replace(batch, images=pad(batch.images, ph, pw), series=series, size=size))
        return _Raw({k: a[..., : batch.size[0], : batch.size[1], :] for k, a in grown.arrays.items()}, grown.facts)

    def _checked(self, batch: Batch) -> _Raw:
        """Call the adapter and hold its answer against what was asked."""
        with quiet():
            prediction = self.adapter.upscale(batch)
        if not isinstance(prediction, Prediction):
            raise RfbenchError(f"upscale gave a {type(prediction).__name__}, expected a bench.models.Prediction")
        arrays = prediction.arrays()
        n, k = len(batch.ids), batch.draws
        maps = {MAP + name: values for name, values in prediction.maps.items()}
        for name, values in (arrays | maps).items():
            shape = (n, k, *batch.size) if name == "samples" else (n, *batch.size)
            if (values.shape if name in maps else values.shape[:-1]) != shape:
                expected = "x".join(map(str, shape)) + ("" if name in maps else "xC")
                raise RfbenchError(f"{name} has the shape {'x'.join(map(str, values.shape))}, expected {expected}")
            if values.dtype != np.float32:
                raise RfbenchError(f"{name} is {values.dtype}, expected float32")
            broken = int((~np.isfinite(values)).sum())
            if broken:
                raise RfbenchError(f"{name} holds {broken} values that are not finite")
        if "std" in arrays and arrays["std"].min() < 0:
            raise RfbenchError("std holds negative values")
        for name in (*prediction.maps, *(name for of_one in prediction.facts for name in of_one)):
            if not name.isidentifier():
                raise RfbenchError(f"found a map or fact called {name!r:.60}, expected letters, digits and _")
        return _Raw(arrays | {k: v[..., None] for k, v in maps.items()}, _checked_facts(prediction.facts, n))

    def _check_values(self, arrays: dict[str, Array], unit: str) -> None:
        low, high = PLAUSIBLE.get(unit, (-np.inf, np.inf))
        for name in {"samples", "mean"} & arrays.keys():
            found = float(arrays[name].min()), float(arrays[name].max())
            if found[0] < low or found[1] > high:
                raise RfbenchError(
                    f"{name} runs from {found[0]:.4g} to {found[1]:.4g}, expected {unit} of about [0, 1]"
                )


def whole(text: str, where: str) -> int:
    """A number of one or more; RfbenchError that begins with ``where``."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:12]) <= 1_000_000:
        raise RfbenchError(f"{where}: found '{one_line(text, 40)}', expected a whole number of 1 or more")
    return int(text)


def batch_size_of(text: str, where: str) -> int:
    """The number of images that a model gets at once, where ``auto`` is 0; RfbenchError that begins with ``where``."""
    return 0 if text == "auto" else whole(text, where)


def _reference(task: Task, unit: str) -> Image:
    """The HR image of a task on its grid, displayed or in its own unit; a border that is not scored is repeated."""
    reference = task.reference
    if reference.hr is None or reference.display_float is None:
        raise ItemError("there is no HR image with the bands R G B")
    shown = Image(reference.display_float, "display", RGB, reference.hr.valid)
    image = shown if unit == "display" else reference.hr
    border = (task.size[0] - image.size[0]) // 2
    sides = ((border, border), (border, border))
    return dataclasses.replace(
        image,
        values=np.pad(image.values, (*sides, (0, 0)), mode="edge"),
        valid=np.pad(image.valid, sides, mode="edge"),
    )


def unfit(spec: ModelSpec, bands: Sequence[str] | None, unit: str) -> str:
    """Why a model cannot take an LR of these bands (None: not known) and unit, with what to do; empty where it can."""
    if spec.unit == "reflectance" and unit != "reflectance":
        return f"the model needs reflectance; the LR image is in unit '{unit}'"
    lacking_bands = [b for b in spec.bands or () if bands is not None and b not in bands]
    if lacking_bands and bands is not None:
        remedy = spec.without_bands or "choose data that has it"
        return f"band {', '.join(lacking_bands)} is needed; the LR image has {' '.join(bands)}; {remedy}"
    return ""


def _checked_facts(facts: Sequence[Mapping[str, float]], count: int) -> dict[str, np.ndarray]:
    """The facts of a batch by name, float64 (N,)."""
    if not facts:
        return {}
    if len(facts) != count or any(of_one.keys() != facts[0].keys() for of_one in facts):
        raise RfbenchError(f"facts hold {len(facts)} images, expected {count} with the same names for each")
    found = {name: np.array([float(of_one[name]) for of_one in facts]) for name in facts[0]}
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise RfbenchError(f"the fact {name} is not finite; leave it out where there is none")
    return found


def _offset(task: Task) -> tuple[int, int]:
    return task.offset if isinstance(task, Window) else (0, 0)


def _tile(batch: Batch, row: Span, column: Span) -> Batch:
    where = (slice(None), slice(row.start, row.stop), slice(column.start, column.stop))
    return dataclasses.replace(
        batch,
        images=batch.images[where],
        series=tuple(dataclasses.replace(s, values=s.values[where]) for s in batch.series),
        size=(row.out_stop - row.out_start, column.out_stop - column.out_start),
        offset=(batch.offset[0] + row.start, batch.offset[1] + column.start),
    )


def _output_bands(arrays: dict[str, Array], bands: tuple[str, ...]) -> tuple[str, ...]:
    """The bands of an answer: the input's where their number agrees, else R G B NIR of more, or RGB."""
    channels = next(iter(arrays.values())).shape[-1]
    choices = [bands, *([(*RGB, "NIR")] if {*RGB, "NIR"} < set(bands) else []), RGB]
    for names in choices:
        if channels == len(names):
            return names
    expected = " or ".join(f"{len(names)} ({' '.join(names)})" for names in dict.fromkeys(choices))
    raise RfbenchError(f"the answer has {channels} channels, expected {expected}")


def _factor(factors: tuple[int, ...], lr: tuple[int, int], target: tuple[int, int]) -> int:
    """The native factor for a task: the largest that is not beyond the task's scale, else the smallest."""
    scale = min(target[0] / lr[0], target[1] / lr[1])
    return max((f for f in factors if f <= scale + 1e-9), default=min(factors))


def _resize_all(values: Array, size: tuple[int, int]) -> Array:
    if values.ndim == 3:
        return resize(values, size)
    return np.stack([resize(v, size) for v in values])


def _out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: numpy's, torch's on a GPU, torch's on a processor (RuntimeError)."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


def _free_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _item_error(label: str, error: BaseException) -> ItemError:
    if isinstance(error, RfbenchError):
        return ItemError(f"{label}: {one_line(error, 400)}")
    return ItemError(f"{label}: {described(error, 400)}", kept_traceback(error))


def _beyond(arrays: Mapping[str, Array]) -> str | None:
    """A note of display values that will be cut: a model that answers in another range must not look like a bad one."""
    values = next(arrays[k] for k in ("samples", "mean") if k in arrays)
    low, high = float(values.min()), float(values.max())
    if low >= -_NOTED_BEYOND and high <= 1.0 + _NOTED_BEYOND:
        return None
    count = int(((values < 0.0) | (values > 1.0)).sum())
    return (
        f"{100 * count / values.size:.2g} % of the values, from {low:.3g} to {high:.3g}, lie beyond [0, 1] and were cut"
    )


def _plain(value: Any) -> Any:
    """What JSON has no word for: numpy's numbers as numbers, paths and such as they are written."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def with_options(text: str, changes: Mapping[str, str]) -> str:
    """A model as ``--model`` takes it with those of ``changes`` that it has as options, in place of its own."""
    head, _, own = _parted(text)
    options = own | {key: value for key, value in changes.items() if key in options_of(text)}
    return f"{head}:{','.join(f'{key}={value}' for key, value in options.items())}" if options else head


def options_of(text: str) -> tuple[str, ...]:
    """The names of the options that a model takes. Raises RfbenchError for an unknown model."""
    spec, _, _ = _resolved(text)
    return tuple(dict.fromkeys([*spec.default_options, *OF_EVERY_MODEL]))


def name_of(text: str) -> str:
    """What a model is called in ``--model``: its registered name, or the class of a file."""
    return _parted(text)[1]


def _parted(text: str) -> tuple[str, str, dict[str, str]]:
    """What stands before the options, the name, and the options."""
    by_file = _BY_FILE.fullmatch(text)
    if by_file:
        _, options = split_spec(f"file:{by_file['options']}" if by_file["options"] else "file")
        return f"{by_file['file']}:{by_file['name']}", by_file["name"], options
    name, options = split_spec(text)
    return name, name, options


def _resolved(text: str) -> tuple[ModelSpec, type[Adapter], dict[str, str]]:
    """The spec, the adapter's class and the options that a user's words stand for."""
    by_file = _BY_FILE.fullmatch(text)
    _, name, options = _parted(text)
    if by_file:
        found = getattr(_module_of(Path(by_file["file"])), name, None)
        if found is None:
            raise RfbenchError(f"--model: {by_file['file']} defines no '{name}'; name a class or a ModelSpec of it")
    else:
        found = registry.load("models", name)
    if isinstance(found, type) and issubclass(found, Adapter):
        return _spec_of(found), found, options
    if not isinstance(found, ModelSpec):
        raise RfbenchError(
            f"the model '{name}' is a {type(found).__name__}, expected a ModelSpec, or a class derived from Adapter"
        )
    return found, _adapter_of(found), options


def _spec_of(adapter: type[Adapter]) -> ModelSpec:
    """The spec that a class states as its attribute ``spec``; without one, a model of display images named after it."""
    stated = adapter.spec
    where = f"{adapter.__module__}:{adapter.__qualname__}"
    if stated is None:
        return ModelSpec(name=adapter.__name__.lower(), adapter=where)
    return dataclasses.replace(stated, adapter=stated.adapter or where)


def _adapter_of(spec: ModelSpec) -> type[Adapter]:
    module, _, attribute = spec.adapter.partition(":")
    try:
        with quiet():
            found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise RfbenchError(
            f"model {spec.name}: its adapter {spec.adapter} cannot be loaded: {described(error)}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Adapter)):
        raise RfbenchError(f"model {spec.name}: {spec.adapter} is no Adapter; derive it from that class")
    return found


def _module_of(file: Path) -> ModuleType:
    """The module of a file of Python that belongs to no package, under a name of its own, run once a process."""
    path = file.resolve()
    if not path.is_file():
        raise RfbenchError(f"--model: {file} is no file; give path/file.py:Class")
    name = f"rfbench_model_{digest(str(path))[:12]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None  # it ends in .py
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            with contained(f"--model: {file}"):
                spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
