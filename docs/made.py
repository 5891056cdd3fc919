"""The pages that are made when the site is built, in ``docs/made``: cards of metrics and systems, formats, results.

All of it comes from where it is defined (a metric's class, a model's spec, a record's JSON Schema, the files of
``results``), so that nothing is written twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.core import registry
from bench.metrics.base import GROUPS, Setting
from bench.metrics.scorer import built
from bench.models.spec import ModelSpec
from bench.models.systems import about
from bench.reports.cite.bibtex import of_part
from bench.reports.metric_page import facts, metric_page

ROOT = Path(__file__).resolve().parents[1]
_OF_THIS_MACHINE = ("here",)
# Their lists lead to the cards, not the contents beside every page: those are laid out for each, a third of a build.
_CARD = b"---\norphan: true\n---\n\n"


def write_pages(docs: Path) -> None:
    """Write ``docs/made`` anew. Files that stay the same are not touched, so that a second build is short."""
    made = docs / "made"
    pages = dict(_results()) | dict(_metrics()) | dict(_systems()) | dict(_formats(docs / "schemas"))
    for name in ("CHANGELOG.md", "CONTRIBUTING.md"):
        pages[name] = (ROOT / name).read_bytes().replace(b"](docs/", b"](../")
    for name in (str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()):
        if name not in pages:
            (made / name).unlink()
    for name, content in pages.items():
        path = made / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _ours(kind: registry.Kind) -> list[str]:
    """The names that rfbench registers itself; what plugins add here is no part of its documentation."""
    points = registry.points(kind)
    return [n for n, point in sorted(points.items()) if point.dist is not None and point.dist.name == "rfbench"]


# --- metrics ----------------------------------------------------------------------------------------------------------


def _metrics() -> Iterator[tuple[str, bytes]]:
    pages = [metric_page(built(name, Setting())) for name in _ours("metrics")]
    for page in pages:
        yield f"metrics/{page['name']}.md", _CARD + _text(_metric(page))
    yield "metrics/index.md", _text(_metric_list(pages))


def _metric_list(pages: list[dict[str, Any]]) -> Iterator[str]:
    yield "# Cards of the metrics"
    yield ""
    yield "`rfbench metrics show NAME` prints the same. *Default* ones are computed where none is named."
    arrows = {"up": "higher", "down": "lower", "": "neither"}
    for group in GROUPS:
        rows = [page for page in pages if page["group"] == group]
        yield from ("", f"## {group.capitalize()}", "", "| metric | is | better | default |", "|---|---|---|---|")
        for page in rows:
            default = "yes" if page["default"] else ""
            link = f"[`{page['name']}`]({page['name']}.md)"
            yield f"| {link} | {_cell(page['summary'])} | {arrows[page['direction']]} | {default} |"


def _metric(page: dict[str, Any]) -> Iterator[str]:
    yield f"# {page['name']}: {page['title']}"
    for paragraph in (page["summary"], *page["definition"]):
        yield from ("", _prose(paragraph))
    yield from ("", "| | |", "|---|---|")
    for label, text in facts(page):
        if label not in _OF_THIS_MACHINE:
            code = label in ("equation", "parameters", "identity", "defined in")
            yield f"| {label} | {_code(text) if code else _cell(text)} |"
    yield from ("", "```sh", f"rfbench metrics show {page['name']}", "```")


# --- systems ----------------------------------------------------------------------------------------------------------


def _systems() -> Iterator[tuple[str, bytes]]:
    specs: list[ModelSpec] = [registry.load("models", name) for name in _ours("models")]
    for spec in specs:
        yield f"systems/{spec.name}.md", _CARD + _text(_system(spec))
    rows = [f"| [`{s.name}`]({s.name}.md) | {_cell(s.summary)} | {s.status} |" for s in specs]
    lines = [
        "# Cards of the systems", "", "`rfbench ls models` says what each lacks on your machine.", "",
        "| system | is | status |", "|---|---|---|", *rows,
    ]  # fmt: skip
    yield "systems/index.md", _text(lines)


def _system(spec: ModelSpec) -> Iterator[str]:
    sides = [f"multiples of {spec.multiple}"] if spec.multiple > 1 else []
    sides += [f"{spec.min_side_px} px and more"] if spec.min_side_px > 1 else []
    sides += [f"up to {spec.max_side_px} px, larger ones in tiles"] if spec.max_side_px is not None else []
    given = {
        "enlarges": "any factor" if spec.scale_factors is None else " ".join(f"x{f}" for f in spec.scale_factors),
        "reads": f"{' '.join(spec.bands or ('every band',))}, as {spec.unit}"
        + (", a time series" if spec.input_kind == "series" else "")
        + (", a caption" if spec.supports_prompt else ""),
        "gives": "draws" if spec.stochastic else "one image",
        "sides of its input": ", ".join(sides) or "any",
        "options": ", ".join(f"`{k}={v}`" if v else f"`{k}`" for k, v in spec.default_options.items()),
        "options it needs": ", ".join(f"`{k}`" for k in spec.needs_options),
        "runs": "in a process and an environment of its own" if spec.environment is not None else "in this process",
        "status": spec.status,
    }
    yield f"# {spec.name}"
    yield from ("", *(_prose(line) for line in about(spec)))
    yield from ("", "| | |", "|---|---|", *(f"| {k} | {_cell(v)} |" for k, v in given.items() if v))
    works = list(of_part(spec.citation, "model", spec.name))
    if works:
        yield ""
        for work in works:
            yield f"- {_prose(work.shown())}: {_prose(work.field('title').translate(_BRACES))}"
    options = "".join(f"{',' if i else ':'}{name}=..." for i, name in enumerate(spec.needs_options))
    yield from ("", "```sh", f"rfbench run --model {spec.name}{options} --model bicubic", "```")


# --- formats and results ----------------------------------------------------------------------------------------------


def _formats(schemas: Path) -> Iterator[tuple[str, bytes]]:
    names = [path.name.removesuffix(".schema.json") for path in sorted(schemas.glob("*.schema.json"))]
    for name in names:
        schema = json.loads((schemas / f"{name}.schema.json").read_text(encoding="utf-8"))
        yield f"formats/{name}.md", _text(_format(name, schema))
    yield "formats/index.md", _text(
        [
            "# JSON Schemas", "", "Made of the classes that read and write the files.", "",
            "```{toctree}", "", *names, "```",
        ]
    )  # fmt: skip


def _format(name: str, schema: dict[str, Any]) -> Iterator[str]:
    # Of a record the schema is a reference; of a list or a table of records it is its own.
    record = schema["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
    says = record.get("description", "").split("\n\nAttributes")[0].replace("``", "`")
    yield from (f"# {name}", "", _prose(says or f"{_kind(record)}."))
    if record.get("properties"):
        yield from ("", "| key | is | needed |", "|---|---|---|")
    required = set(record.get("required", ()))
    for key, value in record.get("properties", {}).items():
        yield f"| `{key}` | {_kind(value)} | {'yes' if key in required else ''} |"
    yield from ("", f"```{{literalinclude}} ../../schemas/{name}.schema.json", ":language: json", "```")


def _kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return value["$ref"].rsplit("/", 1)[1]
    if "anyOf" in value:
        return " or ".join(_kind(v) for v in value["anyOf"])
    if "enum" in value:
        return " or ".join(f"`{v}`" for v in value["enum"])
    inner = value.get("items") or value.get("additionalProperties")
    of = f" of {_kind(inner)}" if isinstance(inner, dict) and inner else ""
    return f"{value.get('type', 'anything')}{of}"


def _results() -> Iterator[tuple[str, bytes]]:
    """What the project publishes: Markdown pages and their pictures, and the small files that pages link to."""
    results = ROOT / "results"
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results)
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            title = "" if text.startswith("#") else f"# {path.stem.replace('_', ' ').capitalize()}\n\n"
            up = "../" * len(name.parts)
            yield f"results/{name}", (title + text).replace(f"]({up}docs/", f"]({'../' + up}").encode()
        elif path.suffix in (".png", ".csv", ".toml"):
            yield f"results/{name}", path.read_bytes()


# --- Markdown ---------------------------------------------------------------------------------------------------------

_BRACES = str.maketrans("", "", "{}")


def _text(lines: Iterator[str] | list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def _prose(text: str) -> str:
    """A text of a docstring: commands, options and what is between back quotes are code, all else is as it stands."""
    text = re.sub(r"'(rfbench [^'`]+)'", r"`\1`", text)
    parts = re.split(r"(`[^`]*`|(?<![\w-])--[a-z][\w-]*)", text)
    shown = [f"`{p}`" if i % 2 and p.startswith("--") else p for i, p in enumerate(parts)]
    return "".join(p if i % 2 else re.sub(r"(?<!^)([*_<$|])", r"\\\1", p) for i, p in enumerate(shown))


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text if text.startswith("`") else _prose(text))


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|").replace("`", "'") + "`"
