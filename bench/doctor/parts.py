"""What is registered here, ours and others': the embedded data, models, plugins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError, one_line
from bench.doctor.line import AGAIN, Line


def _ours(kind: Any) -> list[str]:
    from bench.core import registry

    return [n for n, p in registry.points(kind).items() if p.dist is not None and p.dist.name == "rfbench"]


def embedded() -> Iterator[Line]:
    """Our own datasets are opened, and an image of each is read."""
    from bench.core import registry
    from bench.data.dataset import Dataset

    names = _ours("datasets")
    for name in names:
        dataset: Dataset = registry.load("datasets", name)()
        records = dataset.records("test")
        dataset.load(records[0])
        yield Line("data", "ok", f"{name}: {len(records)} images, licence {dataset.licence}")
    if not names:
        yield Line("data", "problem", "no dataset of rfbench is registered", AGAIN, True)


def models(weights_dir: Path | None) -> Iterator[Line]:
    """Each of our own models that lacks nothing is constructed, which checks its files. A system that lacks packages or
    weights has a line with all that a user must know before getting them; its code is not even imported."""
    from bench.core import registry
    from bench.models.call import Model
    from bench.models.ready import missing, next_step

    ready, lines, names = [], [], _ours("models")
    for name in names:
        try:
            spec = registry.load("models", name)
            absent = missing(spec, weights_dir)
            if not absent:
                ready.append(Model(name).label)
            elif set(absent) - {f"the option {option}" for option in spec.needs_options}:
                factors = "any scale" if spec.scale_factors is None else " ".join(f"x{f}" for f in spec.scale_factors)
                bands = " ".join(spec.bands or ("all bands",))
                what = ", ".join(t for t in (factors, bands, spec.licence, spec.status) if t)
                lines.append(Line("models", "note", f"{name} ({what}) lacks {'; '.join(absent)}", next_step(spec)))
        except RfbenchError as error:
            lines.append(Line("models", "problem", str(error), AGAIN, True))
    if names:
        yield Line("models", "ok", f"ready: {', '.join(sorted(ready))}")
        yield from lines
    else:
        yield Line("models", "problem", "no model of rfbench is registered", AGAIN, True)


def plugins() -> Iterator[Line]:
    """All that is registered is loaded; what others register is named."""
    from bench.core import registry

    kinds: tuple[registry.Kind, ...] = ("models", "metrics", "protocols", "datasets", "segmenters", "commands")
    working = []
    for kind in kinds:
        for name, point in registry.points(kind).items():
            is_ours = point.dist is not None and point.dist.name == "rfbench"
            package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"
            try:
                registry.load(kind, name)
            except Exception as error:  # importing a plugin runs its code
                step = f"pip uninstall {point.dist.name if point.dist else 'it'}, or repair it"
                if kind in ("models", "metrics", "datasets") and not is_ours:
                    step = f"rfbench check {kind[:-1]} {one_line(name, 60)}"
                yield Line("plugins", "problem", f"{package}: {error}", step, is_ours)
                continue
            if not is_ours:
                working.append(f"{kind[:-1]} {one_line(name, 40)} ({package})")
    yield Line("plugins", "ok", ", ".join(working) or "none beside rfbench's own parts")
