"""The page of published systems, from their specs: what each is, may be used for, was held against, and still lacks.

    python -m bench.models.systems docs/systems.md

writes the part between the two marks of that file anew; a test holds the page against the specs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from bench import weights
from bench.core import registry
from bench.core.errors import RfbenchError
from bench.core.files import write_bytes
from bench.core.licences import restriction
from bench.models.spec import ModelSpec

BEGIN, END = "<!-- systems -->", "<!-- end -->"


def systems() -> list[ModelSpec]:
    """Our own specs of published systems, by name: those with an upstream, and those that the RareFlow paper names."""
    points = registry.points("models")
    ours = [n for n in registry.names("models") if (dist := points[n].dist) is not None and dist.name == "rfbench"]
    return [spec for spec in (registry.load("models", name) for name in ours) if spec.paper or spec.upstream]


def page(specs: list[ModelSpec]) -> str:
    """The generated part in Markdown: one table of all systems, then a section for each."""
    head = ("system", "scale", "reads", "gives", "runs", "licence", "weights", "status")
    rows = [head, ("---",) * len(head), *(_row(spec) for spec in specs)]
    table = [f"| {' | '.join(row)} |" for row in rows]
    sections = (line for spec in specs for line in ("", f"### {spec.name}", "", *about(spec)))
    return "\n".join([*table, *sections])


def _row(spec: ModelSpec) -> tuple[str, ...]:
    scale = "any" if spec.scale_factors is None else " ".join(f"x{f}" for f in spec.scale_factors)
    kind = "reflectance" if spec.unit == "reflectance" else "display"
    entries = weights.of_model(spec.name, spec.weights).values()
    about = "about " if any(not e.sha256 for e in entries) else ""
    size = f"{about}{weights.megabytes(sum(e.bytes for e in entries))}" if entries else "in the package"
    if not entries and spec.environment is not None:
        size = "yours"
    return (
        f"[`{spec.name}`](#{spec.name})",
        scale,
        f"{' '.join(spec.bands or ('all bands',))}, {kind}"
        + (", a time series" if spec.input_kind == "series" else ""),
        "draws" if spec.stochastic else "one image",
        "in an environment of its own" if spec.environment is not None else "in process",
        spec.licence,
        size,
        spec.status,
    )


def about(spec: ModelSpec) -> Iterator[str]:
    """What a spec says of its system, as lines of Markdown."""
    yield f"{spec.summary}."
    if spec.reimplementation:
        yield from (
            "",
            f"**Written anew**, following {spec.reimplementation}. Tables call it `{spec.name}-reimplemented`.",
        )
    yield ""
    if spec.upstream:
        yield f"- upstream: <{spec.upstream}>" + (f" at `{spec.commit[:12]}`" if spec.commit else ", the package below")
    yield f"- licence: {spec.licence}" + (f"; {spec.allows}" if spec.allows else "")
    if spec.requires:
        yield f"- needs: {', '.join(f'`{r}`' for r in spec.requires)} (`pip install 'rfbench[{spec.extra}]'`)"
    for entry in weights.of_model(spec.name, spec.weights).values():
        known = f"sha256 {entry.short_hash}..." if entry.sha256 else "no published hash"
        limits = f" ({restriction(entry.licence)})" if restriction(entry.licence) else ""
        yield f"- file: `{entry.file}`, {entry.size}, {known}; licence: {entry.licence}{limits}"
    for name, numbers in spec.paper.items():
        yield f"- the RareFlow paper, {name}: " + ", ".join(f"{k} {v:.2f}" for k, v in numbers.items())
    for claim in spec.published:
        printed = ", ".join(f"{k} {v:g}" for k, v in claim.numbers.items())
        yield f"- {claim.source}, as printed in {claim.citation}: {printed}"
    yield from (f"- verified: {text}" for text in spec.verified)
    yield from (f"- not verified: {text}" for text in spec.unverified)


def renewed(text: str, generated: str) -> str:
    """``text`` with what stands between the marks replaced; RfbenchError where it has no marks."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise RfbenchError(f"found no part between {BEGIN} and {END}, expected one; put the two lines where it belongs")
    return f"{before}{BEGIN}\n\n{generated}\n\n{END}{after}"


@click.command("python -m bench.models.systems")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def command(file: Path) -> None:
    """Write the generated part of FILE anew."""
    write_bytes(file, renewed(file.read_text(encoding="utf-8"), page(systems())).encode())


def main() -> None:
    """Errors of the user are one line and exit code 2, as those of ``rfbench``."""
    try:
        command.main(standalone_mode=False)
    except (RfbenchError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        print(f"error: {message}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
