"""Weights, the metrics that need them, and the licences that restrict use."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from bench.core.errors import RfbenchError, one_line
from bench.doctor.line import Line


def weights_folders(weights_dir: Path | None) -> Iterator[Line]:
    """The folders in which files are looked for."""
    from bench import weights

    for folder in weights.folders(weights_dir):
        if folder.is_dir():
            files = [p for p in folder.iterdir() if p.name in weights.listed()]
            yield Line("weights", "ok", f"{folder}: {len(files)} of {len(weights.listed())} listed files")
        elif folder.exists():
            yield Line("weights", "problem", f"{folder} is a file, expected a folder", f"mv '{folder}' elsewhere")
        elif os.environ.get(weights.ENVIRONMENT_VARIABLE) == str(folder):
            text = f"{folder}, named by {weights.ENVIRONMENT_VARIABLE}, does not exist"
            yield Line("weights", "note", text, f"mkdir -p '{folder}'")
        else:
            yield Line("weights", "ok", f"{folder}: not there yet")


def metrics(weights_dir: Path | None) -> Iterator[Line]:
    """What each metric lacks here."""
    from bench import weights
    from bench.core import registry
    from bench.metrics.base import Setting
    from bench.metrics.scorer import metric_class

    ready = []
    for name in registry.names("metrics"):
        try:
            kind = metric_class(name)
        except RfbenchError:
            continue  # a broken plugin, told above
        try:
            metric = kind(Setting(weights_dir=weights_dir))
            why, files = metric.missing(), metric.lacking_weights()
        except Exception as error:  # a plugin's metric; the report goes on
            yield Line("metrics", "problem", f"{name}: {error}", f"rfbench check metric {one_line(name, 60)}")
            continue
        if why is None:
            ready.append(name)
            continue
        if files:
            wrong = any(weights.places(weights.entry_of(file), weights_dir) for file in files)
            remedy = f"rfbench weights fetch --metrics {name}"
            yield Line("metrics", "problem" if wrong else "note", f"{name}: {why}", remedy)
        else:
            remedy = "pip install 'rfbench[iqa]'" if kind.package == "pyiqa" else ""
            yield Line("metrics", "note", f"{name}: {why}", remedy)
    yield Line("metrics", "ok", f"{len(ready)} ready: {', '.join(ready)}")


def licences() -> Iterator[Line]:
    """What restricts the use of results or of what makes them."""
    from bench import weights
    from bench.core import registry
    from bench.core.licences import restriction

    stated: dict[str, list[str]] = {}
    kinds: tuple[registry.Kind, ...] = ("models", "metrics", "datasets")
    for kind in kinds:
        for name in registry.names(kind):
            try:
                part = registry.load(kind, name)
                found = {"": part().licence if kind == "datasets" else part.licence}
                if kind == "models":
                    found |= {f" with {option}=": licence for option, licence in part.option_licences.items()}
            except Exception:  # told above, or of a plugin's own making
                continue
            for how, licence in found.items():
                if isinstance(licence, str) and restriction(licence):
                    stated.setdefault(licence, []).append(f"{kind[:-1]} {name}{how}")
    with warnings.catch_warnings(action="ignore"):  # broken models are told above
        listed = weights.catalogue()
    for file, entry in listed.items():
        if restriction(entry.licence):
            stated.setdefault(entry.licence, []).append(f"weights {file}")
    for licence, parts in stated.items():
        text = f"{licence}: {restriction(licence)} ({', '.join(parts)})"
        yield Line("licences", "note", text, "leave these out where that does not suit")
    if not stated:
        yield Line("licences", "ok", "nothing that is registered here restricts use")
