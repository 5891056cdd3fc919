"""The plan of a run: everything that is decided, checked and written down before the first image is touched."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.core import provenance, registry
from bench.core.errors import RfbenchError, Unavailable, one_line
from bench.core.files import id_hash, safe_name
from bench.core.options import build, split_spec
from bench.core.reason import Reason
from bench.data.bands import parse
from bench.data.captions import with_captions
from bench.data.dataset import Dataset, FolderDataset, Record
from bench.metrics import scorer
from bench.metrics.base import Metric, Setting
from bench.models.call import Model, unfit
from bench.models.spec import ModelSpec
from bench.protocols.base import Protocol
from bench.records.folder import FORMAT, plan_digest

DTYPES = ("float32", "float16", "bfloat16")
SLOW = "takes minutes an image on a processor"
"""How the reason begins why a metric is left out that could be computed."""


class NotReady(Unavailable):
    """Models lack packages, weights or bands, and nothing is computed; ``reasons`` has a line for each."""

    def __init__(self, reasons: Sequence[str], asked: int) -> None:
        more = f" ({len(reasons)} of {asked} models are not ready)" if asked > 1 else ""
        super().__init__(reasons[0] + more)
        self.reasons = tuple(reasons)


@dataclass(frozen=True)
class Request:
    """What the user asked for; the fields are the options of ``rfbench run``."""

    models: tuple[str, ...]
    protocol: str = "paired"
    data: str = "scenes"
    split: str = "test"
    metrics: tuple[str, ...] | None = None
    device: str = "auto"
    dtype: str = "float32"
    batch_size: int = 1
    workers: int | None = None
    draws: int = 4
    seed: int = 0
    limit: int | None = None
    strict: bool = False
    allow_train: bool = False
    weights_dir: Path | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Plan:
    """A request made definite: models are constructed (not loaded), data are hashed, metrics are checked.

    ``not_ready`` has the models that were left out since they lack packages, weights or bands: reasons by label.
    """

    request: Request
    models: tuple[Model, ...]
    protocol: Protocol
    dataset: Dataset
    records: tuple[Record, ...]
    metrics: tuple[str, ...]
    skipped: dict[str, str]
    setting: Setting
    device: str
    not_ready: dict[str, str] = field(default_factory=dict)
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    folders: dict[str, Path] = field(default_factory=dict)

    @property
    def computed_metrics(self) -> tuple[str, ...]:
        """The metrics that can be computed here; the others are reasons."""
        return tuple(m for m in self.metrics if m not in self.skipped)

    @property
    def identities(self) -> dict[str, str]:
        """The identity of each metric that can be computed here, by name."""
        planned = next(iter(self.runs.values()))["plan"]["metrics"]
        return {name: planned[name]["identity"] for name in self.computed_metrics}

    def batches(self) -> list[tuple[Record, ...]]:
        """The records in batches: fixed by the plan, so that a resumed run has the same ones."""
        n = self.request.batch_size
        return [self.records[i : i + n] for i in range(0, len(self.records), n)]


def make_plan(request: Request) -> Plan:
    """Check a request and make it definite. Raises RfbenchError before anything is computed or written."""
    _check_numbers(request)
    device = resolve_device(request.device)
    protocol = resolve_protocol(request.protocol)
    dataset = with_captions(resolve_dataset(request.data), protocol.captions)
    records = tuple(sorted(dataset.records(request.split), key=lambda r: r.id)[: request.limit])
    models = tuple(
        Model(text, device=device, dtype=request.dtype, weights_dir=request.weights_dir) for text in request.models
    )
    for model in models:
        model.fit_to(dataset, request.split, protocol)
    labels = [m.label for m in models]
    for label in labels:
        if labels.count(label) > 1:
            raise RfbenchError(
                f"two models would both be called '{label}'; name one otherwise (files:label=NAME) or leave it out"
            )
    seen = {m.label: _seen_in_training(m, records, request) for m in models}
    models, not_ready = _ready(models, protocol, records, strict=request.strict)
    setting = Setting(device, request.weights_dir, protocol.quantise, protocol.border_px)
    names, skipped = choose_metrics(request.metrics, setting, strict=request.strict)
    data = {
        "name": dataset.name,
        "split": request.split,
        "fingerprint": dataset.fingerprint(records),
        "ids": [r.id for r in records],
    }
    shared = {
        "protocol": protocol.identity(),
        "data": data,
        "metrics": {name: describe(scorer.built(name, setting), skipped.get(name)) for name in names},
        "seed": request.seed,
        "draws": request.draws,
        "dtype": request.dtype,
        "device": device.partition(":")[0],
        "batch_size": request.batch_size,
    }
    software = provenance.software(scorer.distributions(names))
    runs, folders = {}, {}
    for model in models:
        # As JSON gives it back, so that a plan read from a run folder compares equal.
        plan = json.loads(json.dumps({"model": model.identity(), **shared}))
        digest = plan_digest(plan)
        runs[model.label] = {
            "format": FORMAT,
            "plan": plan,
            "plan_sha256": digest,
            "software": software,
            "command": _command(model, request, allow_train=seen[model.label] > 0),
            "licences": {"data": dataset.licence, "model": model.spec.licence},
            "unlike_paper": _unlike_paper(model.spec),
            "sources": _sources(model, dataset, records, [scorer.metric_class(n) for n in names]),
        }
        if request.allow_train:
            runs[model.label] |= {"allow_train": True, "seen_in_training": seen[model.label]}
        name = f"{model.label}-{protocol.name}-{dataset.name}-{digest[:10]}"
        folders[model.label] = (
            request.out / safe_name(model.label) if request.out is not None else Path("runs") / safe_name(name)
        )
    return Plan(request, models, protocol, dataset, records, names, skipped, setting, device, not_ready, runs, folders)


def _ready(
    models: Sequence[Model], protocol: Protocol, records: Sequence[Record], *, strict: bool
) -> tuple[tuple[Model, ...], dict[str, str]]:
    """The models that can run here, and the others with the reason; NotReady if there are others and ``strict``, or
    nothing else."""
    reasons: dict[str, str] = {}
    for model in models:
        try:
            model.check_ready()
        except Unavailable as error:
            reasons[model.label] = str(error)
            continue
        why = _unfit(model, protocol, records)
        if why:
            reasons[model.label] = f"model {model.label}: {why}"
    if reasons and (strict or len(reasons) == len(models)):
        raise NotReady([*reasons.values()], len(models))
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
        if value is not None and value < least:
            raise RfbenchError(f"--{name.replace('_', '-')}: found {value}, expected {least} or more")
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


def resolve_device(name: str) -> str:
    """``auto`` is a GPU where there is one; RfbenchError for a device that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = name.partition(":")[0]
    if name != "cpu" and kind != "cuda":
        raise RfbenchError(f"--device: found '{name}', expected auto, cpu, cuda or cuda:N")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        index = name.partition(":")[2] or "0"
        if not index.isdigit() or int(index) >= count:
            raise RfbenchError(f"--device {name}: this machine has {count} usable CUDA devices; use --device cpu")
    return name


def resolve_protocol(text: str) -> Protocol:
    """The protocol that ``NAME[:key=value,...]`` stands for."""
    name, options = split_spec(text)
    found = registry.load("protocols", name)
    if not (isinstance(found, type) and issubclass(found, Protocol)):
        raise RfbenchError(f"the protocol '{name}' registers no subclass of bench.protocols.base.Protocol")
    return build(found, options, what=f"protocol {name}")


def resolve_dataset(text: str) -> Dataset:
    """A registered name, or a dataset folder (``./scenes`` is a folder, ``scenes`` the embedded benchmark)."""
    registered = text in registry.points("datasets")
    if not registered and os.path.exists(text):  # noqa: PTH110 - False for a name that no file can have
        return FolderDataset(Path(text))
    if not registered and ("/" in text or "." in text):
        raise RfbenchError(f"--data: {text} does not exist; give a dataset folder or a name of 'rfbench ls datasets'")
    found = registry.load("datasets", text)()
    if not isinstance(found, Dataset):
        raise RfbenchError(
            f"the dataset '{text}' gives a {type(found).__name__}, expected a bench.data.dataset.Dataset"
        )
    return found


def choose_metrics(
    asked: Sequence[str] | None, setting: Setting, *, strict: bool = False
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The metrics of ``--metrics``, and which of them cannot, or shall not, be computed here, with the reason.

    RfbenchError for an unknown name and, with ``strict``, for the first that cannot be computed.
    """
    if asked is not None and not asked:
        raise RfbenchError("--metrics: found no name, expected some, such as default,niqe_ref")
    names = scorer.chosen(asked)
    skipped = _skipped(names, asked or (), setting)
    if strict and skipped:
        name, why = next(iter(skipped.items()))
        raise RfbenchError(f"--strict: {len(skipped)} of {len(names)} metrics cannot be computed, first {name}: {why}")
    return names, skipped


def _skipped(names: Sequence[str], asked: Sequence[str], setting: Setting) -> dict[str, str]:
    """The metrics that cannot, or shall not, be computed here, with the reason."""
    found = {}
    for name in names:
        metric = scorer.built(name, setting)
        why = metric.missing()
        if why is None and metric.slow_on_cpu and name not in asked and setting.device == "cpu":
            why = Reason("slow", SLOW, f"ask for it with --metrics default,{name}")
        if why is not None:
            found[name] = str(why)
    return found


def describe(metric: Metric, missing: str | None = None) -> dict[str, Any]:
    """What tables need to know of a metric."""
    return {
        "identity": metric.identity(),
        "title": metric.title,
        "unit": metric.unit,
        "direction": metric.direction,
        "group": metric.group,
        "missing": missing,
    }


def _unlike_paper(spec: ModelSpec) -> str:
    """Why the model is another thing than the system of its name in the paper; empty where it is not known to be."""
    anew = f"written anew ({spec.reimplementation})" if spec.reimplementation else ""
    return one_line("; ".join(filter(None, (spec.unlike_paper, anew))))


def _sources(
    model: Model, dataset: Dataset, records: Sequence[Record], metrics: Sequence[type[Metric]]
) -> dict[str, Any]:
    """Whose work a run is made of, for ``rfbench cite``: it may be read where data and plugins are not."""
    return {
        "data": {"citation": dataset.citation, "licences": sorted({r.licence for r in records if r.licence})},
        "model": {"citation": model.spec.citation},
        "metrics": {m.name: {"citation": m.citation, "package": m.package, "licence": m.licence} for m in metrics},
    }


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
    defaults = Request(models=())
    for name in ("split", "dtype", "batch_size", "draws", "seed", "limit"):
        if getattr(request, name) != getattr(defaults, name):
            words.append(f"--{name.replace('_', '-')} {getattr(request, name)}")
    if allow_train:
        words.append("--allow-train")
    if request.metrics:
        words.append(f"--metrics {','.join(request.metrics)}")
    return " ".join(words)
