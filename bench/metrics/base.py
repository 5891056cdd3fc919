"""The interface of every metric, with what it sees and what it gives back.

A subclass states as class attributes what it is and what it needs, and writes ``value`` (one number an image) or
``features`` and ``reduce`` (one number for a set of images). It never checks its input: ``assess`` and ``gather``
do that once for all, and what cannot be computed becomes a reason, never a zero or NaN.
"""

from __future__ import annotations

import importlib.util
import math
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from bench import weights
from bench.core.contain import PluginFailed, contained, described, kept_traceback
from bench.core.errors import RfbenchError, Unavailable
from bench.core.image import Array, Image, Mask
from bench.core.reason import Reason
from bench.metrics.software import NUMPY, Software

Group = Literal["fidelity", "perceptual", "realism", "physics", "uncertainty"]
GROUPS: tuple[Group, ...] = ("fidelity", "perceptual", "realism", "physics", "uncertainty")
Need = Literal["reference", "distribution", "lr", "pan", "mask", "reflectance"]
Features = dict[str, np.ndarray]
Found = TypeVar("Found")
WEIGHTS, FIT = "w:", "fit:"
"""How the parts of an identity begin that hold hashes: of pretrained weights, and of a model fitted on references."""


@dataclass(frozen=True)
class Reference:
    """What an image is held against. One object serves all models of a run.

    Attributes
    ----------
    display : float32 (H, W, 3) RGB in [0, 1], rounded as the protocol says; None where there is no HR image.
    display_float : the same before rounding.
    hr : the HR image in its own unit with all its bands, or None.
    pan : the panchromatic image (H, W, 1) on the target grid, or None.
    lr : the LR image in its own unit with all its bands; None where pictures are held against pictures.
    lr_display : the LR's R, G, B in display range on the reference's grid, as the model ``bicubic`` shows it, rounded
        as the protocol says; None where there is no LR or it has none of these.
    valid : bool (H, W), False where a side has no data.
    mask : bool (H, W) on the same grid, the landform's mask where the dataset has one.
    cache : what a metric made of the reference alone, for the next model; a metric's state stays until it has scored
        all models (``Scorer``), so that memory holds one metric's at a time.
    """

    id: str
    scene_id: str
    display: Array | None
    display_float: Array | None
    hr: Image | None
    pan: Image | None
    lr: Image | None
    valid: Mask
    mask: Mask | None = None
    hr_date: str = ""
    lr_display: Array | None = None
    cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def pixels(self, image: Array) -> Array:
        """The pixels of an image (H, W, C) on this grid that have data, (N, C), row by row."""
        return image.reshape(-1, image.shape[2]) if self.valid.all() else image[self.valid]


@dataclass(frozen=True)
class Estimate:
    """What a model made of one image: a draw, or the mean of its draws.

    Attributes
    ----------
    display : float32 (H, W, 3) RGB in [0, 1], rounded as the protocol says; of size 0 where the model's answer has
        no R, G, B.
    display_float : the same before rounding.
    image : the prediction in reflectance (or the LR's own unit) with all its bands; None for a model that
        predicts display images.
    mean, std : float32 (H, W, 3) in display units, the predictive distribution; None where there is none.
    draws : float32 (K, H, W, 3), the draws that they are of; None where the model gave mean and deviation itself.
    no_distribution : why there is none.
    cache : what metrics share that look at it, such as the features that FID and KID have in common, and faults found.
    """

    display: Array
    display_float: Array
    image: Image | None = None
    mean: Array | None = None
    std: Array | None = None
    draws: Array | None = None
    no_distribution: str = "a single deterministic image"
    # Never copied with the rest: a copy may have other arrays.
    cache: dict[str, Any] = field(default_factory=dict, init=False, compare=False, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.size if self.image is not None else (self.display.shape[0], self.display.shape[1])


@dataclass(frozen=True)
class Score:
    """A value, or the reason why there is none. ``note`` says what was left out, such as pixels; ``traceback`` is that
    of a metric that failed, for its author."""

    value: float | None = None
    reason: Reason | None = None
    note: str | None = None
    traceback: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class SetScore:
    """The value of a set of images; ``per_image`` where each image has a share of its own (same order).

    ``fit`` is the short hash of what was fitted on the set's references, and becomes part of the value's identity;
    ``fitted`` is that model, kept with the run.
    """

    value: float
    per_image: tuple[float | None, ...] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    fit: str = ""
    fitted: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Setting:
    """Where metrics run and what the protocol fixed for them.

    ``exact`` asks for the libraries that define metrics (``Metric.library``) instead of our own kernels.
    """

    device: str = "cpu"
    weights_dir: Path | None = None
    quantise: int | None = 8
    border_px: int = 0
    exact: bool = False


@dataclass(frozen=True)
class Library:
    """The library that defines a metric which our own kernels compute.

    Attributes
    ----------
    package : the Python package, as ``Metric.package``; its ``software`` and ``licence``.
    tolerance : by how much the kernels' number may differ from its number.
    revision : of our part of the computation by it, as ``Metric.revision``.
    """

    package: str
    software: Software
    tolerance: float
    licence: str = ""
    revision: int = 1


class Metric(ABC):
    """Base of all metrics. Entry points of the group ``rfbench.metrics`` name subclasses.

    Class attributes
    ----------------
    name : with the variant that changes the number (``psnr_rgb``, ``lpips_alex``).
    title : the column's title in tables (``PSNR``).
    unit : of the value (``dB``, ``degrees``), empty for a pure number.
    direction : ``up`` where more is better, ``down`` where less is.
    describes : whether it says what a prediction is like rather than how good it is, so that noise may raise or lower
        it: no table ranks it, and no comparison calls either side better.
    group : the family under which tables show it.
    level : ``image`` (``value``) or ``set`` (``features`` and ``reduce``).
    display : whether it looks at the rounded display images; then ``q8`` is part of its identity.
    needs : ``reference``, ``distribution``, ``lr``, ``pan``, ``mask`` and/or ``reflectance``.
    fits_references : whether ``reduce`` fits a model on the references of all images of the set, also of those whose
        prediction failed: their features come from ``reference_features``.
    masks : whether it can leave invalid pixels out; otherwise an image that has some is a reason.
    min_side_px : the smallest height and width it works on.
    weights_files : names in the committed list of weights.
    package : the Python package that computes it; a metric without it is a reason.
    software : the installable packages that compute it, first the one that brings ``package``: a run records their
        versions, and a methods section cites them.
    library : of a metric that our own kernels compute, the library that defines it: what ``--exact-libraries``
        (``Setting.exact``) asks for, and ``rfbench check metric`` compares with.
    licence : where use is restricted.
    citation : whose work it is: keys of ``bench/reports/cite/citations.bib``, BibTeX entries, or plain words.
    decimals : how many tables show: what 24 images can tell apart, and a little more; None for four significant digits.
    family : the name by which ``--metrics`` asks for it together with others, and its place among them; None for none.
    default : its place among the columns of the default set, the lowest first; None where it is computed only when it
        is asked for by name. The paper's columns are 1 to 12.
    slow_on_cpu : takes minutes an image on a processor, and is left out there unless it is asked for by name.
    revision : raised whenever our own part changes a number.
    parameters : parts of the signature, such as ``("gauss11,1.5", "popcov", "range1")``.
    equation : its formula in one line of plain text.
    bounds : the lowest and the highest value that any images can have.
    perfect : the value of an image that equals its reference; None where there is no such value.
    symmetric : whether prediction and reference may be exchanged without changing the value; None is no claim.
    on_satellite : for a score without reference or from networks of photographs: what it can mean on a satellite image.

    The docstring is its definition, with a paragraph that begins ``Source:`` and one that begins ``Traps:``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str] = ""
    direction: ClassVar[Literal["up", "down"]]
    describes: ClassVar[bool] = False
    group: ClassVar[Group]
    level: ClassVar[Literal["image", "set"]] = "image"
    display: ClassVar[bool] = True
    needs: ClassVar[tuple[Need, ...]] = ("reference",)
    fits_references: ClassVar[bool] = False
    masks: ClassVar[bool] = False
    min_side_px: ClassVar[int] = 1
    min_images: ClassVar[int] = 1
    weights_files: ClassVar[tuple[str, ...]] = ()
    package: ClassVar[str] = "numpy"
    software: ClassVar[tuple[Software, ...]] = (NUMPY,)
    library: ClassVar[Library | None] = None
    licence: ClassVar[str] = ""
    decimals: ClassVar[int | None] = None
    family: ClassVar[tuple[str, int] | None] = None
    default: ClassVar[int | None] = None
    slow_on_cpu: ClassVar[bool] = False
    revision: ClassVar[int] = 1
    parameters: tuple[str, ...] = ()
    summary: ClassVar[str] = ""
    citation: ClassVar[str] = ""
    equation: ClassVar[str] = ""
    bounds: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    perfect: ClassVar[float | None] = None
    symmetric: ClassVar[bool | None] = None
    on_satellite: ClassVar[str] = ""

    def __init__(self, setting: Setting = Setting()) -> None:
        self.setting = setting
        if self.exact is not None:  # of this object alone: computed by something else than its class says
            own = {"package": self.exact.package, "software": (self.exact.software,), "licence": self.exact.licence}
            vars(self).update(own, revision=self.exact.revision)
        self.planned_identity: str | None = None  # what ``identity`` was when a run was planned
        self.planned_fit: str | None = None  # the fit that a value must come from, where one is asked for
        self._ready = False

    # --- what a subclass writes -------------------------------------------------------------------------------

    def setup(self) -> None:
        """Import packages and load weights. Called once, before the first image. May raise Unavailable."""

    def reference_state(self, reference: Reference) -> Any:
        """What depends on the reference alone; computed once for all models of a run."""
        return None

    def value(self, estimate: Estimate, reference: Reference, state: Any) -> float | Score:
        """The score of one image (a ``Score`` where something is to be noted). May raise Unavailable with a reason."""
        raise TypeError(f"{type(self).__name__} has no per-image value")

    def features(self, estimate: Estimate, reference: Reference, state: Any) -> Features:
        """What a set metric keeps of one image: small float arrays by name."""
        raise TypeError(f"{type(self).__name__} keeps no features")

    def reference_features(self, reference: Reference, state: Any) -> Features:
        """Of an image without a prediction, for a metric that ``fits_references``: what the fit needs of it."""
        raise TypeError(f"{type(self).__name__} keeps no features of references")

    def reduce(self, features: Sequence[Features]) -> SetScore:
        """The score of a set of images from their features, in the order of the images' ids.

        For a metric that ``fits_references`` the last ones may be ``reference_features``.
        """
        raise TypeError(f"{type(self).__name__} does not reduce")

    # --- what the harness calls -------------------------------------------------------------------------------

    @property
    def exact(self) -> Library | None:
        """The library that computes it instead of our kernels; None where they do."""
        return self.library if self.setting.exact else None

    def identity(self, fit: str = "") -> str:
        """A one-line signature that holds all that can change the number; a paper can print it.

        ``fit`` is ``SetScore.fit``, known once the set's references are.
        """
        parts = [self.name, *self.parameters]
        if fit:
            parts.append(FIT + fit)
        if self.exact is not None:
            parts.append(f"by:{self.exact.package}")
        hashes = self.weights_hashes()
        if hashes:
            parts.append(WEIGHTS + "+".join(hashes))
        if self.display:
            parts.append(f"q{self.setting.quantise}" if self.setting.quantise else "qnone")
        if self.setting.border_px:
            parts.append(f"border{self.setting.border_px}")
        return "|".join([*parts, f"r{self.revision}"])

    def weights_hashes(self) -> tuple[str, ...]:
        """The short hashes of its weights, as the identity has them: the listed ones; of a file whose publisher gives
        none, the one that was recorded here."""
        entries = [weights.entry_of(file) for file in self.weights_files]
        return tuple(weights.identified(e, self.setting.weights_dir)[:8] or "unrecorded" for e in entries)

    def missing(self) -> Reason | None:
        """Why the metric cannot work here at all (a package, a weights file), found without importing anything."""
        if importlib.util.find_spec(self.package) is None:
            return Reason("missing", f"package {self.package} is not installed")
        return next(iter(self.lacking_weights().values()), None)

    def lacking_weights(self) -> dict[str, Reason]:
        """Its listed files that are not here, or not with their hash, and what to do."""
        found = {}
        for file in self.weights_files:
            try:
                weights.find(file, self.setting.weights_dir)
            except Unavailable as error:
                found[file] = error.reason
        return found

    def assess(self, estimate: Estimate, reference: Reference) -> Score:
        """The score of one image, or a reason; never raises for what an image, or the metric's own code, may bring."""

        def work() -> Score:
            found = self.value(estimate, reference, self._prepare(estimate, reference))
            return found if isinstance(found, Score) else Score(float(found))

        score = _contained(work)
        if score.value is None or not math.isfinite(score.value):
            return replace(score, value=None, reason=score.reason or _not_finite(score.value))
        return score

    def gather(self, estimate: Estimate, reference: Reference) -> Features | Score:
        """The features of one image for a set metric, or a reason."""
        return _contained(lambda: _finite(self.features(estimate, reference, self._prepare(estimate, reference))))

    def gather_reference(self, reference: Reference) -> Features | Score:
        """The features of a reference alone for a metric that ``fits_references``, or a reason."""
        return _contained(lambda: _finite(self.reference_features(reference, self._prepare(None, reference))))

    def combine(self, features: Sequence[Features], others: Sequence[Features] = ()) -> SetScore | Score:
        """The score of a set from the features of its images, or a reason.

        ``others`` are ``reference_features`` of the set's images that have no prediction: a fit on references must not
        depend on what a model could do.
        """
        if len(features) < self.min_images:
            why = f"needs at least {self.min_images} images, found {len(features)}"
            return Score(reason=Reason("unfit", why))
        result = _contained(lambda: self.reduce([*features, *others] if self.fits_references else features))
        if isinstance(result, Score):
            return result
        if self.planned_fit not in (None, result.fit):
            why = f"these references give the fit {result.fit}, expected {self.planned_fit}"
            return Score(reason=Reason("unfit", why))
        if not math.isfinite(result.value):
            return Score(reason=_not_finite(result.value))
        return result if result.per_image is None else replace(result, per_image=result.per_image[: len(features)])

    def _prepare(self, estimate: Estimate | None, reference: Reference) -> Any:
        why = self._unmet_by(reference) or (self._unmet(estimate, reference) if estimate is not None else None)
        if why:
            raise Unavailable(why)
        if not self._ready:
            lacking = self.missing()
            if lacking is not None:
                raise Unavailable(lacking)
            try:
                self.setup()
            except Unavailable as error:  # another file or package may be here another time
                raise Unavailable(Reason("missing", error.reason.text, error.reason.remedy)) from error
            if self.planned_identity not in (None, self.identity()):
                changed = "its weights have changed since the run was planned"
                raise Unavailable(Reason("failed", changed, "run the same command again"))
            self._ready = True
        if self.name not in reference.cache:
            reference.cache[self.name] = self.reference_state(reference)
        return reference.cache[self.name]

    def _unmet_by(self, reference: Reference) -> str | None:
        """Why the metric cannot work with a reference, whatever the prediction."""
        if "reference" in self.needs:
            if reference.hr is None and reference.display is None:
                return "no reference image"
            if self._in_display and reference.display is None:
                return "the reference has no bands R G B"
            if reference.display is not None:
                if not self._large_enough(*reference.display.shape[:2]):
                    return self._too_small(*reference.display.shape[:2])
                if _FAULT not in reference.cache:
                    reference.cache[_FAULT] = _reference_fault(reference)
                if reference.cache[_FAULT]:
                    return str(reference.cache[_FAULT])
        if "lr" in self.needs and reference.lr is None:
            return "no LR image"
        if "pan" in self.needs and reference.pan is None:
            return "no panchromatic image"
        if "mask" in self.needs and reference.mask is None:
            return "no mask"
        if not self.masks and not reference.valid.all():
            return f"{int((~reference.valid).sum())} pixels without data; this metric needs a whole image"
        if not reference.valid.any():
            return "no pixel with data"
        return None

    def _unmet(self, estimate: Estimate, reference: Reference) -> str | None:
        """Why the metric cannot work with a prediction."""
        if self._in_display and not estimate.display.size:
            return "the prediction has no bands R G B"
        if "distribution" in self.needs and estimate.std is None:
            return f"no predictive distribution ({estimate.no_distribution})"
        if "reflectance" in self.needs:
            if estimate.image is None or estimate.image.unit != "reflectance":
                return "the model does not predict reflectance"
            if "reference" in self.needs and (reference.hr is None or reference.hr.unit != "reflectance"):
                return "the reference is not in reflectance"
        if not self._large_enough(*estimate.size):
            return self._too_small(*estimate.size)
        if estimate.size != reference.valid.shape:
            return f"the prediction has {_px(estimate.size)}, the reference {_px(reference.valid.shape)}"
        looks_at = [
            ("image", lambda: _image_fault(estimate)),
            ("display", lambda: _display_fault("prediction", estimate.display, estimate.size)),
            ("distribution", lambda: _distribution_fault(estimate)),
        ]
        for name, look in looks_at:
            if name == "image" or (name == "display" and self._in_display) or name in self.needs:
                if _FAULT + name not in estimate.cache:
                    estimate.cache[_FAULT + name] = look()
                if estimate.cache[_FAULT + name]:
                    return str(estimate.cache[_FAULT + name])
        return None

    @property
    def _in_display(self) -> bool:
        """Whether it looks at RGB in display range, rounded or not."""
        return self.display or "distribution" in self.needs

    def _large_enough(self, height: int, width: int) -> bool:
        return min(height, width) >= self.min_side_px

    def _too_small(self, height: int, width: int) -> str:
        return f"image of {height}x{width} px is smaller than {self.min_side_px} px"


_FAULT = "fault:"  # in the caches, where metrics keep their states under their names
_ROUNDING = 1e-5  # by which a display value may be beyond [0, 1]


def _px(size: tuple[int, ...]) -> str:
    return f"{'x'.join(map(str, size))} px"


def _display_fault(what: str, display: np.ndarray, size: tuple[int, ...]) -> str | None:
    """Why an array is no RGB image of a size in display range."""
    if display.shape != (*size, 3):
        return f"the {what}'s display image has the shape {display.shape}, expected {(*size, 3)}"
    # One pass each: NaN makes either extreme NaN.
    low, high = float(display.min()), float(display.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"the {what} holds values that are not finite"
    if low < -_ROUNDING or high > 1.0 + _ROUNDING:
        return f"the {what}'s display values run from {low:.4g} to {high:.4g}, expected [0, 1]"
    return None


def _reference_fault(reference: Reference) -> str | None:
    assert reference.display is not None
    return _display_fault("reference", reference.display, reference.valid.shape)


def _image_fault(estimate: Estimate) -> str | None:
    """A metric that skips what it cannot compare would hide the NaN of a broken prediction."""
    if estimate.image is not None and not np.isfinite(estimate.image.values).all():
        return "the prediction holds values that are not finite"
    return None


def _distribution_fault(estimate: Estimate) -> str | None:
    """Why mean, deviation and draws are no predictive distribution."""
    for name, values in (("mean", estimate.mean), ("std", estimate.std)):
        if values is None or values.shape != (*estimate.size, 3):
            return (
                f"the predicted {name} has the shape {getattr(values, 'shape', None)}, expected {(*estimate.size, 3)}"
            )
        if not np.isfinite(values).all():
            return "the prediction holds values that are not finite"
    if estimate.std is not None and estimate.std.min() < 0.0:
        return f"the predicted deviation is negative ({float(estimate.std.min()):.4g}), so quantiles would cross"
    draws = estimate.draws
    if draws is not None:
        if draws.ndim != 4 or len(draws) < 2 or draws.shape[1:] != (*estimate.size, 3):
            return f"the draws have the shape {draws.shape}, expected two or more of {(*estimate.size, 3)}"
        if not np.isfinite(draws).all():
            return "the prediction holds values that are not finite"
    return None


def _contained(work: Callable[[], Found]) -> Found | Score:
    """What a metric's own code gives, or the reason why it gives nothing: whatever it does, the other metrics go on."""
    try:
        with contained("failed"):
            return work()
    except Unavailable as error:
        return Score(reason=error.reason)
    except PluginFailed as error:
        return Score(reason=Reason("failed", str(error)), traceback=error.traceback)
    except (RfbenchError, MemoryError) as error:
        return Score(reason=Reason("failed", f"failed: {described(error)}"), traceback=kept_traceback(error))


def _not_finite(value: float | None) -> Reason:
    return Reason("unfit", f"not a finite number ({value})")


def _finite(features: Features) -> Features | Score:
    if not all(np.isfinite(a).all() for a in features.values()):
        return Score(reason=Reason("unfit", "its features are not finite"))
    return features
