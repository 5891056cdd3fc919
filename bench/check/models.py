"""What every model promises: a sane spec, and answers that depend on nothing but the image, its id and the draw."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from bench.check import Broken, Check, Line, Report, Skipped, described, examine
from bench.check.pictures import picture
from bench.check.randomness import global_seed
from bench.core import registry
from bench.core.errors import RfbenchError, one_line, unknown
from bench.core.image import Image
from bench.core.options import split_spec
from bench.data.bands import canonical
from bench.data.dataset import Pair, Record, Side
from bench.data.readers import Series
from bench.models.call import Answer, Model
from bench.models.ready import install, lacking
from bench.models.spec import Batch, ModelSpec, Prediction
from bench.protocols.base import Task
from bench.protocols.paired import Paired

# Bit for bit is what a model should reach; a network may round otherwise in another batch or with other threads. A
# fortieth of a grey level changes no 8-bit image.
TOLERANCE = 1e-4
DRAWS = 2
WHOLE, TINY, ODD = ((30, 40), (150, 200)), (((1, 1), (5, 5)), ((6, 6), (30, 30))), ((41, 28), (206, 141))
SMALL = ((12, 16), (60, 80))
_HEAVY = ("torch", "tensorflow", "jax", "diffusers", "transformers", "rasterio", "matplotlib")
_CAPTIONS = ("", "a thaw slump above a river", "Ein Fluß, 河流 \N{MOUNTAIN} " + "and a lake " * 60)


def check_model(text: str, *, device: str = "cpu", tell: Callable[[Line], None] | None = None) -> Report:
    """Look at the model ``NAME[:key=value,...]``; without options, at what its spec's ``check_options`` say.

    Raises
    ------
    RfbenchError
        For a name or an option that is not known.
    """
    name, options = split_spec(text)
    if name not in registry.points("models"):
        raise unknown("model", name, registry.points("models"), hint="'rfbench ls models' lists them")
    try:
        spec = registry.load("models", name)
        known, instead = (
            spec.default_options,
            "" if ":" in text else ",".join(map("=".join, spec.check_options.items())),
        )
        text += f":{instead}" if instead else ""
    except (RfbenchError, AttributeError):
        known = options  # a broken one is a line of the report
    for key in options:
        if key not in known:
            raise unknown(f"option of model {name}", key, known)
    checks = _ModelChecks(name, text, device)
    try:
        return examine("model", text, checks.all(), tell)
    finally:
        if hasattr(checks, "model"):
            checks.model.adapter.close()


def check_task(name: str, lr_px: tuple[int, int], size: tuple[int, int], spec: ModelSpec | None = None) -> Task:
    """A picture of ``lr_px`` whose answer has ``size``: reflectance in R, G, B, NIR and whatever else a spec reads."""
    bands = tuple(dict.fromkeys(("R", "G", "B", "NIR", *(spec.bands or () if spec else ()))))
    seed = int.from_bytes(name.encode()[-4:], "little") % 1000
    lr, hr = (
        Image((picture(seed, *n, len(bands)) * 0.3).astype(np.float32), "reflectance", bands, np.ones(n, bool), gsd_m)
        for n, gsd_m in ((lr_px, 10.0), (size, 2.0))
    )
    series = None
    if spec is not None and spec.input_kind == "series":
        frames = np.stack([np.rint(lr.values * (9000 + 500 * t)) for t in range(3)]).astype(np.uint16)
        series = Series(frames, bands, ("2021-07-02", "2021-07-12", "2021-07-22"))
    record = Record(
        name, name, caption=_CAPTIONS[1], lr_date="2021-07-12", sides={"lr": Side(), "hr": Side(), "pan": Side()}
    )
    return Paired().prepare(Pair(record, lr, hr, series=series))


class _ModelChecks:
    """One model on its way through the checks, which leave behind what the next ones need."""

    spec: ModelSpec
    model: Model
    whole: Answer | None = None

    def __init__(self, name: str, text: str, device: str) -> None:
        self.name, self.text, self.device = name, text, device
        self.threads = 1
        self.raised: list[BaseException] = []

    def all(self) -> list[Check]:
        """The checks in their order."""
        return [
            Check("registered", self.registered, vital=True),
            Check("spec", self.spec_is_sane),
            Check("light", self.spec_is_light),
            Check("licence", self.licence),
            Check("constructed", self.constructed, vital=True),
            Check("identity", self.identity),
            Check("loaded", self.loaded, vital=True),
            Check("answer", self.answer),
            Check("range", self.range),
            Check("tiny images", self.tiny),
            Check("odd sizes", self.odd),
            Check("draws", self.draws),
            Check("batch", self.batch),
            Check("global seeds", self.global_seeds),
            Check("threads", self.thread_count),
            Check("input kept", self.input_kept),
            Check("captions", self.captions),
            Check("tiles", self.tiles),
        ]

    # --- what it says it is -----------------------------------------------------------------------------------

    def registered(self) -> str:
        point = registry.points("models")[self.name]
        try:
            found = registry.load("models", self.name)
        except RfbenchError as error:
            raise Broken(
                described(error), f"the entry point {point.value} to load", "repair its package, or uninstall it"
            ) from None
        if not isinstance(found, ModelSpec):
            raise Broken(
                f"{point.value} is a {type(found).__name__}", "a bench.models.ModelSpec", "register the spec itself"
            )
        self.spec = found
        return f"{point.value}" + (f" of {point.dist.name} {point.dist.version}" if point.dist else "")

    def spec_is_sane(self) -> str:
        wrong = list(_spec_problems(self.spec, self.name))
        if wrong:
            raise Broken("; ".join(wrong), "a spec as bench.models.ModelSpec describes it", "correct the spec")
        bands = " ".join(self.spec.bands) if self.spec.bands else "all bands"
        factors = self.spec.scale_factors
        scale = "any scale" if factors is None else " ".join(f"x{f}" for f in factors)
        return (
            f"{bands} in {self.spec.unit} units, {scale}, {'stochastic' if self.spec.stochastic else 'deterministic'}"
        )

    def spec_is_light(self) -> str:
        """In a process of its own, since by now everything may be imported here."""
        module = registry.points("models")[self.name].module
        code = (
            "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[1]); importlib.import_module(sys.argv[2]); "
            "print('\\n' + json.dumps([m for m in sys.argv[3:] if m in sys.modules]))"
        )
        words = [sys.executable, "-c", code, json.dumps(sys.path), module, *_HEAVY]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
        except subprocess.SubprocessError as error:
            raise Broken(one_line(error, 200), f"{module} to be imported by itself", "repair the module") from None
        heavy = json.loads(done.stdout.splitlines()[-1])
        if heavy:
            raise Broken(
                f"importing {module} imports {' and '.join(heavy)}",
                "a module of specs that imports nothing heavy",
                "import these inside load() and upscale(), or name an adapter in another module",
            )
        return f"importing {module} imports nothing heavy"

    def licence(self) -> str:
        if not self.spec.licence:
            raise Skipped("the spec states none; state it (licence=...), since reports name what restricts use")
        return self.spec.licence

    def constructed(self) -> str:
        try:
            self.model = Model(self.text, device=self.device, dtype=self._dtype())
        except RfbenchError as error:
            if error.__cause__ is not None:  # the adapter itself is broken; else it says what it needs
                raise
            raise Skipped(str(error), missing=True) from None
        adapter = self.model.adapter
        plain = adapter.upscale

        def spied(batch: Batch) -> Prediction:
            try:
                return plain(batch)
            except Exception as error:  # kept for the report, and raised again
                self.raised.append(error)
                raise

        adapter.upscale = spied  # type: ignore[method-assign]
        known = set(_spec_problems(self.spec, self.name))
        wrong = [w for w in _spec_problems(self.model.spec, self.name) if w not in known]
        if wrong:
            raise Broken(
                f"specialise() gives {'; '.join(wrong)}", "a spec as bench.models.ModelSpec describes it", "correct it"
            )
        absent = lacking(self.model.spec.requires)
        if absent:
            raise Skipped(f"{absent[0]}; {install(self.model.spec)} installs it", missing=True)
        return f"{self.spec.adapter}, called '{self.model.label}' in tables"

    def _dtype(self) -> str:
        return "float32" if "float32" in self.spec.dtypes else self.spec.dtypes[0]

    def identity(self) -> str:
        again = Model(self.text, device=self.device, dtype=self._dtype())
        found, other = self.model.identity(), again.identity()
        do = "give hashes and plain values in Adapter.identity()"
        try:
            text = json.dumps(found, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise Broken(one_line(error, 120), "an identity that JSON can hold", do) from None
        if text != json.dumps(other, sort_keys=True):
            raise Broken("two of the same model have two identities", "one that depends on the model alone", do)
        if self.spec.weights and not self.model.adapter.identity():
            raise Broken("the spec lists weights, the adapter's identity() is empty", "their hashes", do)
        own = {k: v for k, v in found.items() if k not in ("spec", "options", "label")}
        return "the same each time" + (f"; beside spec and options: {', '.join(own)}" if own else "")

    def loaded(self) -> str:
        import torch

        self.threads = torch.get_num_threads()
        try:
            self.model.load()
            self.model.adapter.prepare(_CAPTIONS if self.model.spec.supports_prompt else ())
        except RfbenchError as error:
            if error.__cause__ is not None:
                raise
            raise Skipped(str(error), missing=True) from None
        return f"on {self.device} in {self._dtype()}"

    # --- what it answers --------------------------------------------------------------------------------------

    def _task(self, name: str, sizes: tuple[tuple[int, int], tuple[int, int]] = SMALL) -> Task:
        return check_task(name, *sizes, self.model.spec)

    def _predict(self, *tasks: Task, seed: int = 0, draws: int = 1) -> list[Answer]:
        """Answers to all tasks, with the errors that the sealed call turns into rows raised again.

        Where draws are not the subject one of them tells as much as several, and a sampler takes half the time.
        """
        self.raised.clear()
        found = self.model.predict(tasks, run_seed=seed, draws=draws)
        for task, answer in zip(tasks, found, strict=True):
            if not isinstance(answer, Answer):
                what = described(self.raised[-1]) if self.raised else str(answer)
                h, w = task.input.size
                raise Broken(
                    f"an LR image of {h}x{w} px to {task.size[0]}x{task.size[1]} px: {what}",
                    "float32 arrays of that size, finite and in its unit",
                    "repair upscale(), or state what it needs in the spec (multiple, min_side_px, scale_factors, ...)",
                )
        return [a for a in found if isinstance(a, Answer)]

    def _sizes(self, *sizes: tuple[tuple[int, int], tuple[int, int]], draws: int = 1) -> str:
        texts = []
        for lr_px, size in sizes:
            (answer,) = self._predict(self._task(f"check_{lr_px[0]}x{lr_px[1]}", (lr_px, size)), draws=draws)
            for name, values in answer.arrays.items():
                # The sealed call has looked at shape, type and finiteness; this looks at the sealed call.
                if values.shape[-3:-1] != size or values.dtype != np.float32 or not np.isfinite(values).all():
                    raise Broken(
                        f"{name} is {values.dtype} {values.shape}", f"finite float32 of {size} px", "report this bug"
                    )
            self.whole = self.whole or answer
            texts.append(f"{lr_px[0]}x{lr_px[1]} to {size[0]}x{size[1]} px")
        return ", ".join(texts)

    def answer(self) -> str:
        text = self._sizes(WHOLE, draws=DRAWS)
        assert self.whole is not None
        answer = self.whole
        expected = "samples" if self.model.spec.stochastic else "mean"
        if expected not in answer.arrays:
            raise Broken(
                f"the prediction holds {', '.join(answer.arrays)}",
                f"{expected}, as the spec says stochastic={self.model.spec.stochastic}",
                "give Prediction(samples=...) for a stochastic model and mean=... for a deterministic one",
            )
        arrays = ", ".join(f"{n} {'x'.join(map(str, a.shape))}" for n, a in answer.arrays.items())
        extras = [*answer.maps, *answer.facts]
        return f"{text}: {arrays} float32 in {answer.unit}" + (f", with {', '.join(extras)}" if extras else "")

    def range(self) -> str:
        answer = self.whole
        if answer is None:
            raise Skipped("there was no answer to look at")
        values = answer.arrays.get("samples", answer.arrays.get("mean"))
        assert values is not None
        low, high = float(values.min()), float(values.max())
        outside = float(np.mean((values < -0.1) | (values > 1.1)))
        if answer.unit != "relative" and outside > 0.1:
            raise Broken(
                f"{answer.unit} from {low:.3g} to {high:.3g}, {outside:.0%} of it outside [0, 1]",
                "most of a picture of mid-grey ground within [0, 1]",
                "bring the network's range ([-1, 1]? 0 to 255?) to [0, 1] in upscale(), or state its output_unit",
            )
        return f"{answer.unit} from {low:.3g} to {high:.3g}"

    def tiny(self) -> str:
        return self._sizes(*TINY)

    def odd(self) -> str:
        return self._sizes(ODD)

    def draws(self) -> str:
        one, other = self._task("check_a"), dataclasses.replace(self._task("check_a"), id="check_b")
        (first,), (again,), (reseeded,) = (self._predict(one, seed=s, draws=DRAWS) for s in (0, 0, 1))
        do = "take all randomness from batch.noise() or batch.seeds"
        _same(first, again, "the same seed, id and draw, asked twice", do)
        if not self.model.spec.stochastic:
            _same(first, reseeded, "a deterministic model under another seed", f"set stochastic=True, or {do}")
            return "none: deterministic, whatever the seed"
        samples = first.arrays.get("samples")
        if samples is None:
            raise Broken("no samples", f"{DRAWS} draws that differ", "give Prediction(samples=...)")
        (renamed,) = self._predict(other, draws=DRAWS)
        alike = [
            what
            for what, a, b in (
                ("two draws", samples[0], samples[1]),
                ("two seeds", samples, reseeded.arrays["samples"]),
                ("two ids", samples, renamed.arrays["samples"]),
            )
            if np.array_equal(a, b)
        ]
        if alike:
            raise Broken(f"{' and '.join(alike)} give one image", "different ones", f"set stochastic=False, or {do}")
        return (
            f"repeatable, and different for each draw, seed and id (deviation {float(samples.std(axis=0).mean()):.2g})"
        )

    def batch(self) -> str:
        tasks = [self._task(f"check_{i}") for i in range(3)]
        together = self._predict(*tasks, draws=DRAWS)
        backwards = self._predict(*tasks[::-1], draws=DRAWS)[::-1]
        do = "let no image see another: no batch statistics (model.eval()), no state between calls, noise by image"
        largest = 0.0
        for task, one, other in zip(tasks, together, backwards, strict=True):
            (alone,) = self._predict(task, draws=DRAWS)
            largest = max(
                largest,
                _same(alone, one, "an image alone and in a batch of three", do),
                _same(one, other, "a batch and the same one in another order", do),
            )
        return f"three images alone, together and in another order: {_agreement(largest)}"

    def global_seeds(self) -> str:
        task, found = self._task("check_a"), []
        for seed in (1, 2):
            with global_seed(seed):
                found += self._predict(task)
        do = "take all randomness from batch.noise() or batch.seeds; a layer that draws needs a generator of its own"
        return (
            f"random, numpy and torch seeded otherwise: {_agreement(_same(found[0], found[1], 'two global seeds', do))}"
        )

    def thread_count(self) -> str:
        import torch

        if torch.get_num_threads() != self.threads:
            raise Broken(
                f"the model set torch's threads from {self.threads} to {torch.get_num_threads()}",
                "the number that the user chose",
                "leave torch.set_num_threads() alone",
            )
        found = []
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                found += self._predict(self._task("check_a"))
        finally:
            torch.set_num_threads(self.threads)
        do = "sum in an order that does not depend on threads"
        return f"one and two: {_agreement(_same(found[0], found[1], 'one thread and two', do))}"

    def input_kept(self) -> str:
        tasks = [self._task(f"check_{i}") for i in range(2)]
        before = [t.input.values.copy() for t in tasks]
        with _images_watched(self.model) as changed:
            self._predict(*tasks)
        if changed or any(not np.array_equal(t.input.values, b) for t, b in zip(tasks, before, strict=True)):
            raise Broken("upscale() wrote into batch.images", "an input that is left as it is", "work on a copy")
        return "upscale() left its images as they were"

    def captions(self) -> str:
        if not self.model.spec.supports_prompt:
            raise Skipped("the spec says supports_prompt=False; the model never sees a caption")
        for caption in _CAPTIONS:
            self._predict(dataclasses.replace(self._task("check_a"), caption=caption))
        return f"none, a short one, and one of {len(_CAPTIONS[-1])} characters with Unicode"

    def tiles(self) -> str:
        """With tiles that are surely smaller than the image: memory may run out for any model."""
        spec = self.model.spec
        needed = max(16, spec.min_side_px, spec.multiple)
        own = spec.max_side_px
        tile = max(needed, own) if own is not None else needed
        lr_px = (tile + 9, tile + 5)
        task = self._task("check_tiles", (lr_px, (lr_px[0] * 4, lr_px[1] * 4)))
        self.model.spec = dataclasses.replace(spec, max_side_px=tile, overlap_px=min(spec.overlap_px, tile // 2))
        try:
            (answer,) = self._predict(task)
        except Broken as why:
            if own is None:
                raise Skipped(f"not tiled unless memory runs out (no max_side_px); then {why.found}") from None
            raise
        finally:
            self.model.spec = spec
        if any(a.shape[-3:-1] != task.size for a in answer.arrays.values()):
            raise Broken("tiles that do not cover the image", f"{task.size} px", "report this bug")
        return f"{lr_px[0]}x{lr_px[1]} px in tiles of {tile}: {task.size[0]}x{task.size[1]} px"


@contextmanager
def _images_watched(model: Model) -> Iterator[list[bool]]:
    """Hold the images of each batch against a copy from before the adapter saw them."""
    adapter, changed = model.adapter, list[bool]()
    plain = adapter.upscale

    def watched(batch: Batch) -> Prediction:
        before = batch.images.copy()
        found = plain(batch)
        if not np.array_equal(before, batch.images):
            changed.append(True)
        return found

    adapter.upscale = watched  # type: ignore[method-assign]
    try:
        yield changed
    finally:
        adapter.upscale = plain  # type: ignore[method-assign]


def _same(first: Answer, second: Answer, what: str, do: str) -> float:
    """The largest difference of two answers; Broken where it is more than rounding."""
    if first.arrays.keys() != second.arrays.keys():
        raise Broken(f"{what} give arrays of other names", "the same answer", do)
    largest = max(float(np.abs(a - second.arrays[name]).max()) for name, a in first.arrays.items())
    if largest > TOLERANCE:
        raise Broken(f"{what} differ by up to {largest:.2g}", f"the same image (to {TOLERANCE:g} at most)", do)
    return largest


def _agreement(largest: float) -> str:
    return "bit for bit the same" if largest == 0 else f"the same to {largest:.1g}"


def _spec_problems(spec: ModelSpec, name: str) -> Iterator[str]:
    """What is wrong with a spec, one short text each. A dataclass does not look at what it is given."""
    texts = (
        "name", "adapter", "summary", "upstream", "commit", "licence", "allows", "status", "reimplementation", "extra",
        "unlike_paper",
    )  # fmt: skip
    wrong_types = [f for f in texts if not isinstance(getattr(spec, f), str)]
    if wrong_types:
        yield f"{', '.join(wrong_types)} is no text"
        return
    if spec.name != name:
        yield f"it calls itself '{one_line(spec.name, 60)}' and is registered as '{name}'"
    if not re.fullmatch(r"[\w.]+:\w+", spec.adapter):
        yield f"adapter='{one_line(spec.adapter, 60)}' is not package.module:Class"
    if not spec.summary or spec.summary != one_line(spec.summary):
        yield "summary is not one line that says what it is"
    yield from _choices(spec)
    if spec.bands is not None:
        odd = not isinstance(spec.bands, tuple) or not spec.bands or len(set(spec.bands)) < len(spec.bands)
        if odd or any(not isinstance(b, str) or canonical(b) != b for b in spec.bands):
            yield f"bands={spec.bands!r:.60} are not different canonical names, such as ('R', 'G', 'B', 'NIR')"
    if spec.scale_factors is not None:
        fine = isinstance(spec.scale_factors, tuple) and spec.scale_factors
        if not fine or any(not _whole(f, 1) for f in spec.scale_factors):
            yield f"scale_factors={spec.scale_factors!r:.60} are not whole numbers of 1 or more, such as (4,)"
    least = {"multiple": 1, "min_side_px": 1, "overlap_px": 0, "revision": 1}
    for field, low in least.items():
        if not _whole(getattr(spec, field), low):
            yield f"{field}={getattr(spec, field)!r:.40} is not a whole number of {low} or more"
            return
    if spec.max_side_px is not None:
        if not _whole(spec.max_side_px, max(spec.multiple, spec.min_side_px)):
            least_px = max(spec.multiple, spec.min_side_px)
            yield f"max_side_px={spec.max_side_px!r:.40} is below {least_px}, the larger of multiple and min_side_px"
        elif spec.overlap_px >= spec.max_side_px:
            yield f"overlap_px={spec.overlap_px} is not below max_side_px={spec.max_side_px}"
    options = spec.default_options
    if not isinstance(options, dict) or any(not isinstance(t, str) for kv in options.items() for t in kv):
        yield "default_options are not texts by name"
        return
    for field in ("path_options", "check_options", "option_licences"):
        if unknown_options := sorted(set(getattr(spec, field)) - set(options)):
            yield f"{field} names {unknown_options}, which default_options has not"


def _choices(spec: ModelSpec) -> Iterator[str]:
    units = ("display", "reflectance", "native")
    allowed = {"unit": units, "output_unit": units, "input_kind": ("image", "series", "reference")}
    for field, choices in allowed.items():
        if getattr(spec, field) not in choices:
            yield f"{field}={getattr(spec, field)!r:.40} is none of {', '.join(choices)}"
    if spec.unit == "display" and spec.bands != ("R", "G", "B"):
        yield f"unit='display' reads the bands R G B, not {spec.bands!r:.60}"
    kinds = ("float32", "float16", "bfloat16")
    if not isinstance(spec.dtypes, tuple) or not spec.dtypes or set(spec.dtypes) - set(kinds):
        yield f"dtypes={spec.dtypes!r:.60} are not some of {', '.join(kinds)}"
    for field in ("square", "stochastic", "supports_prompt"):
        if not isinstance(getattr(spec, field), bool):
            yield f"{field}={getattr(spec, field)!r:.40} is neither True nor False"


def _whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low
