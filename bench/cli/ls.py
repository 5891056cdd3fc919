"""``rfbench ls``"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from bench.cli.listing import show, wide_option

Rows = list[tuple[str, ...]]
# What fits a line of 80 columns; --wide shows all.
_BRIEF = {
    "models": ("model", "scale", "lacks", "all files", "licence"),
    "metrics": ("metric", "default", "better", "level", "lacks", "needs"),
    "protocols": ("protocol", "what it is"),
    "datasets": ("dataset", "licence", "what it is"),
}
_NEXT = {  # what brings what a model lacks
    "package": "rfbench ls models --wide",
    "environment": "rfbench envs build NAME",
    "weights": "rfbench weights fetch NAME",
}


_EPILOG = """\b
Examples:
  rfbench ls models
  rfbench ls metrics --wide
  rfbench ls datasets --json
"""


@click.command("ls", epilog=_EPILOG)
@click.argument("kind", type=click.Choice(["models", "metrics", "protocols", "datasets"]))
@click.option("--weights-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where weights lie.")
@wide_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, with everything.")
def command(kind: str, weights_dir: Path | None, wide: bool, as_json: bool) -> None:
    """List what is registered (ours and plugins'), what each needs, and what is missing here.

    Lines fit the terminal, and the command that brings what is lacking follows; --wide says also which files are
    missing, and what each is.
    """
    headings, rows = _LISTS[kind](weights_dir)
    if as_json:
        import json

        named = [dict(zip(headings, row, strict=True)) for row in rows]
        records = [{k: v == "yes" if k == "default" else v for k, v in row.items()} for row in named]
        click.echo(json.dumps(records, indent=1, ensure_ascii=False))
        return
    show(headings, rows, _BRIEF[kind], wide=wide)
    if kind == "models" and not wide:
        lacking = {what for row in rows for what in row[headings.index("lacks")].split(", ")}
        for what in (w for w in _NEXT if w in lacking):
            print(f"next: {_NEXT[what]:<26}  for those that lack {what}", file=sys.stderr)


def _each(kind: str, describe: Callable[[str], tuple[str, ...]], width: int) -> Rows:
    """A row for each registered name; one that cannot be loaded has its error as last cell."""
    from bench.core import registry
    from bench.core.errors import RfbenchError

    rows: Rows = []
    for name in registry.names(kind):  # type: ignore[arg-type]
        try:
            rows.append(describe(name))
        except RfbenchError as error:
            rows.append((name, *[""] * (width - 3), "broken", f"broken: {error}"))
    return rows


def _models(weights_dir: Path | None) -> tuple[tuple[str, ...], Rows]:
    from bench import weights
    from bench.core import registry
    from bench.models.ready import lacks, next_step

    def describe(name: str) -> tuple[str, ...]:
        spec = registry.load("models", name)
        scale = "any" if spec.scale_factors is None else " ".join(f"x{f}" for f in spec.scale_factors)
        bands = " ".join(spec.bands) if spec.bands else "all"
        draws = "draws" if spec.stochastic else "one image"
        absent = lacks(spec, weights_dir)
        texts = [text for kind in absent.values() for text in kind]
        bytes_ = sum(entry.bytes for entry in weights.of_model(spec.name, spec.weights).values())
        size = weights.megabytes(bytes_) if bytes_ else "-"
        here = f"{'; '.join(texts)} ({next_step(spec)})" if texts else "ready"
        return (
            name,
            scale,
            bands,
            spec.unit,
            draws,
            spec.status,
            here,
            _options(spec.default_options, spec.summary),
            size,
            ", ".join(absent) or "-",
            spec.licence,
        )

    headings = (
        "model", "scale", "bands", "unit", "gives", "status", "here", "what it is", "all files", "lacks", "licence",
    )  # fmt: skip
    return headings, _each("models", describe, len(headings))


def _options(options: dict[str, str], summary: str) -> str:
    return f"{summary} [options: {', '.join(options)}]" if options else summary


def _metrics(weights_dir: Path | None) -> tuple[tuple[str, ...], Rows]:
    from importlib.util import find_spec

    from bench.metrics.base import Setting
    from bench.metrics.scorer import built

    def describe(name: str) -> tuple[str, ...]:
        metric = built(name, Setting(weights_dir=weights_dir))
        needs = " ".join(metric.needs) + (f" >={metric.min_side_px}px" if metric.min_side_px > 1 else "")
        arrow = "neither" if metric.describes else {"up": "higher", "down": "lower"}[metric.direction]
        reason = metric.missing()
        kind = "weights" if find_spec(metric.package) else "package"
        return (
            name,
            "yes" if metric.default is not None else "",
            metric.group,
            arrow,
            metric.level,
            needs.strip(),
            metric.package,
            str(reason or "ready"),
            kind if reason else "-",
            metric.identity(),
        )

    headings = ("metric", "default", "group", "better", "level", "needs", "package", "here", "lacks", "identity")
    rows = _each("metrics", describe, len(headings))
    print(
        "default: in the set that is used where none is named; pyiqa:NAME is any other metric of pyiqa", file=sys.stderr
    )
    return headings, rows


def _protocols(_: Path | None) -> tuple[tuple[str, ...], Rows]:
    import dataclasses

    from bench.core import registry

    def describe(name: str) -> tuple[str, ...]:
        protocol = registry.load("protocols", name)
        options = ", ".join(f"{f.name}={f.default}" for f in dataclasses.fields(protocol))
        return name, options, protocol.summary

    headings = ("protocol", "options with defaults", "what it is")
    return headings, _each("protocols", describe, len(headings))


def _datasets(_: Path | None) -> tuple[tuple[str, ...], Rows]:
    from bench.core import registry

    def describe(name: str) -> tuple[str, ...]:
        dataset = registry.load("datasets", name)()
        return name, dataset.licence, dataset.description

    headings = ("dataset", "licence", "what it is")
    rows = _each("datasets", describe, len(headings))
    print("a dataset folder is named by its path: rfbench run --data DIR", file=sys.stderr)
    return headings, rows


_LISTS: dict[str, Callable[[Path | None], tuple[tuple[str, ...], Rows]]] = {
    "models": _models,
    "metrics": _metrics,
    "protocols": _protocols,
    "datasets": _datasets,
}
