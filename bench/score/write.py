"""The document of scores as JSON, CSV or Markdown."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping
from typing import Any

from bench.core.errors import one_line
from bench.reports.table.build import shown
from bench.reports.table.write import fenced, markdown_text

Document = Mapping[str, Any]
_FAILURES = 20  # shown in Markdown; JSON and CSV have all


def to_json(document: Document) -> str:
    """The whole document; ``format`` counts its versions. There is no NaN in it."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)


def to_csv(document: Document) -> str:
    """One line for each image and metric (level ``image``), then one for each metric of all (level ``set``).

    Numbers at full precision, empty where there is none, with the reason beside it.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["level", "id", "metric", "value", "n", "reason", "identity"])
    identities = document["identities"]
    for image in document["images"]:
        for name, identity in identities.items():
            value = image["scores"].get(name)
            cells = ("", 0) if value is None else (repr(value), 1)
            writer.writerow(["image", image["id"], name, *cells, image["reasons"].get(name, ""), identity])
    for name, cell in document["summary"].items():
        value = "" if cell["value"] is None else repr(cell["value"])
        writer.writerow(["set", "", name, value, cell["n"], cell["reason"] or "", identities[name]])
    return buffer.getvalue().rstrip("\n")


def to_markdown(document: Document) -> str:
    """A row for each metric: mean over images (or the set's number), spread, count; reasons and identities below."""
    images, failed = len(document["images"]), document["failed"]
    rows = [("**metric**", "**value**", "**std**", "**n**")]
    reasons: dict[str, list[str]] = {}
    for name, cell in document["summary"].items():
        about = document["metrics"][name]
        title = markdown_text(about["title"])
        unit = f" ({'°' if about['unit'] == 'degrees' else markdown_text(about['unit'])})" if about["unit"] else ""
        value = "–" if cell["value"] is None else shown(name, cell["value"])
        spread = shown(name, cell["std"]) if "std" in cell else ""
        rows.append((f"**{title}**{unit} {'↑' if about['direction'] == 'up' else '↓'}", value, spread, str(cell["n"])))
        for text in [cell["reason"]] if cell["reason"] else _left_out(cell, images - len(failed)):
            reasons.setdefault(text, []).append(title)
    widths = [max(len(row[j]) for row in rows) for j in range(4)]
    lines = [
        f"| {row[0]:<{widths[0]}} | " + " | ".join(f"{c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|".join(["", ":" + "-" * (widths[0] + 1), *("-" * (w + 1) + ":" for w in widths[1:]), ""]))
    lines += ["", f"- {_about(document)}"]
    lines += [f"- {', '.join(titles)}: {markdown_text(text)}" for text, titles in reasons.items()]
    broken = [image for image in document["images"] if image["error"]]
    lines += [f"- failed: {markdown_text(i['id'])}: {markdown_text(i['error'])}" for i in broken[:_FAILURES]]
    lines += [f"- failed: {len(broken) - _FAILURES} more"] if len(broken) > _FAILURES else []
    return "\n".join([*lines, "", *fenced(list(document["identities"].values()))])


def _left_out(cell: Mapping[str, Any], images: int) -> list[str]:
    """Why a number stands for fewer images than were read."""
    if cell["n"] >= images:
        return []
    return [f"over {cell['n']} of {images} images ({_counted(cell.get('reasons', {}))})"]


def _counted(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{count}: {one_line(reason, 160)}" for reason, count in reasons.items())


def _about(document: Document) -> str:
    images, failed, unmatched = len(document["images"]), len(document["failed"]), document["unmatched"]
    inputs = document["inputs"]
    data = inputs.get("data")
    against = (
        f"dataset {markdown_text(data['name'])}, split {markdown_text(data['split'])}, fingerprint "
        f"{data['fingerprint'][:12]}"
        if data
        else f"a folder of references, fingerprint {inputs['ref']['files_sha256'][:12]}"
    )
    protocol = ", ".join(f"{k}={v}" for k, v in inputs["protocol"].items() if k != "name")
    name = f"protocol {inputs['protocol']['name']} " if "name" in inputs["protocol"] else ""
    return (
        f"{images - failed} of {images} images scored against {against}; "
        f"{len(unmatched['pred'])} images and {len(unmatched['ref'])} references without a partner; "
        f"{name}{markdown_text(f'({protocol})')}; images' fingerprint {inputs['pred']['files_sha256'][:12]}"
    )


WRITERS: Mapping[str, Callable[[Document], str]] = {"markdown": to_markdown, "json": to_json, "csv": to_csv}
