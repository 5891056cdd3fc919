"""The scores of a folder of images as one document: ``docs/score-json.md`` says what is in it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.core import provenance
from bench.core.errors import ItemError, RfbenchError, one_line
from bench.core.files import digest
from bench.core.image import RGB
from bench.core.progress import Progress
from bench.data import bands as band_names
from bench.metrics.base import Estimate, Features, Metric, Reference, Score, Setting
from bench.metrics.scorer import ItemScores, Scorer, built, chosen, distributions
from bench.predict.plan import choose_metrics, describe, resolve_dataset, resolve_device, resolve_protocol
from bench.score.finish import reduced, summarised
from bench.score.images import PICTURES, DatasetSource, FolderSource, Meaning, NeedsOption, Source
from bench.score.kept import Kept, Spill
from bench.score.match import ID, Listing, Match, Matches, as_text, listing, match_folders, match_ids, some
from bench.score.pool import Scoring, usual_workers

FORMAT = 1
OF_THE_SET = "one number for all images; it is in the summary"
_A_PROCESS_PAYS_FROM = 16  # images: to start one and import torch in it takes seconds


@dataclass(frozen=True)
class Request:
    """What the user asked for; the fields are the options of ``rfbench score``. None stands for "not said"."""

    pred: Path
    ref: Path | None = None
    data: str | None = None
    split: str | None = None
    protocol: str | None = None
    metrics: tuple[str, ...] | None = None
    unit: str = "display"
    scale: float | None = None
    ref_scale: float | None = None
    bands: str | None = None
    sensor: str | None = None
    pred_name: str = ID
    border_px: int | None = None
    quantise: str | None = None
    device: str = "auto"
    workers: int | None = None
    strict: bool = False
    weights_dir: Path | None = None


@dataclass(frozen=True)
class _Plan:
    source: Source
    matches: Matches
    setting: Setting
    pred: Listing
    ref: Listing | None
    inputs: dict[str, Any]

    @property
    def only_pred(self) -> list[str]:
        """Names of images without a reference; whole file names where the pattern does not fit them."""
        return [as_text(n) for n in (*self.matches.only_pred, *self.pred.strangers)]

    @property
    def only_ref(self) -> list[str]:
        """Names of references without an image."""
        return [as_text(n) for n in self.matches.only_ref]


@dataclass
class _Item:
    """What is kept of one image: facts and scores, or its error."""

    match: Match
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str | None = None
    scores: ItemScores = field(default_factory=ItemScores)


def score(request: Request, *, title: str = "score") -> dict[str, Any]:
    """Score a folder of images against a folder of references (``ref``) or a dataset's (``data``).

    Returns
    -------
    the document, whose ``failed`` names the images that have an error; equal inputs give an equal document.

    Raises
    ------
    RfbenchError
        Before anything is computed: options that contradict each other, a folder without images, no match at all,
        pictures without a known white.
    """
    _check(request)
    plan = _against_folder(request) if request.data is None else _against_dataset(request)
    names, skipped = choose_metrics(request.metrics, plan.setting, strict=request.strict)
    if request.strict and (plan.only_pred or plan.only_ref):
        raise RfbenchError(
            f"--strict: found names without a partner ({len(plan.only_pred)} of images, {len(plan.only_ref)} of "
            f"references), first {some([*plan.only_pred, *plan.only_ref], 1)}; add or remove them"
        )
    computed = {n: built(n, plan.setting).identity() for n in names if n not in skipped}
    if plan.setting.device != "cpu":
        provenance.deterministic()
    with tempfile.TemporaryDirectory(prefix="rfbench-") as place:
        spill = Spill(Path(place))
        items = _score_all(plan, computed, _workers(request, len(plan.matches.both)), title, spill)
        return _document(plan, names, skipped, items, spill)


_GOES_WITH = {"--ref": ("ref_scale", "border_px", "quantise"), "--data": ("split", "protocol")}
_INSTEAD = {
    "--ref": "leave it out (two folders of pictures have neither split nor protocol; --border-px cuts a border)",
    "--data": "leave it out (the dataset says what its numbers mean; --protocol paired:border_px=4,quantise=none)",
}


def _check(request: Request) -> None:
    if (request.ref is None) == (request.data is None):
        found = "neither --ref nor --data" if request.ref is None else "both --ref and --data"
        raise RfbenchError(
            f"found {found}, expected one of them: --ref DIR for a folder of references, --data DIR for a dataset's"
        )
    chosen(request.metrics)  # a name that is misspelt is told before any file is read
    given = "--data" if request.ref is None else "--ref"
    for option, names in _GOES_WITH.items():
        for name in names if option != given else ():
            if getattr(request, name) is not None:
                raise RfbenchError(f"--{name.replace('_', '-')} goes with {option}, found {given}; {_INSTEAD[given]}")
    if request.unit != "display" and request.ref is not None:
        raise RfbenchError(
            f"--unit {request.unit} goes with --data, whose dataset says how it is displayed; with --ref both folders "
            "hold pictures"
        )
    for name in ("scale", "ref_scale"):
        value = getattr(request, name)
        if value is not None and not 0 < value < math.inf:
            raise RfbenchError(f"--{name.replace('_', '-')}: found {value:g}, expected a number above 0")
    for name in ("border_px", "workers"):
        value = getattr(request, name)
        if value is not None and value < 0:
            raise RfbenchError(f"--{name.replace('_', '-')}: found {value}, expected 0 or more")


def _workers(request: Request, images: int) -> int:
    if request.workers is not None:
        return request.workers
    return min(usual_workers(predicting=False), images // _A_PROCESS_PAYS_FROM)


def _bands(request: Request, *listings: Listing) -> tuple[str, ...] | None:
    """The names of ``--bands``; RfbenchError where all files have others by their format."""
    if request.sensor is not None:
        band_names.check_sensor(request.sensor)
    if request.bands is None:
        return None
    bands = band_names.parse(request.bands, request.sensor)
    endings = {Path(name).suffix.lower() for found in listings for names in found.files.values() for name in names}
    if len(bands) == len(RGB) and bands != RGB and endings <= {*PICTURES}:
        raise RfbenchError(
            f"--bands {' '.join(bands)}: found PNG and JPEG files alone, whose channels are R G B by their format; "
            "leave it out, or write other channels as TIFF, npy or npz"
        )
    return bands


def _against_folder(request: Request) -> _Plan:
    assert request.ref is not None
    if request.pred.is_dir() and request.ref.is_dir() and request.pred.resolve() == request.ref.resolve():
        raise RfbenchError("--pred and --ref are one folder, expected two; every image would be held against itself")
    pred, ref = listing(request.pred, "--pred", request.pred_name), listing(request.ref, "--ref")
    bands = _bands(request, pred, ref)
    ref_scale = request.ref_scale if request.ref_scale is not None else request.scale
    quantise = None if request.quantise == "none" else 8
    border = request.border_px or 0
    ours, theirs = (
        Meaning("display", request.scale, bands, sensor=request.sensor),
        Meaning("display", ref_scale, bands, "--ref-scale", request.sensor),
    )
    source = FolderSource(pred, ref, ours, theirs, quantise, border)
    matches = match_folders(pred, ref)
    setting = Setting(resolve_device(request.device), request.weights_dir, quantise, border)
    inputs = {"protocol": {"quantise": quantise, "border_px": border}}
    return _Plan(source, matches, setting, pred, ref, inputs)


def _against_dataset(request: Request) -> _Plan:
    assert request.data is not None
    pred = listing(request.pred, "--pred", request.pred_name)
    protocol, dataset = resolve_protocol(request.protocol or "paired"), resolve_dataset(request.data)
    split = request.split or "test"
    records = {r.id: r for r in dataset.records(split)}
    matches = match_ids(pred, list(records), f"dataset {dataset.name}, split {split}")
    unit: Any = request.unit
    meaning = Meaning(unit, request.scale, _bands(request, pred), sensor=request.sensor)
    source = DatasetSource(pred, meaning, dataset, protocol, records)
    setting = Setting(resolve_device(request.device), request.weights_dir, protocol.quantise, protocol.border_px)
    data = {
        "name": dataset.name,
        "split": split,
        "fingerprint": dataset.fingerprint([records[m.id] for m in matches.both]),
    }
    return _Plan(source, matches, setting, pred, None, {"data": data, "protocol": protocol.identity()})


# --- scoring --------------------------------------------------------------------------------------------------


def _score_one(scorer: Scorer, reference: Reference, estimate: Estimate) -> ItemScores:
    return scorer.score(reference, {"sample": estimate})


def _score_all(plan: _Plan, identities: Mapping[str, str], workers: int, title: str, spill: Spill) -> list[_Item]:
    """Read and score the images one after the other; of what was read only the facts are kept. Sorted by id.

    Features of set metrics go to ``spill``.
    """
    items: dict[str, _Item] = {}
    progress = Progress(len(plan.matches.both), 0, title, ("score",))
    with progress, Scoring[str, ItemScores](identities, plan.setting, workers) as pool:

        def keep(finished: Iterable[tuple[str, ItemScores]]) -> None:
            for image_id, scores in finished:
                spill.take(image_id, scores)
                items[image_id].scores = scores
                progress.advance("score")

        for match in plan.matches.both:
            found = plan.source.load(match)
            if isinstance(found, NeedsOption) and not items:
                raise RfbenchError(str(found))  # most likely true of all images: it is said before any is scored
            if isinstance(found, ItemError):
                items[match.id] = _Item(match, error=one_line(found, 600))
                progress.advance("score")
                continue
            items[match.id] = _Item(match, found.facts, found.notes)
            keep(pool.submit(match.id, _score_one, found.reference, found.estimate))
        keep(pool.drain())
    return [items[match.id] for match in plan.matches.both]


# --- the document ---------------------------------------------------------------------------------------------


def _document(
    plan: _Plan, names: Sequence[str], skipped: Mapping[str, str], items: Sequence[_Item], spill: Spill
) -> dict[str, Any]:
    metrics = {name: built(name, plan.setting) for name in names}
    done = [item for item in items if item.error is None]
    found: dict[str, list[dict[str, Any]]] = {}
    summary, identities = {}, {}
    for name, metric in metrics.items():
        found[name] = [_of_image(item, name, skipped.get(name)) for item in done]
        of_set = None
        if metric.level == "set" and name not in skipped:
            of_set = _reduce(plan, metric, items, found[name], spill)
        cell = summarised(metric, found[name], of_set, skipped.get(name))
        identities[name] = cell.pop("identity")
        summary[name] = cell
        for of_image in found[name]:
            if "value" not in of_image:
                of_image.setdefault("reason", (of_set or {}).get("reason") or OF_THE_SET)
    by_image = {item.match.id: {n: found[n][i] for n in names} for i, item in enumerate(done)}
    described = {name: describe(metric) for name, metric in metrics.items()}
    return {
        "format": FORMAT,
        "images": [_image(item, names, by_image.get(item.match.id)) for item in items],
        "summary": summary,
        "identities": identities,
        "metrics": {n: {k: described[n][k] for k in ("title", "unit", "direction", "group")} for n in names},
        "failed": [as_text(item.match.id) for item in items if item.error is not None],
        "unmatched": {"pred": plan.only_pred, "ref": plan.only_ref},
        "ignored": {"pred": plan.pred.others, "ref": plan.ref.others if plan.ref else 0},
        "inputs": plan.inputs | _hashes(items),
        "software": provenance.software(distributions(names)),
    }


def _of_image(item: _Item, name: str, skipped: str | None) -> dict[str, Any]:
    """An image's ``value`` or ``reason`` of a metric, or neither for one number of the set."""
    if skipped is not None:
        return {"reason": skipped}
    score = item.scores.scores.get("sample", {}).get(name)
    if score is None:
        return {}
    return {"value": score.value} if score.reason is None else {"reason": str(score.reason)}


def _reduce(
    plan: _Plan, metric: Metric, items: Sequence[_Item], found: Sequence[dict[str, Any]], spill: Spill
) -> dict[str, Any] | None:
    """A set metric over the images that have its features; each image's share, if it has one, goes to ``found``."""
    done = [item for item in items if item.error is None]
    features = Kept(spill.load, [item.match.id for item in done], "sample", metric.name)
    if not features:
        return None
    others = _other_references(plan, metric, items, set(features.ids)) if metric.fits_references else []
    of_set, shares = reduced(metric, features, others)
    if shares is not None:
        places = {item.match.id: place for item, place in zip(done, found, strict=True)}
        for image_id, share in zip(features.ids, shares, strict=True):
            places[image_id] |= {"value": share} if share is not None else {}
    return of_set


def _other_references(plan: _Plan, metric: Metric, items: Sequence[_Item], present: set[str]) -> list[Features]:
    """The features of the references whose images have none, so that a fit is the same for whatever was to be scored
    with these names."""
    found = []
    for item in items:
        reference = plan.source.reference(item.match) if item.match.id not in present else None
        if isinstance(reference, Reference):
            features = metric.gather_reference(reference)
            if not isinstance(features, Score):
                found.append(features)
    return found


def _image(item: _Item, names: Sequence[str], found: Mapping[str, dict[str, Any]] | None) -> dict[str, Any]:
    if found is None:  # every metric says why, for a reader who knows scores and reasons alone
        found = {name: {"reason": item.error} for name in names}
    noted = [f"{name}: {s.note}" for name, s in item.scores.scores.get("sample", {}).items() if s.note]
    return {
        "id": as_text(item.match.id),
        "scores": {n: f["value"] for n, f in found.items() if "value" in f},
        "reasons": {n: f["reason"] for n, f in found.items() if "value" not in f},
        "error": item.error,
        "notes": [*map(one_line, item.notes), *noted],
        **item.facts,
    }


def _hashes(items: Sequence[_Item]) -> dict[str, Any]:
    """A fingerprint of each folder's images that were matched: the digest of their names and hashes, by id."""
    sides = {
        "pred": [(item.match.pred, item) for item in items],
        "ref": [(i.match.ref, i) for i in items if i.match.ref],
    }
    return {
        side: {
            "files_sha256": digest(
                [[list(names), item.facts.get("files", {}).get(side, {}).get("sha256")] for names, item in of_side]
            )
        }
        for side, of_side in sides.items()
        if of_side
    }
