"""The page of a metric, as its class says it: definition, equation, parameters, range, needs, traps, references.

Nothing is repeated here: the facts are the class's fields and docstring, the references those of ``citations.bib``.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import math
import re
from collections.abc import Iterator
from typing import Any

from bench import weights
from bench.core.errors import RfbenchError, one_line
from bench.metrics.base import Metric
from bench.reports.cite.bibtex import Entry, of_part, plain

FORMAT = 1
_LONGEST = 4000  # characters of a text that comes from a plugin


def metric_page(metric: Metric) -> dict[str, Any]:
    """All that is known of a metric, as JSON takes it.

    ``definition`` holds paragraphs; ``range`` the bounds, null where there is none; ``perfect`` the value of an image
    that equals its reference; ``missing`` why the metric cannot be computed here, or null. ``format`` counts the
    versions of this document.
    """
    kind, why = type(metric), metric.missing()
    low, high = (None if math.isinf(b) else float(b) for b in kind.bounds)
    return {
        "format": FORMAT,
        "name": kind.name,
        "title": one_line(kind.title, 80),
        "summary": one_line(kind.summary, 200),
        "definition": _definition(kind),
        "equation": one_line(kind.equation, 600),
        "parameters": [one_line(p, 120) for p in metric.parameters],
        "identity": one_line(metric.identity(), 600),
        "unit": one_line(kind.unit, 40),
        "range": [low, high],
        "direction": "" if kind.describes else kind.direction,
        "perfect": kind.perfect,
        "symmetric": kind.symmetric,
        "group": kind.group,
        "level": kind.level,
        "needs": [*kind.needs],
        "display": kind.display,
        "masks": kind.masks,
        "min_side_px": kind.min_side_px,
        "min_images": kind.min_images,
        "fits_references": kind.fits_references,
        "package": {"import": kind.package, **_distribution(kind)},
        "library": kind.library.software.distribution if kind.library is not None else None,
        "licence": one_line(kind.licence, 160),
        "weights": [_weights(file) for file in kind.weights_files],
        "source": _section(kind, "Source"),
        "references": [_reference(entry) for entry in of_part(kind.citation, "metric", kind.name)],
        "traps": _section(kind, "Traps"),
        "on_satellite": one_line(kind.on_satellite, _LONGEST),
        "defined_in": f"{kind.__module__}:{kind.__qualname__}",
        "default": kind.default is not None,
        "missing": None if why is None else str(why),
    }


def facts(about: dict[str, Any]) -> list[tuple[str, str]]:
    """What a page says below its definition, in words: a label and a text each, without those that have no text."""
    rows = [
        ("equation", about["equation"]),
        ("parameters", "  ".join(about["parameters"])),
        ("range", _range(about)),
        ("value of", _level(about)),
        ("needs", _needs(about)),
        ("computed by", _computed_by(about)),
        *(("weights", _file(w)) for w in about["weights"]),
        ("licence", about["licence"]),
        ("source", about["source"]),
        *(("reference", _work(r)) for r in about["references"]),
        ("traps", about["traps"]),
        ("on satellite", about["on_satellite"]),
        ("identity", about["identity"]),
        ("defined in", about["defined_in"]),
        ("here", about["missing"] or "can be computed"),
    ]
    return [(label, text) for label, text in rows if text]


# --- docstrings -------------------------------------------------------------------------------------------------------


def _paragraphs(kind: type) -> Iterator[tuple[str, str]]:
    """The paragraphs of a class's own docstring, each with its section: Source, Traps, or none."""
    for block in re.split(r"\n\s*\n", inspect.cleandoc(vars(kind).get("__doc__") or "")):
        text = one_line(block.replace("``", "`"), _LONGEST)
        found = re.match(r"(Source|Traps):\s+", text)
        if text:
            yield (found[1], text[found.end() :]) if found else ("", text)


def _definition(kind: type[Metric]) -> list[str]:
    own = [text for section, text in _paragraphs(kind) if not section]
    return own or [one_line(kind.summary, 200)]


def _section(kind: type[Metric], name: str) -> str:
    """The section's text, the class's own or the nearest base's: a variant has the traps of what it varies."""
    for base in kind.__mro__:
        if base is Metric:
            break
        own = [text for section, text in _paragraphs(base) if section == name]
        if own:
            return " ".join(own)
    return ""


# --- what it is made of -----------------------------------------------------------------------------------------------


def _distribution(kind: type[Metric]) -> dict[str, str | None]:
    """The distribution that brings a metric's package, and its version; None where it is not installed."""
    for software in kind.software[:1]:
        try:
            return {"name": software.distribution, "version": importlib.metadata.version(software.distribution)}
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"name": None, "version": None}


def _weights(file: str) -> dict[str, Any]:
    try:
        entry = weights.entry_of(file)
    except RfbenchError as error:
        return {"file": one_line(file, 100), "error": str(error)}
    return {"file": entry.file, "bytes": entry.bytes, "sha256": entry.sha256, "licence": entry.licence}


def _reference(entry: Entry) -> dict[str, str]:
    """A work: who and when, title, where, and its DOI, arXiv number or address."""
    places = (entry.field(f) for f in ("journal", "booktitle", "publisher", "howpublished", "note"))
    eprint = entry.field("eprint")
    return {
        "key": entry.key,
        "authors": entry.shown(),
        "title": plain(entry.field("title")),
        "where": next((plain(p) for p in places if p), ""),
        "doi": one_line(entry.field("doi"), 120),
        "arxiv": one_line(eprint, 40) if eprint else "",
        "url": one_line(entry.field("url"), 200),
    }


# --- in words --------------------------------------------------------------------------------------------------------


def _range(about: dict[str, Any]) -> str:
    low, high = about["range"]
    unit = f" ({about['unit']})" if about["unit"] else ""
    if low is None and high is None:
        bounds = "not bounded"
    elif high is None:
        bounds = f"{low:.4g} and above"
    elif low is None:
        bounds = f"up to {high:.4g}"
    else:
        bounds = f"{low:.4g} to {high:.4g}"
    better = {"up": ["higher is better"], "down": ["lower is better"]}
    texts = [bounds + unit, *better.get(about["direction"], ["neither more nor less is better by itself"])]
    if about["perfect"] is not None:
        texts.append(f"{about['perfect']:g} for an image that equals its reference")
    if about["symmetric"] is not None:
        texts.append("symmetric" if about["symmetric"] else "not symmetric")
    return "; ".join(texts)


def _level(about: dict[str, Any]) -> str:
    if about["level"] == "image":
        return "an image; of a set the mean over its images"
    fit = ", whose references it is fitted on" if about["fits_references"] else ""
    return f"a set of at least {about['min_images']} image{'s' * (about['min_images'] > 1)}{fit}"


_NEEDS = {
    "reference": "a reference",
    "distribution": "a predictive distribution (draws, or mean and deviation)",
    "lr": "the LR image",
    "pan": "the panchromatic image",
    "mask": "the dataset's mask",
    "reflectance": "reflectance on both sides",
}


def _needs(about: dict[str, Any]) -> str:
    texts = [_NEEDS.get(n, n) for n in about["needs"]] or ["no reference"]
    if about["min_side_px"] > 1:
        texts.append(f"{about['min_side_px']} px on the shorter side")
    texts.append("display images rounded as the protocol says" if about["display"] else "values before rounding")
    texts.append("pixels without data are left out" if about["masks"] else "an image without missing pixels")
    return "; ".join(texts)


def _computed_by(about: dict[str, Any]) -> str:
    package = about["package"]
    here = package["import"] if package["version"] is None else f"{package['name']} {package['version']}"
    return f"{here}, as {about['library']} has it" if about["library"] else here


def _file(file: dict[str, Any]) -> str:
    if "error" in file:
        return f"{file['file']}: {file['error']}"
    known = f"sha256 {file['sha256'][:16]}" if file["sha256"] else "without a published hash"
    return f"{file['file']}, {weights.megabytes(file['bytes'])}, {known}, {file['licence']}"


def _work(work: dict[str, str]) -> str:
    ends = f"doi:{work['doi']}" if work["doi"] else f"arXiv:{work['arxiv']}" if work["arxiv"] else work["url"]
    return ", ".join(t for t in (work["authors"], work["title"], work["where"], ends) if t)
