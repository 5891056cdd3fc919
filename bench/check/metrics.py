"""What every metric promises: a signature, a direction, and for any image a number or a reason."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

import numpy as np

from bench import weights
from bench.check import Broken, Check, Line, Report, Skipped, described, examine, few
from bench.check.extent import extent, has_extent
from bench.check.pairs import (
    NOISE,
    Pair,
    arrays_of,
    changed,
    equal_spread,
    exchanged,
    fresh,
    laid_otherwise,
    measure,
    of_bands,
    scene,
)
from bench.check.randomness import global_seed
from bench.core import registry
from bench.core.errors import RfbenchError, Unavailable, one_line, unknown
from bench.metrics.base import GROUPS, Library, Metric, Need, Score, Setting
from bench.metrics.identity import rebuild
from bench.metrics.registered import SUFFIX
from bench.metrics.scorer import metric_class
from bench.metrics.task import is_task

_SIZES = ((1, 1), (6, 6), (30, 40), (161, 243))
# Sums in another order differ by rounding; float32 networks by a little more.
_RTOL = 1e-5
_DESCRIBES = "it says what a prediction is like, not how good it is"
_MOST = 40  # images of a set, for metrics that fit a distribution


def check_metric(name: str, setting: Setting = Setting(), tell: Callable[[Line], None] | None = None) -> Report:
    """Look at the metric ``name`` (``pyiqa:NAME`` and ``NAME_reg`` included). RfbenchError for a name that is not
    known."""
    known = registry.points("metrics")
    if name not in known:
        if not name.startswith("pyiqa:") and not is_task(name) and name.removesuffix(SUFFIX) not in known:
            raise unknown("metric", name, known, hint="'rfbench ls metrics' lists them")
        with contextlib.suppress(Unavailable):  # a line of the report
            metric_class(name)
    return examine("metric", name, _MetricChecks(name, setting).all(), tell)


class _MetricChecks:
    """One metric on its way through the checks."""

    kind: type[Metric]

    def __init__(self, name: str, setting: Setting) -> None:
        self.name, self.setting = name, setting
        self._made: dict[float, list[Pair]] = {}
        self._count = 0
        self._seen: list[float] = []  # every number that was computed on the way
        self.value: float | None = None
        self._first: Metric | None = None  # which gave the value
        self._clear: float | None = None  # the number with little noise

    def all(self) -> list[Check]:
        """The checks in their order."""
        return [
            Check("registered", self.registered, vital=True),
            Check("attributes", self.attributes, vital=True),
            Check("identity", self.identity),
            Check("ready", self.ready, vital=True),
            Check("number", self.number, vital=True),
            Check("input kept", self.input_kept),
            Check("repeatable", self.repeatable),
            Check("rebuilt", self.rebuilt),
            Check("order", self.order),
            Check("threads", self.threads),
            *([Check("library", self.library)] if self._library is not None else []),
            *([Check("device", self.device)] if self.setting.device != "cpu" else []),
            Check("global seeds", self.global_seeds),
            Check("direction", self.direction),
            Check("identical", self.identical),
            Check("symmetry", self.symmetry),
            Check("sizes", self.sizes),
            Check("flat images", self.flat),
            Check("no data", self.no_data),
            Check("what is absent", self.absent),
            Check("types", self.types),
            Check("bands", self.bands),
            Check("wrong input", self.wrong_input),
            Check("not finite", self.not_finite),
            Check("bounds", self.bounds),
            *([Check("floor, ceiling", self.extent)] if self._has_extent else []),
        ]

    def _new(self, **changes: object) -> Metric:
        return self.kind(dataclasses.replace(self.setting, **changes))  # type: ignore[arg-type]

    def _measure(self, metric: Metric, *pairs: Pair) -> Score:
        score = measure(metric, *pairs)
        if score.value is not None:
            self._seen.append(score.value)
        return score

    def _side(self) -> int:
        """A side that is surely large enough."""
        return max(64, self.kind.min_side_px)

    def _pairs(self, noise: float = NOISE) -> list[Pair]:
        """As many pairs as the metric needs: one, or a set that it is content with."""
        if noise not in self._made:
            side = self._side() if self.kind.level == "image" else max(self._side(), 200)
            count = self._count or (1 if self.kind.level == "image" else max(2, self.kind.min_images))
            pairs = [scene(side, side + 8, s, noise) for s in range(count)]
            while not self._count and count < _MOST and self._measure(self._new(), *pairs).reason and len(pairs) > 1:
                count = min(_MOST, 3 * count // 2)
                pairs += [scene(side, side + 8, s, noise) for s in range(len(pairs), count)]
            self._made[noise], self._count = pairs, len(pairs)
        return [fresh(pair) for pair in self._made[noise]]

    # --- what it says it is -----------------------------------------------------------------------------------

    def registered(self) -> str:
        if self.name not in registry.points("metrics"):
            try:
                self.kind = metric_class(self.name)
            except Unavailable as error:
                raise Skipped(f"{error}; pip install 'rfbench[iqa]'", missing=True) from None
            return f"made from {self.name.removesuffix(SUFFIX)}"
        point = registry.points("metrics")[self.name]
        try:
            self.kind = metric_class(self.name)
        except RfbenchError as error:
            raise Broken(
                described(error),
                f"{point.value} to be a subclass of bench.metrics.base.Metric named '{self.name}'",
                "repair its package, or uninstall it",
            ) from None
        return f"{point.value}" + (f" of {point.dist.name} {point.dist.version}" if point.dist else "")

    def attributes(self) -> str:
        wrong = list(_attribute_problems(self.kind))
        if wrong:
            raise Broken(
                "; ".join(wrong), "class attributes as bench.metrics.base.Metric describes them", "correct the class"
            )
        kind = self.kind
        better = "higher" if kind.direction == "up" else "lower"
        needs = " and ".join(kind.needs) or "no reference"
        return f"{kind.title}, {kind.group}, {better} is better, of an {kind.level}; needs {needs}".replace(
            "an set", "a set"
        )

    def identity(self) -> str:
        setting = Setting()
        one, other = self.kind(setting), self.kind(setting)  # both alive, so that they lie in two places
        found, again = one.identity(), other.identity()
        parts = found.split("|")
        expected = f"{self.name}|...|r{self.kind.revision}, one line without blanks that holds all its parameters"
        do = "leave identity() as it is and state `parameters` and `revision`"
        if found != again:
            raise Broken(f"two of one metric: {found} and {again}", "one identity", do)
        if parts[0] != self.name or parts[-1] != f"r{self.kind.revision}" or not all(parts) or re.search(r"\s", found):
            raise Broken(f"'{one_line(found, 120)}'", expected, do)
        if found != one_line(found):
            raise Broken("an identity that is not printable", expected, do)
        cut = self.kind(Setting(border_px=4)).identity()
        unrounded = self.kind(Setting(quantise=None)).identity()
        if cut == found or (unrounded != found) != self.kind.display:
            raise Broken(
                f"{found}, with a border {cut}, unrounded {unrounded}",
                "the border in it, and the rounding where the metric looks at display images (display=True)",
                do,
            )
        for name in registry.names("metrics"):
            try:
                theirs = metric_class(name)(setting).identity() if name != self.name else ""
            except Exception:  # a broken neighbour has no identity to share
                continue
            if theirs == found:
                raise Broken(f"{name} has the same identity", "one of its own", do)
        return found

    def ready(self) -> str:
        try:
            self._new()
        except RfbenchError as error:
            raise Skipped(str(error), missing=True) from None
        metric = self._new()
        why = metric.missing()
        if why is None:
            try:
                metric.setup()
            except Unavailable as error:
                why = error.reason
        if why is not None:
            raise Skipped(str(why), missing=True)
        return f"package {self.kind.package}" + (
            f", weights {', '.join(self.kind.weights_files)}" * bool(self.kind.weights_files)
        )

    # --- what it computes -------------------------------------------------------------------------------------

    def number(self) -> str:
        pairs, self._first = self._pairs(), self._new()
        score = self._measure(self._first, *pairs)
        if score.value is None:
            do = "let value() (features() and reduce() for a set) return it; state min_side_px, min_images and needs"
            size = pairs[0][0].size
            raise Broken(f"{len(pairs)} images of {size[0]}x{size[1]} px: {score.reason}", "a finite number", do)
        self.value = score.value
        unit = f" {self.kind.unit}" if self.kind.unit else ""
        return f"{score.value:.6g}{unit} of {len(pairs)} noisy image{'s' * (len(pairs) > 1)}"

    def repeatable(self) -> str:
        """The metric that gave the number gives it again; that a new one does is seen below, again and again."""
        assert self._first is not None
        found = [self.value, self._measure(self._first, *self._pairs()).value]
        if len(set(found)) > 1:
            raise Broken(
                f"the same images give {_values(found)}", "one number", "keep no state and draw no random numbers"
            )
        return "the same number again"

    def rebuilt(self) -> str:
        """What a table prints is enough to compute the number again."""
        identity = self._new().identity()
        do = "leave identity() as it is, and let nothing but `parameters` decide the number"
        try:
            again = rebuild(identity, device=self.setting.device, weights_dir=self.setting.weights_dir)
        except RfbenchError as error:
            raise Broken(str(error), "an identity that gives the metric back", do) from None
        found = self._measure(again, *self._pairs()).value
        if type(again) is not self.kind or found != self.value:
            raise Broken(
                f"{_values([self.value, found])} from the metric and from the identity {identity}", "one number", do
            )
        return "its identity gives the metric and the number back"

    def order(self) -> str:
        do = "let no image see another: keep nothing in self between images, reduce in an order that does not matter"
        if self.kind.level == "image":
            several = [scene(self._side(), self._side() + 8 * i, i) for i in range(2)]
            alone = [self._measure(self._new(), fresh(p)).value for p in several]
            one = self._new()
            forwards = [self._measure(one, fresh(p)).value for p in several]
            backwards = [self._measure(one, fresh(p)).value for p in several[::-1]][::-1]
        else:
            alone = forwards = [self.value]
            backwards = [self._measure(self._new(), *self._pairs()[::-1]).value]
        for a, b, c in zip(alone, forwards, backwards, strict=True):
            if not (_close(a, b) and _close(a, c)):
                raise Broken(f"{_values([a, b, c])} alone, in a row and in another order", "one number", do)
        return "images alone, in a row and in another order have the same numbers"

    def threads(self) -> str:
        import torch

        before = torch.get_num_threads()
        other = 1 if before > 1 else 2
        torch.set_num_threads(other)
        try:
            found = self._measure(self._new(), *self._pairs()).value
        finally:
            torch.set_num_threads(before)
        if not _close(self.value, found):
            raise Broken(
                f"{_values([self.value, found])} with {before} and {other} threads",
                "one number to a rounding",
                "sum in an order that does not depend on threads, or in double precision",
            )
        return f"the same number with {before} and {other} threads"

    @property
    def _library(self) -> Library | None:
        """The library that defines the metric, where our own kernels compute it."""
        try:
            return None if self.setting.exact else metric_class(self.name).library
        except RfbenchError:
            return None  # told by the first check

    def library(self) -> str:
        """On this machine and its versions, the number of the library that defines the metric."""
        library = self._library
        assert library is not None
        metric = self._new(exact=True)
        why = metric.missing()
        if why is not None:
            raise Skipped(f"{library.software.distribution} to compare with: {why}")
        found = self._measure(metric, *self._pairs()).value
        if self.value is None or found is None or abs(self.value - found) > library.tolerance:
            raise Broken(
                f"{_values([self.value, found])} by our own kernel and by {library.software.distribution}",
                f"numbers within {library.tolerance:g}",
                "report it, with the versions that 'rfbench doctor' prints; --exact-libraries computes by the library",
            )
        return f"{abs(self.value - found):.1e} from {library.software.distribution}, allowed {library.tolerance:g}"

    @property
    def _has_extent(self) -> bool:
        try:
            return has_extent(metric_class(self.name))
        except RfbenchError:
            return False  # told by the first check

    def extent(self) -> str:
        """A number by a network of photographs means what it means beside these."""
        found = [f"{'a reason' if v is None else f'{v:.4g}'} of {what}" for what, v in extent(self._new)]
        return ", ".join(found)

    def device(self) -> str:
        """Kernels of a GPU sum in another order; single precision through tens of layers leaves four digits."""
        found = self._measure(self._new(device="cpu"), *self._pairs()).value
        if self.value is None or found is None or not math.isclose(self.value, found, rel_tol=1e-3, abs_tol=1e-4):
            raise Broken(
                f"{_values([self.value, found])} on {self.setting.device} and on the processor",
                "numbers within 0.1 %",
                "switch TF32 and autotuning off (bench.metrics.networks.inference), or compute in double precision",
            )
        return f"{_values([self.value, found])} on {self.setting.device} and on the processor"

    def global_seeds(self) -> str:
        with global_seed(1):
            found = self._measure(self._new(), *self._pairs()).value
        if found != self.value:
            raise Broken(
                f"{_values([self.value, found])} with the global generators in two states",
                "one number",
                "use a generator of your own with a fixed seed",
            )
        return "random, numpy and torch seeded otherwise: the same number"

    def input_kept(self) -> str:
        side = self._made[NOISE][0][0].size[0]
        pairs = [scene(side, side + 8, seed) for seed in range(self._count)]  # anew: the others were measured before
        arrays = [a for pair in pairs for a in arrays_of(pair)]
        before = [a.copy() for a in arrays]
        self._measure(self._new(), *pairs)
        if not all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True)):
            raise Broken("the metric wrote into its images", "images that are left as they are", "work on a copy")
        return "images are left as they were"

    def direction(self) -> str:
        if self.kind.level == "set" and "distribution" in self.kind.needs:
            raise Skipped("calibration of a set: as good with more noise, if as much was predicted")
        if self.kind.describes:
            raise Skipped(_DESCRIBES)
        worse, better = (self._measure(self._new(), *self._pairs(noise)).value for noise in (0.15, 0.02))
        self._clear = better
        if "reference" not in self.kind.needs:
            raise Skipped(
                f"needs no reference, so noise proves nothing ({_values([better, worse])} with little and much)"
            )
        if worse is None or better is None or not self._is_better(better, worse):
            higher = "higher" if self.kind.direction == "up" else "lower"
            raise Broken(
                f"{_values([better, worse])} with little and with much noise",
                f"the {higher} number with little, as direction='{self.kind.direction}' says",
                "correct direction, or the order in which value() compares",
            )
        return f"{_values([better, worse])} with little and with much noise"

    def _is_better(self, a: float, b: float) -> bool:
        return a > b if self.kind.direction == "up" else a < b

    def identical(self) -> str:
        if "reference" not in self.kind.needs:
            raise Skipped("needs no reference")
        if self.kind.level == "set" and "distribution" in self.kind.needs:
            raise Skipped("calibration of a set: an error of zero everywhere is badly calibrated")
        if self.kind.describes:
            raise Skipped(_DESCRIBES)
        values = {0.0: self._measure(self._new(), *map(equal_spread, self._pairs(0.0))).value, 0.02: self._clear}
        if "distribution" in self.kind.needs:
            values[0.02] = self._measure(self._new(), *map(equal_spread, self._pairs(0.02))).value
        best = values[0.0]
        if best is None or any(v is None or self._is_better(v, best) for v in values.values()):
            raise Broken(
                f"{_values([*values.values()])} for identical and for noisy images",
                "the best number for identical ones",
                "correct direction or value(); an infinite one needs a stated cap, since JSON has no infinity",
            )
        perfect = self.kind.perfect
        if perfect is not None and not math.isclose(best, perfect, rel_tol=1e-5, abs_tol=1e-5):
            raise Broken(f"{best:.6g} for identical images", f"{perfect:g}, as perfect={perfect:g} says", "correct it")
        return f"{best:.6g} for identical images, no better with noise"

    def symmetry(self) -> str:
        if not self.kind.symmetric:
            raise Skipped("it says that it is not symmetric" if self.kind.symmetric is False else "it makes no claim")
        back = self._measure(self._new(), *map(exchanged, self._pairs())).value
        if not _close(self.value, back, 1e-4):
            raise Broken(
                f"{_values([self.value, back])} when prediction and reference are exchanged",
                "one number, as symmetric=True says",
                "correct value(), or leave symmetric out",
            )
        return "the same number when prediction and reference are exchanged"

    def bounds(self) -> str:
        low, high = self.kind.bounds
        outside = [v for v in self._seen if not low - 1e-6 <= v <= high + 1e-6]
        if outside:
            raise Broken(f"{outside[0]:.6g}", f"{low:g} to {high:g}, as bounds says", "correct bounds or value()")
        if math.isinf(low) and math.isinf(high):
            raise Skipped(
                f"it states none ({len(self._seen)} numbers from {min(self._seen):.4g} to {max(self._seen):.4g})"
            )
        return (
            f"{len(self._seen)} numbers from {min(self._seen):.4g} to {max(self._seen):.4g} within {low:g} to {high:g}"
        )

    def sizes(self) -> str:
        texts = []
        for height, width in _SIZES:
            pairs = [scene(height, width, seed) for seed in range(self._least())]
            score = self._held(f"images of {height}x{width} px", *pairs)
            texts.append(f"{height}x{width} px " + ("a number" if score.reason is None else "a reason"))
        return ", ".join(texts)

    def flat(self) -> str:
        side = max(128, self.kind.min_side_px)
        flat = np.full((side, side, 3), np.float32(102 / 255))
        pairs = [scene(side, side, seed) for seed in range(self._least())]
        both = [(dataclasses.replace(e, display=flat), dataclasses.replace(r, display=flat)) for e, r in pairs]
        score = self._held("flat images", *both)
        return f"{score.value:.6g}" if score.value is not None else f"a reason: {score.reason}"

    def no_data(self) -> str:
        def holes(pair: Pair, rows: slice, fill: float | None) -> Pair:
            estimate, reference = pair
            valid = np.ones_like(reference.valid)
            valid[rows] = False

            def filled(array: np.ndarray) -> np.ndarray:
                array = np.array(array)
                array[rows] = fill
                return array

            if fill is not None:
                estimate = changed(estimate, filled)
            return estimate, dataclasses.replace(reference, valid=valid)

        third = slice(0, self._side() // 3)
        clean, score = (
            self._held("pixels without data", *(holes(p, third, fill) for p in self._pairs())) for fill in (None, 1.0)
        )
        if self._held("no pixel with data", *(holes(p, slice(None), None) for p in self._pairs())).reason is None:
            raise Broken("a number of images without data", "a reason", "do not override assess() or gather()")
        if not self.kind.masks:
            return f"a reason: {score.reason}"
        if score.value is None or not _close(score.value, clean.value):
            raise Broken(
                f"{_values([clean.value, score.value])} when only pixels without data change",
                "one number, since masks=True says that they are left out",
                "leave pixels out where reference.valid is False, or set masks=False",
            )
        return f"left out: {score.value:.6g} whatever lies below"

    def absent(self) -> str:
        estimate, reference = scene(self._side(), self._side() + 8)
        without: dict[str, Pair] = {}
        if "reference" in self.kind.needs:
            nothing = dataclasses.replace(reference, display=None, display_float=None, hr=None)
            without["reference"] = estimate, nothing
        if "distribution" in self.kind.needs:
            without["distribution"] = dataclasses.replace(estimate, mean=None, std=None, draws=None), reference
        if "lr" in self.kind.needs:
            without["lr"] = estimate, dataclasses.replace(reference, lr=None)
        if "pan" in self.kind.needs:
            without["pan"] = estimate, dataclasses.replace(reference, pan=None)
        if "mask" in self.kind.needs:
            without["mask"] = estimate, dataclasses.replace(reference, mask=None)
        if "reflectance" in self.kind.needs:
            without["reflectance"] = dataclasses.replace(estimate, image=None), reference
        numbers = [what for what, pair in without.items() if self._held(f"no {what}", fresh(pair)).reason is None]
        if numbers:
            raise Broken(f"a number without {few(numbers)}", "a reason", "do not override assess() or gather()")
        # What a metric does not declare must not be touched: the harness gives what `needs` names and no more.
        if "lr" not in self.kind.needs:
            self._held("no lr", fresh((estimate, dataclasses.replace(reference, lr=None))))
        if "reference" not in self.kind.needs:
            nothing = dataclasses.replace(reference, display=None, display_float=None, hr=None, pan=None)
            self._held("no reference", fresh((estimate, nothing)))
        return f"a reason each: no {', no '.join(without)}" if without else "it asks for nothing but the image"

    def types(self) -> str:
        def wider(pair: Pair) -> Pair:
            estimate, reference = pair
            assert reference.display is not None
            return (
                changed(estimate, lambda a: a.astype(np.float64)),
                dataclasses.replace(reference, display=reference.display.astype(np.float64)),
            )

        wide = self._held("float64 images", *map(wider, self._pairs()))
        if wide.value is not None and not _close(wide.value, self.value, 1e-4):
            raise Broken(
                f"{_values([self.value, wide.value])} for float32 and float64", "one number, or a reason", "convert"
            )
        strange = self._held("images that lie otherwise in memory", *map(laid_otherwise, self._pairs()))
        if not _close(strange.value, self.value):
            raise Broken(
                f"{_values([self.value, strange.value])} for rows and for columns that lie together in memory",
                "one number",
                "read arrays by index, never by their bytes",
            )
        return "float32 and float64 agree" if wide.value is not None else f"float64: a reason: {wide.reason}"

    def bands(self) -> str:
        """Images of one band and of twelve beside the display image, and no display image at all."""

        def with_bands(pair: Pair, count: int) -> Pair:
            estimate, reference = pair
            assert estimate.image is not None and reference.hr is not None and reference.lr is not None
            several = [of_bands(i, count) for i in (estimate.image, reference.hr, reference.lr)]
            return dataclasses.replace(estimate, image=several[0]), dataclasses.replace(
                reference, hr=several[1], lr=several[2], cache={}
            )

        def greyscale(pair: Pair) -> Pair:
            nothing = np.empty((0, 0, 3), np.float32)
            estimate, reference = with_bands(pair, 1)
            return (
                dataclasses.replace(estimate, display=nothing, display_float=nothing, mean=None, std=None, draws=None),
                dataclasses.replace(reference, display=None, display_float=None),
            )

        pairs = [scene(self._side(), self._side() + 8, s) for s in range(self._least())]
        twelve = self._held("images of twelve bands", *(with_bands(p, 12) for p in pairs))
        one = self._held("images of one band", *map(greyscale, pairs))
        if self._in_display() and one.value is not None:
            raise Broken("a number of images without R, G, B", "a reason", "do not override assess() or gather()")
        return f"twelve bands {_outcome(twelve)}, one {_outcome(one)}"

    def wrong_input(self) -> str:
        """What a broken program may hand over is a reason, never a number."""
        least = self._least()
        pairs = [scene(self._side(), self._side() + 8, s) for s in range(least)]
        smaller = [scene(self._side(), self._side() + 4, s)[0] for s in range(least)]
        wrong = {"another size than the reference's": [(s, r) for s, (_, r) in zip(smaller, pairs, strict=True)]}
        if self._in_display():
            wrong["values of 0 to 255"] = [(changed(e, lambda a: a * np.float32(255)), r) for e, r in pairs]
            if "distribution" in self.kind.needs:
                del wrong["values of 0 to 255"]  # what is looked at has no range
                wrong["a negative deviation"] = [
                    (dataclasses.replace(e, std=-1.0 - np.zeros_like(e.display)), r) for e, r in pairs
                ]
            if "reference" in self.kind.needs:
                wrong["a reference that is not finite"] = [
                    (e, dataclasses.replace(r, display=r.display * np.float32(np.nan), cache={}))
                    for e, r in pairs
                    if r.display is not None
                ]
        if self.kind.level == "set" and self.kind.min_images > 1:
            wrong["a single image"] = pairs[:1]
        numbers = [what for what, of in wrong.items() if self._held(what, *map(fresh, of)).reason is None]
        if numbers:
            raise Broken(f"a number of {few(numbers)}", "a reason", "do not override assess(), gather() or combine()")
        return f"a reason each: {', '.join(wrong)}"

    def _in_display(self) -> bool:
        return self.kind.display or "distribution" in self.kind.needs

    def not_finite(self) -> str:
        """A model's answers are finite by the time they come here; a metric that hides a NaN would hide a bug."""

        def pierced(array: np.ndarray) -> np.ndarray:
            array = np.array(array)
            array[3, 5] = np.nan
            return array

        def spoilt(seed: int) -> Pair:
            estimate, reference = scene(self._side(), self._side() + 8, seed)
            assert estimate.image is not None
            image = dataclasses.replace(estimate.image, values=pierced(estimate.image.values))
            return dataclasses.replace(changed(estimate, pierced), image=image), reference

        score = self._measure(self._new(), *map(spoilt, range(self._least())))
        if score.value is not None:
            raise Broken(
                f"{score.value:.6g} of an image with NaN", "a reason", "do not override assess(), gather() or combine()"
            )
        return f"a reason: {score.reason}"

    def _least(self) -> int:
        """One image, or as many as the metric wants at least."""
        return 1 if self.kind.level == "image" else max(2, self.kind.min_images)

    def _held(self, what: str, *pairs: Pair) -> Score:
        """A score that is a number or a reason of its own; an exception is none."""
        score = self._measure(self._new(), *pairs)
        if score.reason is not None and score.reason.kind == "failed":
            raise Broken(
                f"{what}: {score.reason.text.removeprefix('failed: ')}",
                "a number or a reason",
                "raise bench.core.errors.Unavailable with the reason, or state min_side_px, min_images, needs, masks",
            )
        return score


def _outcome(score: Score) -> str:
    return "a number" if score.value is not None else f"a reason ({score.reason})"


def _close(a: float | None, b: float | None, rtol: float = _RTOL) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=rtol, abs_tol=1e-7)


def _values(found: Sequence[float | None]) -> str:
    texts = ["a reason" if v is None else f"{v:.6g}" for v in found]
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def _attribute_problems(kind: type[Metric]) -> Iterator[str]:
    """What is wrong with the class attributes, one short text each."""
    for name in ("title", "direction", "group", "summary"):
        found = getattr(kind, name, None)
        if not isinstance(found, str) or not found or found != one_line(found):
            yield f"{name}={found!r:.60} is not one line of text"
    choices: dict[str, tuple[str, ...]] = {"direction": ("up", "down"), "group": GROUPS, "level": ("image", "set")}
    for name, choice in choices.items():
        found = getattr(kind, name, None)
        if isinstance(found, str) and found and found not in choice:
            yield f"{name}='{one_line(found, 40)}' is none of {', '.join(choice)}"
    tuples: dict[str, tuple[str, ...] | None] = {
        "needs": get_args(Need),
        "weights_files": tuple(weights.listed()),
        "parameters": None,
    }
    for name, allowed in tuples.items():
        found = getattr(kind, name)
        if not isinstance(found, tuple) or any(not isinstance(f, str) for f in found):
            yield f"{name}={found!r:.60} is no tuple of texts"
        elif allowed is not None and set(found) - set(allowed):
            yield f"{name} names {few(sorted(set(found) - set(allowed)))}, none of {few(allowed, 12)}"
    for name, low in (("min_side_px", 1), ("min_images", 1), ("revision", 1)):
        found = getattr(kind, name)
        if not isinstance(found, int) or isinstance(found, bool) or found < low:
            yield f"{name}={found!r:.40} is not a whole number of {low} or more"
    hooks = ("value",) if kind.level == "image" else ("features", "reduce")
    for hook in hooks:
        if getattr(kind, hook) is getattr(Metric, hook):
            yield f"level='{one_line(kind.level, 20)}' and no {hook}()"
