"""The plan of a run: everything that is decided, checked and written down before the first image is touched."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.core import provenance, registry
from bench.core.contain import PluginFailed
from bench.core.device import resolve_devices
from bench.core.errors import RfbenchError, Unavailable, one_line
from bench.core.files import digest, id_hash, safe_name
from bench.core.typed import decode, encode
from bench.data.bands import parse
from bench.data.captions import with_captions
from bench.data.dataset import Dataset, Record
from bench.data.find import resolve_dataset
from bench.models.call import Model, unfit
from bench.models.spec import ModelSpec
from bench.protocols.base import Protocol
from bench.protocols.find import resolve_protocol
from bench.records.folder import SUPERSEDED, RunFolder
from bench.records.run import differences
from bench.records.types import FORMAT, DataRecord, ModelRecord, Plan, RunRecord, Software

REVISION = 1
"""Raised whenever our own part (readers, protocols, the model call) moves a pixel of a prediction; part of every plan.
``tests/unit/test_pixels.py`` fails when it should have been."""

DTYPES = ("float32", "float16", "bfloat16")
SHARDS = ".shards"
"""Ends the name of the folder beside a run that its parts lie in."""
_CODE = ("model.code", "revision")
"""What differs between two plans of one command where nothing but code has changed."""


class NotReady(Unavailable):
    """No model can run here, or not all of them where that was asked for; ``reasons`` has a line for each."""

    def __init__(self, reasons: Sequence[str], asked: int) -> None:
        more = f" ({len(reasons)} of {asked} models are not ready)" if asked > 1 else ""
        super().__init__(reasons[0] + more)
        self.reasons = tuple(reasons)


@dataclass(frozen=True)
class Request:
    """What the user asked to be predicted; the fields are the options of ``rfbench predict``.

    Attributes
    ----------
    dtype, batch_size, draws : of models that do not say otherwise themselves. ``batch_size`` "auto" is the largest that
        fits on a device, and 1 on a processor.
    device : ``auto``, ``cpu``, ``cuda``, ``cuda:N``, or several GPUs of one kind with commas between.
    is_remote : the models run on other machines, which may have the device that this one lacks.
    workers : how many processes predict on a processor, this one among them (0: this one alone); None lets the work
        and the machine decide.
    shard : (i, n) for the i-th of n parts of the batches, counted from 1; ``rfbench merge`` puts them together.
    """

    models: tuple[str, ...]
    protocol: str = "paired"
    data: str = "scenes"
    split: str = "test"
    device: str = "auto"
    dtype: str = "float32"
    batch_size: int | str = 1
    workers: int | None = None
    draws: int = 4
    seed: int = 0
    limit: int | None = None
    strict: bool = False
    allow_train: bool = False
    weights_dir: Path | None = None
    out: Path | None = None
    fresh: bool = False
    shard: tuple[int, int] | None = None
    is_remote: bool = False


@dataclass(frozen=True)
class Prepared:
    """A request made definite: models are constructed (not loaded), data are hashed.

    Attributes
    ----------
    not_ready : the models that were left out, since they lack packages, weights or bands or could not be made: reasons
        by label.
    devices : all that predict; ``device`` is the first.
    runs, folders : what each model's ``run.json`` will say and where it will lie, by label.
    """

    request: Request
    models: tuple[Model, ...]
    protocol: Protocol
    dataset: Dataset
    records: tuple[Record, ...]
    device: str
    not_ready: dict[str, str] = field(default_factory=dict)
    runs: dict[str, RunRecord] = field(default_factory=dict)
    folders: dict[str, RunFolder] = field(default_factory=dict)
    devices: tuple[str, ...] = ()

    def batches(self, size: int) -> list[tuple[Record, ...]]:
        """The records in batches of ``size``: fixed by the plan, so that a resumed run has the same ones. Of a shard
        every n-th batch, so that each has its share of long and short work."""
        whole = [self.records[i : i + size] for i in range(0, len(self.records), size)]
        if self.request.shard is None:
            return whole
        i, n = self.request.shard
        return whole[i - 1 :: n]


def make_plan(request: Request) -> Prepared:
    """Check a request and make it definite. Raises RfbenchError before anything is computed or written."""
    _check_numbers(request)
    # A plugin may change the working folder: what lies on disk is found by its whole path from here on.
    out = request.out.absolute() if request.out is not None else None
    devices = (request.device,) if request.is_remote else resolve_devices(request.device)
    device = devices[0]
    protocol = resolve_protocol(request.protocol)
    dataset = with_captions(resolve_dataset(request.data), protocol.captions)
    records = tuple(sorted(dataset.records(request.split), key=lambda r: r.id)[: request.limit])
    models, not_ready = _made(request, device)
    for model in models:
        model.fit_to(dataset, request.split, protocol)
    _tell_apart(models)
    seen = {m.label: _seen_in_training(m, records, request) for m in models}
    models, more = _ready(models, protocol, records)
    not_ready |= more
    if not_ready and (request.strict or not models):
        raise NotReady([*not_ready.values()], len(request.models))
    data = DataRecord(
        name=dataset.name,
        split=request.split,
        fingerprint=dataset.fingerprint(records),
        ids=tuple(r.id for r in records),
    )
    software = decode(provenance.software(), Software, "software")
    runs, folders = {}, {}
    for model in models:
        plan = Plan(
            model=decode({"label": model.label} | model.identity(), ModelRecord, f"model {model.label}"),
            protocol=protocol.identity(),
            data=data,
            seed=request.seed,
            draws=model.draws,
            dtype=model.dtype,
            device=device.partition(":")[0],
            batch_size=model.batch_size,
            revision=REVISION,
        )
        key = plan_digest(plan)
        runs[model.label] = RunRecord(
            format=FORMAT,
            plan=plan,
            plan_sha256=key,
            software=software,
            command=_command(model, request, allow_train=seen[model.label] > 0),
            licences=_licences(model.spec, dataset),
            unlike_paper=_unlike_paper(model.spec),
            sources=_sources(model, dataset, records),
            allow_train=request.allow_train,
            seen_in_training=seen[model.label] if request.allow_train else 0,
        )
        stem = f"{model.label}-{protocol.name}-{dataset.name}"
        named = safe_name(model.label) if out is not None else safe_name(f"{stem}-{key[:10]}")
        place = (out or Path("runs").absolute()) / named
        folders[model.label] = RunFolder(shard_place(place, *request.shard) if request.shard else place)
    return Prepared(request, models, protocol, dataset, records, device, not_ready, runs, folders, devices)


def shard_place(place: Path, i: int, n: int) -> Path:
    """Where the i-th of n parts of the run at ``place`` lies: beside it, for the run itself is made by merging."""
    return place.with_name(place.name + SHARDS) / f"{i}-of-{n}"


def plan_digest(plan: Plan) -> str:
    """The key of a run's predictions: the hash of its plan, without what is only shown."""
    found = encode(plan)
    return digest({**found, "model": {k: v for k, v in found["model"].items() if k != "label"}})


def make_room(folder: RunFolder, record: RunRecord, *, fresh: bool = False) -> None:
    """Leave a folder free, or with a run of the very same plan in it.

    What another version of the code predicted is set aside, as is what no one can read, and all where ``fresh``; a line
    says so.

    Raises
    ------
    RfbenchError
        The folder holds a run that differs in more than code.
    """
    for other in [folder] if folder.is_run else _of_other_code(folder, record):
        if other is folder and other.is_half_made:
            _set_aside(other, record, "its run.json cannot be read")
            continue
        theirs = other.record()
        if theirs.plan_sha256 == record.plan_sha256 and not other.is_format1 and not fresh:
            continue
        what = differences(theirs.plan, record.plan, "it has", "asked for")
        what = [line for line in what if not line.startswith("model.label")]
        only_code = all(line.startswith(_CODE) for line in what) or other.is_format1
        if not (only_code or fresh):
            raise RfbenchError(
                f"{other.path} holds a run with other options ({'; '.join(what[:3])}); choose another --out"
            )
        why = (
            "--fresh begins anew"
            if fresh
            else "an earlier version of rfbench made it"
            if other.is_format1 or all(line.startswith("revision") for line in what)
            else "its code has changed"
        )
        _set_aside(other, record, why)


def _set_aside(run: RunFolder, record: RunRecord, why: str) -> None:
    place = run.set_aside()
    print(
        f"{record.plan.model.label}: predicted anew, since {why}; the old run lies in {one_line(place, 160)} until "
        "'rfbench runs prune'",
        file=sys.stderr,
    )


def _of_other_code(folder: RunFolder, record: RunRecord) -> list[RunFolder]:
    """The runs beside a folder that is named by its key which differ from the run that will lie in it by code alone."""
    stem, dash, key = folder.path.name.rpartition("-")
    if not dash or key != record.plan_sha256[:10] or folder.path.parent.name == SUPERSEDED:
        return []
    found = []
    for path in sorted(folder.path.parent.glob(f"{stem}-*/run.json")):
        other = RunFolder(path.parent)
        try:
            theirs = other.record()
        except RfbenchError:
            continue  # broken runs of others are theirs to mend
        what = differences(theirs.plan, record.plan, "", "")
        if what and all(line.startswith(_CODE) for line in what):
            found.append(other)
    return found


def _made(request: Request, device: str) -> tuple[tuple[Model, ...], dict[str, str]]:
    """The models, constructed, and those whose own code failed at it. A user's mistake (an unknown model or option) is
    an error whatever the other models are."""
    models, failed = [], dict[str, str]()
    batch_size = 0 if request.batch_size == "auto" else int(request.batch_size)
    for text in request.models:
        try:
            model = Model(
                text, device=device, dtype=request.dtype, draws=request.draws, batch_size=batch_size,
                weights_dir=request.weights_dir,
            )  # fmt: skip
        except PluginFailed as error:
            failed[text] = str(error)
            continue
        if device == "cpu" and not model.batch_size:
            model.batch_size = 1  # a processor gains nothing from more
        if not model.batch_size and (request.shard is not None or request.is_remote):
            raise RfbenchError(
                f"model {model.label}: found the batch size auto with --shard or on a cluster, whose batches must be "
                "known beforehand; give a number"
            )
        models.append(model)
    return tuple(models), failed


def _tell_apart(models: Sequence[Model]) -> None:
    """Give models of one label what tells them apart: the last words of the options that differ."""
    labels = [m.label for m in models]
    for label in {one for one in labels if labels.count(one) > 1}:
        alike = [m for m in models if m.label == label]
        names = [k for k in alike[0].options if len({m.options.get(k) for m in alike}) > 1]
        for model in alike:
            words = [Path(model.options[k]).name for k in names if model.options.get(k)]
            words += [
                f"{what}={getattr(model, name)}"
                for what, name in (("dtype", "dtype"), ("draws", "draws"), ("batch", "batch_size"))
                if len({getattr(m, name) for m in alike}) > 1
            ]
            model.label = one_line(f"{label} {' '.join(words)}".strip(), 60)
        if len({m.label for m in alike}) < len(alike):
            raise RfbenchError(
                f"two models would both be called '{label}'; name one otherwise ({alike[0].spec.name}:label=NAME) or "
                "leave it out"
            )


def _ready(
    models: Sequence[Model], protocol: Protocol, records: Sequence[Record]
) -> tuple[tuple[Model, ...], dict[str, str]]:
    """The models that can run here, and why the others cannot."""
    reasons: dict[str, str] = {}
    for model in models:
        try:
            model.check_ready()
        except (Unavailable, PluginFailed) as error:
            reasons[model.label] = str(error)
            continue
        why = _unfit(model, protocol, records)
        if why:
            reasons[model.label] = f"model {model.label}: {why}"
    return tuple(m for m in models if m.label not in reasons), reasons


def _unfit(model: Model, protocol: Protocol, records: Sequence[Record]) -> str:
    """Why a model of reflectance can take none of the images, as far as their manifest says; empty where it may."""
    if model.spec.unit != "reflectance":
        return ""
    reasons = set()
    for record in records:
        side = record.sides.get(protocol.lr_from)
        if side is None:
            return ""
        reasons.add(unfit(model.spec, parse(side.bands) if side.bands else None, side.unit))
    return min(reasons, default="")


def _check_numbers(request: Request) -> None:
    if not request.models:
        raise RfbenchError("no model was named; give --model NAME ('rfbench ls models' lists them)")
    limits = {"batch_size": 1, "draws": 1, "limit": 1, "workers": 0, "seed": 0}
    for name, least in limits.items():
        value = getattr(request, name)
        if value is not None and value != "auto" and value < least:
            raise RfbenchError(f"--{name.replace('_', '-')}: found {value}, expected {least} or more")
    if request.shard is not None and not 1 <= request.shard[0] <= request.shard[1]:
        i, n = request.shard
        raise RfbenchError(f"--shard: found {i}/{n}, expected I/N with I from 1 to N, such as 1/3")
    if request.dtype not in DTYPES:
        raise RfbenchError(f"--dtype: found '{request.dtype}', expected one of {', '.join(DTYPES)}")


def _seen_in_training(model: Model, records: Sequence[Record], request: Request) -> int:
    """How many of the images the model was trained on, as far as it says; RfbenchError for one that is not allowed."""
    known = model.training_ids or frozenset()
    hits = [r.id for r in records if id_hash(r.id) in known]
    if hits and not request.allow_train:
        some = ", ".join(one_line(i, 60) for i in hits[:3]) + (", ..." if len(hits) > 3 else "")
        raise RfbenchError(
            f"{model.label} was trained on {len(hits)} of these {len(records)} images ({some}), so its scores would "
            "say nothing about new ones; choose another --split or --data, or insist with --allow-train"
        )
    return len(hits)


def _unlike_paper(spec: ModelSpec) -> str:
    """Why the model is another thing than the system of its name in the paper; empty where it is not known to be."""
    anew = f"written anew ({spec.reimplementation})" if spec.reimplementation else ""
    return one_line("; ".join(filter(None, (spec.unlike_paper, anew))))


def _sources(model: Model, dataset: Dataset, records: Sequence[Record]) -> dict[str, Any]:
    """Whose work a run is made of, for ``rfbench cite``: it may be read where data and plugins are not."""
    return {
        "data": {"citation": dataset.citation, "licences": sorted({r.licence for r in records if r.licence})},
        "model": {"citation": model.spec.citation},
    }


def _licences(spec: ModelSpec, dataset: Dataset) -> dict[str, str]:
    """Under what a run's images and model are; the files that the model loads may be under another licence."""
    found = {"data": dataset.licence, "model": spec.licence}
    of_files = dict.fromkeys(str(entry.get("licence") or "not stated") for entry in spec.weights.values())
    return found | ({"weights": "; ".join(of_files)} if of_files else {})


def _command(model: Model, request: Request, *, allow_train: bool) -> str:
    """A command that makes this run again, without the paths of a machine."""
    options = ",".join(
        f"{k}={'DIR' if k in model.spec.path_options else v}"
        for k, v in model.options.items()
        if v != model.spec.default_options.get(k)
    )
    words = ["rfbench run", f"--model {model.spec.name}{':' + options if options else ''}"]
    words.append(f"--protocol {request.protocol}")
    words.append(f"--data {request.data if request.data in registry.points('datasets') else 'DIR'}")
    defaults = {f.name: f.default for f in dataclasses.fields(Request)}
    asked = {name: getattr(request, name) for name in ("split", "dtype", "batch_size", "draws", "seed", "limit")}
    asked |= {"dtype": model.dtype, "draws": model.draws, "batch_size": model.batch_size or "auto"}
    for name, value in asked.items():
        if value != defaults[name]:
            words.append(f"--{name.replace('_', '-')} {value}")
    if allow_train:
        words.append("--allow-train")
    return " ".join(words)
