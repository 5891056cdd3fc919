"""The records of a run, typed: what was decided before it, what each image gave, what all of them gave together.

Every class here is what one JSON object of a run folder holds (``docs/run-folder.md`` has their JSON Schema). They are
frozen, refuse fields that they do not know, and are read by ``bench.core.typed.decode``, so that a broken or a hostile
file is one line. Parts that a plugin fills as it likes (a spec's fields, a protocol's options) stay JSON objects.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from bench.core.reason import Reason

FORMAT = 2
"""The version of run folders that this version writes. Format 1 is read too (``bench.records.format1``)."""

Json = dict[str, Any]
Estimate = Literal["sample", "mean"]
Decimals = Annotated[int, msgspec.Meta(ge=0, le=12)]


class DataRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which images: a dataset's ``name`` and ``split``, the hash of all their bytes, and their ids in order."""

    name: str
    split: str
    fingerprint: str
    ids: tuple[str, ...]


class ModelRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which model.

    Attributes
    ----------
    label : its name in tables.
    spec : the fields of its ``ModelSpec`` that can change a prediction, with the hashes of its weights.
    options : its options, without paths.
    code : hash of the syntax of what computes (``bench.models.code``); empty where a record is older than that.
    adapter : what else the adapter says identifies it, such as a checkpoint's hashes.
    """

    label: str
    spec: Json = {}
    options: dict[str, str] = {}
    code: str = ""
    adapter: Json = {}


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that can change a prediction: the key of a run's predictions is the hash of this.

    ``revision`` counts the changes of our own reader, protocols and model call that moved a pixel.
    """

    model: ModelRecord
    protocol: Json
    data: DataRecord
    seed: int
    draws: int
    dtype: str
    device: str
    batch_size: int
    revision: int = 0

    @property
    def protocol_name(self) -> str:
        """The protocol's registered name."""
        return str(self.protocol["name"])

    @property
    def reads_captions(self) -> bool:
        """Whether the model reads captions."""
        return bool(self.model.spec.get("supports_prompt"))


class Software(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Versions, and the commit where rfbench ran from a checkout (``dirty``: with changes)."""

    rfbench: str
    python: str
    packages: dict[str, str | None] = {}
    commit: str | None = None
    dirty: bool | None = None


class RunRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``run.json``: written first, before anything is computed.

    Attributes
    ----------
    plan_sha256 : the key of the predictions.
    software : what the run was begun with.
    command : a command that makes it again, without a machine's paths.
    licences : of the ``data``, the ``model`` and, where it loads files, their ``weights`` (each licence once).
    unlike_paper : why the model is another thing than the system of its name in the paper; empty where it is not.
    sources : whose work it is (``data``, ``model``), for citations; it may be read where plugins are not installed.
    determinism : the flags that were set.
    seen_in_training : how many of the images the model was trained on, where ``allow_train`` let it run on them.
    batch_size_found : the batch size of a run that was asked for the largest that fits (a plan's 0); 0 before it is
        found, and where it was not asked for.
    without_partner : of images that another program made: the names that found no partner, and how many other files
        there were, by side.
    """

    format: int
    plan: Plan
    plan_sha256: str
    software: Software
    command: str = ""
    licences: dict[str, str] = {}
    unlike_paper: str = ""
    sources: Json = {}
    determinism: Json = {}
    allow_train: bool = False
    seen_in_training: int = 0
    batch_size_found: int = 0
    without_partner: Json = {}


class MetricRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What people need to know of a metric to read its numbers where the metric itself is not installed.

    ``direction`` is ``up`` or ``down``, empty where neither is better: such a number is never ranked. ``decimals`` are
    what is shown; None stands for four significant digits.
    """

    name: str
    identity: str
    title: str
    unit: str
    direction: str
    group: str
    decimals: Decimals | None = None
    package: str = ""
    citation: str = ""
    licence: str = ""


class Cell(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One metric over all images of an estimate: a number, or the reason why there is none.

    Attributes
    ----------
    n : the images behind ``value``.
    std : the standard deviation over images, where each has a number.
    reasons : why the other images have none, in words, with how many of each.
    details : what else a metric of the set says, such as the size of its fit.
    identity : of this very number; it holds the hash of what was fitted on the references, where something was.
    """

    identity: str
    value: float | None = None
    n: int = 0
    reason: Reason | None = None
    std: float | None = None
    reasons: dict[str, int] = {}
    details: Json = {}


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An estimate of a run (``sample`` or ``mean``): its label in tables, and a cell for each metric by name."""

    label: str
    metrics: dict[str, Cell] = {}


class Summary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``summary.json``: all numbers of a finished run. Written last, and again whenever a metric is added.

    Attributes
    ----------
    images, failed : how many images the run has, and the ids of those without a prediction or a score.
    rows : by estimate.
    metrics : by name.
    predictions_sha256, references_sha256 : digests over the ids and the hashes of what was scored, and of what it was
        held against; ``references_sha256`` is empty in runs that are older than it.
    scores : the SHA-256 of each metric's ``metric.json``.
    """

    format: int
    plan_sha256: str
    status: str
    images: int
    failed: tuple[str, ...]
    rows: dict[str, Row]
    metrics: dict[str, MetricRecord]
    predictions_sha256: str = ""
    references_sha256: str = ""
    scores: dict[str, str] = {}


class ItemRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An image as it was predicted: ``items/ID.json`` while a run works, a row of ``images.parquet`` afterwards.

    Attributes
    ----------
    error : why there is no prediction; the rest is empty then.
    size_px : (height, width) of the prediction.
    normalisation : the fitted parameters of both sides.
    notes : what was done to it, such as a resize to the grid.
    facts : what the model says of the image, by name.
    prediction_sha256, reference_sha256 : of the prediction's file, and of the picture that it is held against.
    files : of an image that another program made, the file it came from.
    """

    id: str
    scene_id: str
    error: str | None = None
    size_px: tuple[int, int] | None = None
    normalisation: Json | None = None
    caption: str = ""
    notes: tuple[str, ...] = ()
    facts: dict[str, float] = {}
    prediction_sha256: str | None = None
    reference_sha256: str | None = None
    files: Json = {}


class ScoreRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One number of one image, or the reason why it has none; ``note`` says what was left out of it."""

    value: float | None = None
    reason: Reason | None = None
    note: str | None = None


class MetricScores(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``scores/NAME.HASH/metric.json``: one metric of a run, written after the tables beside it.

    Attributes
    ----------
    cells : by estimate.
    predictions_sha256 : the predictions that were scored.
    device : the kind of device that scored (``cpu``, ``cuda``).
    software : what scored, where it is not what predicted.
    scores_sha256, features_sha256 : of the files beside it; empty where there is none.
    """

    metric: MetricRecord
    cells: dict[str, Cell]
    predictions_sha256: str
    device: str
    software: Software
    scores_sha256: str = ""
    features_sha256: str = ""
