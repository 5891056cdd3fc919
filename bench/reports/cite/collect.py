"""From run folders to what a methods section says of them, still as data: pieces of text, identities, licences, works.

Only ``run.json`` and ``summary.json`` are read, so neither the data nor the plugins of a run are needed. All texts in
them are hostile: they are strings here, and every writer escapes them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from bench import weights
from bench.core import registry
from bench.core.errors import RfbenchError, one_line
from bench.core.files import digest
from bench.core.licences import restriction
from bench.metrics.scorer import software_of
from bench.records.folder import RunFolder
from bench.records.run import Run, read_run
from bench.records.types import Cell, MetricRecord
from bench.reports.cite.bibtex import Entry, field_text, library, of_part
from bench.reports.table.build import protocol_label

ALWAYS = ("torch", "numpy")  # every run resamples with the one and computes with the other
NOT_STATED = "not stated; ask its owner before use"


@dataclass(frozen=True)
class Cite:
    """Where a text cites works, by their keys."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    """A text that is set as typed: an option, a hash."""

    text: str


Piece = str | Cite | Code


@dataclass(frozen=True)
class Identity:
    """What a number hangs on: a kind (``metric``), a name, and a signature."""

    kind: str
    name: str
    signature: str


@dataclass(frozen=True)
class Licence:
    """What is used, under which licence, and what that restricts (empty: nothing known)."""

    what: str
    licence: str
    restricts: str


@dataclass(frozen=True)
class Methods:
    """All that ``rfbench cite`` says; the pieces make one paragraph, ``notes`` are for its author."""

    paragraph: tuple[Piece, ...]
    identities: tuple[Identity, ...]
    licences: tuple[Licence, ...]
    works: tuple[Entry, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Run:
    """A run with what its parts are to be cited by: as it was recorded, or else as the parts are registered here.

    ``of_model`` and ``of_data`` are the recorded ``sources``, whose fields a plugin filled; ``metrics`` by name.
    """

    run: Run
    of_model: Mapping[str, Any]
    of_data: Mapping[str, Any]
    metrics: Mapping[str, MetricRecord]

    @property
    def label(self) -> str:
        return one_line(self.run.plan.model.label or "a model without a name", 80)

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.run.plan.model.spec

    def computed(self) -> list[str]:
        """The metrics that have a value in a row of the run."""
        return [m for m in self.metrics if any(c.value is not None for c in self._cells(m))]

    def identity(self, metric: str) -> str:
        """A computed metric's identity as it stands with the value, with what was fitted on the references."""
        found = next((c.identity for c in self._cells(metric) if c.value is not None), None)
        return one_line(found or self.metrics[metric].identity, 600)

    def reason(self, metric: str) -> str:
        """Why a metric has no value."""
        return next((one_line(c.reason, 200) for c in self._cells(metric) if c.reason), "no value")

    def _cells(self, metric: str) -> list[Cell]:
        return [row.metrics[metric] for row in self.run.summary.rows.values() if metric in row.metrics]


class _Works:
    """The entries in the order in which they are first cited, each key once."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    def cite(self, entries: Iterable[Entry]) -> list[Piece]:
        """A place in the text; nothing where there is no work."""
        keys = [self._key(entry) for entry in entries]
        return [" ", Cite(tuple(dict.fromkeys(keys)))] if keys else []

    def _key(self, entry: Entry) -> str:
        """Two works of one key (a plugin's, say) are told apart by a letter."""
        key = entry.key
        for letter in "abcdefghijklmnopqrstuvwxyz":
            taken = self.entries.get(key) or (library().get(key) if key != "rfbench" else None)
            if taken is None or taken.fields == entry.fields:
                break
            key = entry.key + letter
        self.entries.setdefault(key, Entry(entry.kind, key, entry.fields))
        return key


def collect(folders: Sequence[RunFolder]) -> Methods:
    """What is to be said of runs. RfbenchError for no run and for one that is not finished."""
    if not folders:
        raise RfbenchError("found no run, expected at least one run folder; make one with 'rfbench run'")
    runs = [_read(folder) for folder in folders]
    works = _Works()
    pieces: list[Piece] = []
    for sentence in (
        _software(runs, works),
        _data(runs, works),
        _models(runs, works),
        _draws(runs),
        _scores(runs, works),
    ):
        pieces += [*([" "] if pieces and sentence else []), *sentence]
    return Methods(
        tuple(pieces),
        tuple(dict.fromkeys(_identities(runs))),
        tuple(dict.fromkeys(_licences(runs))),
        tuple(works.entries.values()),
        tuple(dict.fromkeys(_notes(runs))),
    )


def _read(folder: RunFolder) -> _Run:
    run = read_run(folder)
    sources = run.record.sources
    if not sources:
        return _registered(run)
    return _Run(run, _object(sources.get("model")), _object(sources.get("data")), run.metrics)


def _registered(run: Run) -> _Run:
    """A run that recorded no sources, with those of its parts as far as they are registered here."""
    from bench.metrics.scorer import metric_class

    of_model: dict[str, Any] = {}
    of_data: dict[str, Any] = {}
    metrics = dict(run.metrics)
    with suppress(Exception):  # a plugin may be another one by now, or run into anything
        of_model["citation"] = registry.load("models", run.plan.model.spec["name"]).citation
    with suppress(Exception):
        of_data["citation"] = registry.load("datasets", run.plan.data.name)().citation
    for name in (n for n, metric in metrics.items() if not metric.package):
        with suppress(Exception):
            kind = metric_class(name)
            metrics[name] = msgspec.structs.replace(
                metrics[name], citation=kind.citation, package=kind.package, licence=kind.licence
            )
    return _Run(run, of_model, of_data, metrics)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any, limit: int = 200) -> str:
    return one_line(value, limit) if isinstance(value, str | int | float) else ""


# --- the paragraph --------------------------------------------------------------------------------------------


def _and(items: Sequence[list[Piece]]) -> list[Piece]:
    """``a, b and c`` of pieces."""
    joined: list[Piece] = []
    for i, item in enumerate(items):
        joined += [*([" and " if i == len(items) - 1 else ", "] if i else []), *item]
    return joined


def _or(values: Iterable[Any]) -> str:
    return " or ".join(dict.fromkeys(str(v) for v in values))


def _packages(runs: Sequence[_Run]) -> list[str]:
    """The import packages that computed something, the ones of every run first."""
    of_metrics = [_text(run.metrics[name].package, 60) for run in runs for name in run.computed()]
    return list(dict.fromkeys([*ALWAYS, *filter(None, of_metrics)]))


def _works_behind(citation: Any, kind: str, name: str) -> list[Entry]:
    """The works that a part's citation names."""
    return of_part(citation, kind, name) if isinstance(citation, str) else []


def _version(runs: Sequence[_Run], distribution: str) -> str:
    found = [run.run.record.software.packages.get(distribution) for run in runs]
    return _or(_text(v, 40) for v in found if v)


def _software(runs: Sequence[_Run], works: _Works) -> list[Piece]:
    software = [run.run.record.software for run in runs]
    versions = _or(_text(s.rfbench, 40) or "of an unknown version" for s in software)
    commits = _or(
        f"commit {_text(s.commit, 40)[:10]}{' with uncommitted changes' if s.dirty else ''}"
        if s.commit
        else "no commit"
        for s in software
    )
    ours = library()["rfbench"]
    exact = Entry(
        ours.kind, ours.key, tuple((k, f"Version {field_text(versions)}" if k == "note" else v) for k, v in ours.fields)
    )
    ourselves = works.cite([exact])  # first of all works
    python = _or(_text(s.python, 40) for s in software)
    packages: list[list[Piece]] = []
    for name in _packages(runs):
        package = software_of(name)
        version = _version(runs, package.distribution)
        cited = of_part(package.citation, "package", package.distribution)
        packages.append([f"{package.distribution}{f' {version}' if version else ''}", *works.cite(cited)])
    return [
        f"Models were run and scored with rfbench {versions} ({commits})", *ourselves,
        f" under Python {python} with ", *_and(packages), ".",
    ]  # fmt: skip


def _data(runs: Sequence[_Run], works: _Works) -> list[Piece]:
    pieces: list[Piece] = []
    seen = set()
    for run in runs:
        data, protocol = run.run.plan.data, run.run.plan.protocol
        what = digest([data.name, data.split, data.fingerprint, protocol])
        if what in seen:
            continue
        seen.add(what)
        count, licence = len(data.ids), _text(run.run.record.licences.get("data"), 120)
        options = _options({k: v for k, v in protocol.items() if k != "name"})
        cited = _works_behind(run.of_data.get("citation"), "data", _text(data.name, 80))
        pieces += [
            " " if pieces else "",
            f"The images are the {count} of the split {_text(data.split, 60)} of the dataset "
            f"{_text(data.name, 80)}",
            *works.cite(cited),
            " (fingerprint ", Code(_text(data.fingerprint, 80)[:16]), f"; licence {licence or 'not stated'})",
            f", under the protocol {protocol_label(protocol).partition(':')[0]} (", Code(one_line(options, 400)), ").",
        ]  # fmt: skip
    return pieces


def _models(runs: Sequence[_Run], works: _Works) -> list[Piece]:
    items: list[list[Piece]] = []
    for run in runs:
        model, facts = run.run.plan.model, list[list[Piece]]()
        name = _text(run.spec.get("name"), 80)
        if name and name != run.label:
            facts.append(["model ", Code(name)])
        for key, value in model.adapter.items():
            facts.append([f"{_text(key, 40)} ", Code(_short(value))])
        options = _options(model.options)
        if options:
            facts.append([Code(options)])
        if run.spec.get("upstream"):
            commit = _text(run.spec.get("commit"), 40)
            facts.append([_text(run.spec["upstream"], 120), f" at {commit[:12]}" if commit else ""])
        cited = works.cite(_works_behind(run.of_model.get("citation"), "model", run.label))
        inside: list[Piece] = []
        for i, fact in enumerate(facts):
            inside += ["; " if i else " (", *fact]
        items.append([run.label, *cited, *inside, *([")"] if inside else [])])
    arithmetic = _or(f"{_text(r.run.plan.dtype, 20)} on {_text(r.run.plan.device, 20)}" for r in runs)
    verb = "models are" if len(items) > 1 else "model is"
    return [f"The {verb} ", *_and(items), f", computed in {arithmetic}."]


def _options(options: Mapping[str, Any]) -> str:
    """``key=value, key=value`` as they are typed; empty ones are left out."""
    given = {_text(k, 40): "none" if v is None else _text(v, 80) for k, v in options.items()}
    return one_line(", ".join(f"{k}={v}" for k, v in given.items() if v), 400)


def _short(value: Any) -> str:
    """A hash at the length that identifies it to a reader; anything else whole."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text[:16] if re.fullmatch(r"[0-9a-f]{17,}", text) else one_line(text, 120)


def _draws(runs: Sequence[_Run]) -> list[Piece]:
    stochastic = [run for run in runs if run.spec.get("stochastic")]
    seeds = _or(str(run.run.plan.seed) for run in runs)
    if not stochastic:
        return [f"All models are deterministic (run seed {seeds})."]
    draws = _or(str(run.run.plan.draws) for run in stochastic)
    return [
        *_and([[label] for label in dict.fromkeys(run.label for run in stochastic)]),
        f" gave {draws} draws per image with the run seed {seeds}; the noise of a draw depends on the seed, the image's"
        " id and the number of the draw alone. Image metrics score the first draw, metrics of the predictive "
        "distribution all of them; rows called NAME@mean score the mean of the draws.",
    ]


def _scores(runs: Sequence[_Run], works: _Works) -> list[Piece]:
    items: dict[str, list[Piece]] = {}
    for run in runs:
        for name in run.computed():
            metric = run.metrics[name]
            cited = works.cite(_works_behind(metric.citation, "metric", _text(name, 60)))
            package = _text(metric.package, 60)
            by = f" ({software_of(package).distribution})" if package and package not in ALWAYS else ""
            title = _text(metric.title, 60) or _text(name, 60)
            items.setdefault(name, [f"{title}{by}", *cited])
    if not items:
        return ["No metric could be computed."]
    return ["Scores are ", *_and([*items.values()]), "; the identity of each states its definition and parameters."]


# --- lists ----------------------------------------------------------------------------------------------------


def _identities(runs: Sequence[_Run]) -> Iterator[Identity]:
    for run in runs:
        software = run.run.record.software
        commit = _text(software.commit, 40) or "no commit"
        dirty = " with changes" if software.dirty else ""
        yield Identity("software", f"rfbench {_text(software.rfbench, 40)}", f"{commit}{dirty}")
    for run in runs:
        data = run.run.plan.data
        yield Identity("dataset", f"{_text(data.name, 80)}, split {_text(data.split, 40)}", _text(data.fingerprint))
    for run in runs:
        protocol = run.run.plan.protocol
        options = _options({k: v for k, v in protocol.items() if k != "name"})
        yield Identity("protocol", _text(protocol["name"], 60), options)
    for run in runs:
        model, revision = run.run.plan.model, _text(run.spec.get("revision"), 10)
        parts = [f"r{revision}" if revision else "", _options(model.options)]
        parts.append(f"code {model.code}" if model.code else "")
        for key, value in model.adapter.items():
            parts.append(f"{_text(key, 40)} {value if isinstance(value, str) else json.dumps(value, sort_keys=True)}")
        yield Identity("model", run.label, one_line("; ".join(filter(None, parts)), 400))
    for run in runs:
        yield Identity("run", run.label, f"plan {_text(run.run.record.plan_sha256, 64)}")
    for run in runs:
        for name in run.computed():
            yield Identity("metric", _text(name, 60), run.identity(name))


def _licences(runs: Sequence[_Run]) -> Iterator[Licence]:
    def row(what: str, licence: Any) -> Licence:
        text = _text(licence, 160)
        return Licence(one_line(what, 120), text or NOT_STATED, restriction(text))

    yield row("rfbench", "Apache-2.0")
    for run in runs:
        stated, data = run.run.record.licences, run.run.plan.data
        yield row(f"dataset {_text(data.name, 80)}", stated.get("data"))
        of_images = run.of_data.get("licences")
        for licence in of_images if isinstance(of_images, list) else []:
            yield row(f"images of {_text(data.name, 80)}", licence)
    for run in runs:
        yield row(f"model {run.label}", run.run.record.licences.get("model"))
        for file, about in _object(run.spec.get("weights")).items():
            yield row(f"weights {_text(file, 80)} of {run.label}", _object(about).get("licence"))
    for name in _packages(runs):
        package = software_of(name)
        yield row(f"package {package.distribution}", package.licence)
    by_hash = {entry.short_hash: entry for entry in weights.listed().values()}
    for run in runs:
        for name in run.computed():
            if run.metrics[name].licence:
                yield row(f"metric {_text(name, 60)}", run.metrics[name].licence)
            for part in run.metrics[name].identity.split("|"):
                for short in part.removeprefix("w:").split("+") if part.startswith("w:") else []:
                    if short in by_hash:
                        yield row(f"weights {by_hash[short].file}", by_hash[short].licence)


def _notes(runs: Sequence[_Run]) -> Iterator[str]:
    anywhere = {name for run in runs for name in run.computed()}
    for run in runs:
        computed = run.computed()
        for name in run.metrics:
            if name not in anywhere:
                yield f"{_text(name, 60)} was not computed and is not cited: {run.reason(name)}"
            elif name not in computed:
                yield f"{run.label} has no {_text(name, 60)}: {run.reason(name)}"
        failed = run.run.summary.failed
        if failed:
            yield f"{run.label}: {len(failed)} of {len(run.run.plan.data.ids)} images failed and are in no score"
        seen = run.run.record.seen_in_training
        if seen:
            yield f"{run.label}: {seen} of the images were among those it was trained on; say so"
        if not run.run.record.sources:
            yield f"{run.label}: its record names no sources (an older rfbench); works are those of the parts here"
        if not _works_behind(run.of_model.get("citation"), "model", run.label):
            yield f"{run.label}: its spec names no work to cite"
    if any(run.run.record.software.dirty for run in runs):
        yield "made by code with uncommitted changes, which nobody can have again; run it from a commit"
