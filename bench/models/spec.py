"""What a model declares, what its adapter gets and what it gives back. Imports nothing heavy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bench.core.errors import RfbenchError
from bench.core.image import RGB, Array
from bench.core.seeds import noise_field
from bench.models.guests.environment import Environment

if TYPE_CHECKING:
    import torch

    from bench.data.dataset import Side


@dataclass(frozen=True)
class Claim:
    """What a publication prints for a system, to stand beside our numbers and never among them.

    Attributes
    ----------
    source : the publication's name for ``rfbench table --against``, such as ``opensr-test``.
    citation : where the numbers are printed, and by whom.
    setting : the data and the conditions, in a line.
    numbers : as printed, by metric: our name where it is one of ours, else the printed one.
    """

    source: str
    citation: str
    setting: str
    numbers: Mapping[str, float]


@dataclass(frozen=True)
class ModelSpec:
    """A model as data.

    Attributes
    ----------
    name, summary : how it is called and, in a line, what it is.
    adapter : ``"package.module:Class"``, imported only when the model runs.
    bands : what it reads; None for every band that the LR has. ``without_bands`` : what to do where an LR lacks some.
    unit : ``display`` (RGB in [0, 1] by the protocol's normalisation), ``reflectance``, or ``native`` (the LR's own).
    output_unit : the unit of its answer; ``native`` is the LR's own.
    scale_factors : native whole-number factors, None where it reaches any size by itself.
    multiple, min_side_px, max_side_px, square : constraints on the LR it is given; smaller images are padded by
        repeated reflection and the answer cropped, larger ones are tiled with ``overlap_px`` and blended seams.
    max_out_side_px : the longest side of an answer that it can give at once, for models that reach any size by
        themselves; a larger answer is made in tiles.
    stochastic : whether draws differ; ``supports_prompt``: whether it reads captions.
    input_kind : ``image``, or ``series`` for models that need the LR's time series. ``reference`` is for rows that are
        no model's: they are given what the answer is held against.
    dtypes : the arithmetic it can do; ``--dtype`` with another is refused.
    default_options : option names with their defaults; users override them by ``--model NAME:key=value``.
    check_options : options that ``rfbench check model NAME`` takes where none are given, such as a small network with
        random weights for a system whose own are not here.
    needs_options : options without which it cannot run, since only the user has what they name.
    path_options : options that say where something lies and not what it is; the adapter's identity has its hash.
    upstream, commit, licence, status : where it comes from, for people and for records.
    allows : what its licences (code and weights) allow, in a line.
    paper : the RareFlow paper's numbers for it, by table and column as printed there. Its metrics have no identity, so
        these never stand beside computed ones but in ``rfbench table --against paper``.
    published : what other publications print for it, its own paper among them (``rfbench table --against SOURCE``).
    unlike_paper : what makes it another thing than the system of its name in the paper (random weights, a small
        network), in a clause; ``specialise`` may say it of an option. The ledger then shows no difference.
    verified : what was held against the original, one line each with its commit and the date.
    unverified : what only someone with the weights can verify, one line each with the command.
    reimplementation : where its procedure had to be written anew, which published source it follows. Tables then call
        it ``NAME-reimplemented``.
    requires : the distributions that it needs beside rfbench's own, such as ``opensr-model==1.0.8``; ``extra`` is the
        extra of rfbench that installs them. Without them a run says so before anything is computed.
    option_licences : licences that an option brings with what it names (``{"base": "..."}``), which reports show;
        ``specialise`` adds one to ``licence`` where the option is used.
    weights : the pretrained files that it loads, by file name, which ``rfbench weights`` lists, fetches and verifies:
        ``{"mine_x4.pth": {"bytes": 67123456, "sha256": "<64 hex digits>", "licence": "Apache-2.0", "source":
        "https://example.org/releases/mine_x4.pth"}}``.
        The name is the file's in a weights folder and must be its own among all models. Where its publisher gives no
        hash, ``"sha256": ""``: then ``bytes`` is about its size, and the hash is recorded when the file is first
        fetched and enforced afterwards. ``source`` is the address of the file itself, by https; ``package_path``
        (``"package/folder/mine_x4.pth"``) may say instead where an installed Python package carries it. The adapter's
        ``load`` opens ``self.weights_path("mine_x4.pth")`` and nothing else. With ``specialise`` an option can choose
        among several files: leave only those it needs. A model that lacks one is left out of a run, which says so. The
        hashes are part of the model's identity.
    citation : whose work it is: keys of ``bench/reports/cite/citations.bib``, BibTeX entries, or plain words.
    environment : an environment and process of its own, for a model whose packages, module names or licence must stay
        out of this process; its ``adapter`` is then ``"bench.models.guests.adapter:GuestAdapter"`` or a subclass.
    """

    name: str
    adapter: str
    summary: str = ""
    bands: tuple[str, ...] | None = RGB
    without_bands: str = ""
    unit: Literal["display", "reflectance", "native"] = "display"
    output_unit: Literal["display", "reflectance", "native"] = "display"
    scale_factors: tuple[int, ...] | None = None
    multiple: int = 1
    min_side_px: int = 1
    max_side_px: int | None = None
    max_out_side_px: int | None = None
    overlap_px: int = 16
    square: bool = False
    stochastic: bool = False
    supports_prompt: bool = False
    input_kind: Literal["image", "series", "reference"] = "image"
    dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16")
    default_options: dict[str, str] = field(default_factory=dict)
    check_options: dict[str, str] = field(default_factory=dict)
    needs_options: tuple[str, ...] = ()
    path_options: tuple[str, ...] = ()
    upstream: str = ""
    commit: str = ""
    licence: str = ""
    option_licences: dict[str, str] = field(default_factory=dict)
    weights: dict[str, dict[str, Any]] = field(default_factory=dict)
    allows: str = ""
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    published: tuple[Claim, ...] = ()
    unlike_paper: str = ""
    status: str = ""
    verified: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    reimplementation: str = ""
    requires: tuple[str, ...] = ()
    extra: str = ""
    citation: str = ""
    revision: int = 1
    environment: Environment | None = None

    def largest_tile_px(self, scale: float) -> int | None:
        """The longest side in LR pixels that the model takes at once where an answer is ``scale`` times as fine."""
        limits = [self.max_side_px, None if self.max_out_side_px is None else max(1, int(self.max_out_side_px / scale))]
        return min((n for n in limits if n is not None), default=None)


@dataclass(frozen=True)
class Batch:
    """What an adapter sees: N images of one size.

    Attributes
    ----------
    images : float32 (N, h, w, C) in the spec's unit and bands; display images lie in [0, 1].
    size : (height, width) of the answer.
    ids, captions : one of each per image.
    seeds : N tuples of K seeds, one a draw; hash(run seed, image id, draw).
    offset : (row, column) of these pixels in the whole image, where it is tiled.
    series : the LR time series of each image, for models with ``input_kind="series"``: ``values`` float32 (T, h, w, C)
        in the LR's unit, ``bands`` and ISO ``dates``.
    dates : ISO dates of acquisition, empty where unknown; ``target_dates`` those of what is asked for (the HR image's);
        ``gsd_m`` the LR's ground sampling distance, if known.
    """

    images: Array
    size: tuple[int, int]
    bands: tuple[str, ...]
    ids: tuple[str, ...]
    captions: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    offset: tuple[int, int] = (0, 0)
    series: tuple[Any, ...] = ()
    dates: tuple[str, ...] = ()
    target_dates: tuple[str, ...] = ()
    gsd_m: float | None = None

    @property
    def draws(self) -> int:
        """K, the number of draws that are wanted (1 for a deterministic model)."""
        return len(self.seeds[0])

    def noise(self, channels: int, cells_per_px: float = 1.0, size: tuple[int, int] | None = None) -> Array:
        """Standard normal noise, float32 (N, K, rows, columns, channels). All noise of a model comes from here.

        It is drawn on the CPU from one field per seed that is laid over the whole image, so it depends on neither
        the batch nor the tile.

        Parameters
        ----------
        cells_per_px : noise cells per LR pixel. A latent of an eighth of the answer's size on a x5 task has 5 / 8.
        size : (rows, columns); the images' size times ``cells_per_px`` unless given (a model that pads needs more).
        """
        rows, columns = size or tuple(round(n * cells_per_px) for n in self.images.shape[1:3])
        top, left = (round(o * cells_per_px) for o in self.offset)
        draws = [[noise_field(s, top, left, rows, columns, channels) for s in seeds] for seeds in self.seeds]
        return np.array(draws, np.float32)

    def tensor(self, device: str = "cpu", dtype: torch.dtype | None = None) -> torch.Tensor:
        """The images as a torch tensor (N, C, h, w)."""
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(self.images, 3, 1)))
        return tensor.to(device=device, dtype=dtype or torch.float32)


@dataclass(frozen=True)
class Prediction:
    """What an adapter gives back: draws, or a mean with or without a standard deviation.

    Attributes
    ----------
    samples : float32 (N, K, H, W, C), or None.
    mean, std : float32 (N, H, W, C), or None. A deterministic model gives ``mean`` alone.
    maps : extras for each pixel by name, float32 (N, H, W) such as ``{"mc_dropout_var": ...}``. They are cropped,
        blended and stored like the images (brought to another grid bilinearly); no metric reads them.
    facts : extras for each image, N dicts of finite numbers with the same names such as ``({"u": 0.31},)``; the tiles
        of an image are averaged with equal weights. A run's frame of scores has each as the column ``fact:NAME``.
    """

    samples: Array | None = None
    mean: Array | None = None
    std: Array | None = None
    maps: Mapping[str, Array] = field(default_factory=dict)
    facts: tuple[Mapping[str, float], ...] = ()

    def arrays(self) -> dict[str, Array]:
        """The arrays that are there, by name; RfbenchError unless there are samples or a mean, not both."""
        if (self.samples is None) == (self.mean is None) or (self.std is not None and self.mean is None):
            raise RfbenchError("a prediction holds samples, or a mean, or a mean and a std")
        named = {"samples": self.samples, "mean": self.mean, "std": self.std}
        return {k: v for k, v in named.items() if v is not None}


class Adapter(ABC):
    """A model that can run. The constructor takes the options (texts) of ``--model NAME:key=value`` by name."""

    def __init__(self, **options: str) -> None:
        self.options = options

    _find_weights: Callable[[str], Path] | None = None  # given by ``bench.models.call.Model``
    spec: ModelSpec | None = None
    """The model's spec as the options make it; given by the harness after ``specialise``."""

    def weights_path(self, file: str) -> Path:
        """Where a file of ``ModelSpec.weights`` lies, its SHA-256 just verified; for ``load``.

        Raises
        ------
        RfbenchError
            If it is missing or wrong, with the command that gets it; if the spec does not list it.
        """
        if self._find_weights is None:
            raise RfbenchError("weights_path is for an adapter's load, which the harness calls")
        return self._find_weights(file)

    def label(self) -> str | None:
        """The name in tables where it differs from the spec's (from a checkpoint's card, say)."""
        return None

    def specialise(self, spec: ModelSpec) -> ModelSpec:
        """The spec as the options make it (a checkpoint's scale, the unit of files), as it is unless overridden."""
        return spec

    def identity(self) -> dict[str, Any]:
        """All beside spec and options that can change a prediction: hashes of weights and input files."""
        return {}

    def fit_to(self, dataset: Any, split: str, protocol: Any) -> None:
        """Fit what belongs to a dataset (never to the images of ``split``) before a run of it, for models that do.

        Called once, before ``identity`` and ``training_ids`` are recorded. Raises RfbenchError where the dataset has
        nothing to fit on. ``dataset`` is a Dataset, ``protocol`` the Protocol of the run.
        """

    def training_ids(self) -> frozenset[str] | None:
        """``id_hash`` of every image that the model was trained on; None where that is not known or it was not trained.

        A run on any of these images is refused unless the user insists.
        """
        return None

    def input_side(self) -> Side | None:
        """What an LR's numbers meant in training, for images without a dataset; None where unknown."""
        return None

    def output_side(self) -> Side | None:
        """What a display answer's numbers stand for: the HR side of the training data; None where unknown."""
        return None

    def check(self) -> None:
        """RfbenchError where something is missing that the model needs beside its weights; before anything runs."""

    def check_weights(self) -> None:
        """RfbenchError where a file of weights does not hold the tensors that the network has, by name and shape.

        Called before anything is computed, once all files were found: a wrong file costs no hours of the models before
        it. ``Published`` does it for all that load by ``read_state`` and ``load_state``.
        """

    def device_peak_bytes(self) -> int | None:
        """The most that it held of a device's memory outside this process (in a guest); None where it held none."""
        return None

    def session(self) -> dict[str, Any]:
        """What a run's ``host.json`` should say of how the model ran here, and what no number depends on."""
        return {}

    def close(self) -> None:
        """Give back what ``load`` took, at the end of a run; ``load`` may be called again."""

    def load(self, device: str, dtype: str) -> None:
        """Bring the model to ``device`` (``cpu``, ``cuda``) in ``dtype`` (``float32``, ``float16``, ``bfloat16``)."""

    def prepare(self, captions: Sequence[str]) -> None:
        """Called after ``load`` with the captions to come, for models that would otherwise embed them one by one."""

    @abstractmethod
    def upscale(self, batch: Batch) -> Prediction:
        """Answer a batch. The same (seed, id, draw) gives the same image, whatever the batch."""
