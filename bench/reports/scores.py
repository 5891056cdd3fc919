"""The scores of images that another program made as one document (``docs/score-json.md``): JSON, CSV, Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.core.errors import one_line
from bench.core.files import digest
from bench.core.typed import encode
from bench.records.folder import OF_THE_SET as _OF_THE_SET
from bench.records.folder import REASON
from bench.records.run import PICTURES, Run
from bench.records.types import Cell, ItemRecord
from bench.reports import document as report
from bench.reports.numbers import decimals_of, shown
from bench.reports.render import data, markdown

FORMAT = 1
OF_THE_SET = "one number for all images; it is in the summary"
Document = Mapping[str, Any]
_FAILURES = 20  # shown in Markdown; JSON and CSV have all


def document(run: Run, metrics: Sequence[str]) -> dict[str, Any]:
    """The document of a run of images that another program made; equal inputs give an equal one.

    Parameters
    ----------
    metrics : those that were asked for, in order.
    """
    items, plan = run.folder.images(), run.plan
    frame = run.folder.scores().query("estimate == 'sample'").set_index("id")
    cells = {name: run.summary.rows["sample"].metrics[name] for name in metrics}
    named = list(items.values())
    noted: dict[str, list[str]] = {}
    for name in metrics:
        folder = run.folder.metric(name)
        for (image_id, _), score in folder.by_image().items() if folder is not None else ():
            if score.note:
                noted.setdefault(image_id, []).append(f"{name}: {score.note}")
    without = run.record.without_partner
    inputs: dict[str, Any] = {"protocol": dict(plan.protocol)}
    if plan.protocol_name == PICTURES:
        inputs["protocol"].pop("name")
    else:
        inputs["data"] = {"name": plan.data.name, "split": plan.data.split, "fingerprint": plan.data.fingerprint}
    inputs |= {side: {"files_sha256": _fingerprint(named, side)} for side in ("pred", "ref")
               if side == "pred" or plan.protocol_name == PICTURES}  # fmt: skip
    return {
        "format": FORMAT,
        "images": [
            _image(item, frame.loc[item.id], cells, noted.get(item.id, []), is_of_dataset="data" in inputs)
            for item in named
        ],
        "summary": {name: _summary(cell) for name, cell in cells.items()},
        "identities": {name: cell.identity for name, cell in cells.items()},
        "metrics": {
            name: {k: getattr(run.metrics[name], k) for k in ("title", "unit", "direction", "group")}
            | {"decimals": decimals_of(run.metrics[name])}
            for name in cells
        },
        "failed": list(run.summary.failed),
        "unmatched": without.get("names", {"pred": [], "ref": []}),
        "ignored": without.get("ignored", {"pred": 0, "ref": 0}),
        "inputs": inputs,
        "software": encode(run.record.software),
    }


def _image(
    item: ItemRecord, row: Any, cells: Mapping[str, Cell], noted: Sequence[str], *, is_of_dataset: bool
) -> dict[str, Any]:
    scores, reasons = {}, {}
    for name, cell in cells.items():
        value, why = row.get(name), row.get(name + REASON)
        if item.error is not None:
            reasons[name] = item.error  # every metric says why, for a reader who knows scores and reasons alone
        elif isinstance(why, str):
            of_set = str(cell.reason) if cell.reason is not None else OF_THE_SET
            reasons[name] = of_set if why == _OF_THE_SET else why
        else:
            scores[name] = float(value)
    found: dict[str, Any] = {
        "id": item.id,
        "scores": scores,
        "reasons": reasons,
        "error": item.error,
        "notes": [*map(one_line, item.notes), *noted],
    }
    if item.error is not None:
        return found
    if is_of_dataset:
        found |= {"scene_id": item.scene_id, "normalisation": item.normalisation}
    return found | {"size_px": list(item.size_px or ()), "files": item.files}


def _summary(cell: Cell) -> dict[str, Any]:
    found = encode(cell)
    found.pop("identity")
    return {"value": None, "n": 0} | found | {"reason": str(cell.reason) if cell.reason is not None else None}


def _fingerprint(items: Sequence[ItemRecord], side: str) -> str:
    """The digest of the names and hashes of a folder's images that were matched, by id."""
    files = [item.files.get(side) or {} for item in items]
    return digest([[[f.get("name")], f.get("sha256")] for f in files])


def to_json(document: Document) -> str:
    """The whole document; ``format`` counts its versions. There is no NaN in it."""
    return data.to_json(document)


def to_csv(document: Document) -> str:
    """One line for each image and metric (level ``image``), then one for each metric of all (level ``set``).

    Numbers at full precision, empty where there is none, with the reason beside it.
    """
    rows: list[list[Any]] = []
    identities = document["identities"]
    for image in document["images"]:
        for name, identity in identities.items():
            value = image["scores"].get(name)
            rows.append(
                ["image", image["id"], name, value, int(value is not None), image["reasons"].get(name), identity]
            )
    for name, cell in document["summary"].items():
        rows.append(["set", "", name, cell["value"], cell["n"], cell["reason"], identities[name]])
    return data.to_csv(["level", "id", "metric", "value", "n", "reason", "identity"], rows)


def document_of(document: Document) -> report.Document:
    """A row for each metric: mean over images (or the set's number), spread, count; reasons and identities below."""
    return report.Document((_section(document),))


def to_markdown(document: Document) -> str:
    """The same in Markdown."""
    return markdown.to_markdown(document_of(document))


def _section(document: Document) -> report.Section:
    images, failed = len(document["images"]), document["failed"]
    rows = []
    reasons: dict[str, list[str]] = {}
    for name, cell in document["summary"].items():
        about = document["metrics"][name]
        column = report.Column(name, about["title"], about["unit"], about["direction"], decimals=about["decimals"])
        texts = [shown(number, column.decimals) if number is not None else ""
                 for number in (cell["value"], cell.get("std"))]  # fmt: skip
        cells = [report.Cell(text=text) for text in (*texts, str(cell["n"]))]
        rows.append(report.Row(column.heading, tuple(cells)))
        for text in [cell["reason"]] if cell["reason"] else _left_out(cell, images - len(failed)):
            reasons.setdefault(text, []).append(column.title)
    notes = report.grouped(reasons)
    broken = [image for image in document["images"] if image["error"]]
    notes += [f"failed: {i['id']}: {i['error']}" for i in broken[:_FAILURES]]
    notes += [f"failed: {len(broken) - _FAILURES} more"] if len(broken) > _FAILURES else []
    grid = report.Grid("metric", tuple(map(report.figures, ("value", "std", "n"))), tuple(rows))
    identities = tuple(document["identities"].values())
    return report.Section("", grid, _about(document), tuple(notes), identities)


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
    of = inputs.get("data")
    against = (
        f"dataset {of['name']}, split {of['split']}, fingerprint {of['fingerprint'][:12]}"
        if of
        else f"a folder of references, fingerprint {inputs['ref']['files_sha256'][:12]}"
    )
    protocol = ", ".join(f"{k}={v}" for k, v in inputs["protocol"].items() if k != "name")
    name = f"protocol {inputs['protocol']['name']} " if "name" in inputs["protocol"] else ""
    return (
        f"{images - failed} of {images} images scored against {against}; "
        f"{len(unmatched['pred'])} images and {len(unmatched['ref'])} references without a partner; "
        f"{name}({protocol}); images' fingerprint {inputs['pred']['files_sha256'][:12]}"
    )


WRITERS: Mapping[str, Callable[[Document], str]] = {"markdown": to_markdown, "json": to_json, "csv": to_csv}
