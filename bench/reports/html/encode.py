"""Pictures and data as a page reads them from a folder: PNG in base64, JSON in scripts, thumbnails in one strip.

A page that was opened by double click may neither fetch a file nor look into a picture that lies beside it, so what the
page computes with (values under the cursor, errors) comes in classic scripts, one an image.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.core.errors import one_line
from bench.core.image import Mask
from bench.reports.html.content import Entry, Map, Panel, Pixels, Report, View

THUMB_PX = 128
"""The longer side of a thumbnail."""
_GREY = 128
_JPEG_QUALITY = 85


def script_json(value: Any) -> str:
    """JSON that is safe anywhere in a page: no letter of it can end a script or a line of one.

    Whatever is not ASCII is escaped, so U+2028 and U+2029, which older scripts take for line ends, are too.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def png_url(pixels: npt.NDArray[np.uint8]) -> str:
    """A PNG as a ``data:`` address."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def image_data(view: View) -> dict[str, Any]:
    """An image as the page looks at it."""
    return {
        "id": view.id,
        "size": list(view.size),
        "border": view.border_px,
        "caption": view.caption,
        "facts": [list(fact) for fact in view.facts],
        "pictures": {key: png_url(pixels) for key, pixels in view.pictures.items()},
        "absent": dict(view.absent),
        "maps": [_map(one) for one in view.maps],
        "mask": _mask_url(view.mask),
        "valid": _mask_url(view.valid),
    }


def _map(found: Map) -> dict[str, Any]:
    """A map in 255 steps from its smallest to its largest value, or from 0; classes as they are."""
    if found.classes:
        return {"panel": found.panel, "name": found.name, "classes": list(found.classes),
                "png": png_url(found.values.astype(np.uint8))}  # fmt: skip
    low = min(0.0, float(found.values.min(initial=0.0)))
    high = float(found.values.max(initial=0.0))
    steps = (found.values - low) * (255.0 / (high - low)) if high > low else np.zeros(found.values.shape)
    grey = np.rint(steps).astype(np.uint8)
    return {"panel": found.panel, "name": found.name, "unit": found.unit, "low": low, "high": high,
            "png": png_url(grey)}  # fmt: skip


def _mask_url(mask: Mask | None) -> str | None:
    return None if mask is None else png_url(mask.astype(np.uint8) * 255)


def thumbnails(view: View, panels: Sequence[Panel]) -> tuple[bytes, tuple[int, int]]:
    """The image's pictures small and side by side, in the order of the panels, as JPEG; and the (height, width) of
    one. What is absent is grey."""
    from PIL import Image

    height, width = view.size
    scale = min(1.0, THUMB_PX / max(height, width))
    # Small images are enlarged by whole factors, so that their pixels stay squares.
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if max(size) * 2 <= THUMB_PX:
        factor = THUMB_PX // max(size)
        size = (size[0] * factor, size[1] * factor)
    strip = Image.new("RGB", (size[0] * len(panels), size[1]), (_GREY, _GREY, _GREY))
    for place, panel in enumerate(panels):
        pixels = view.pictures.get(panel.key)
        if pixels is not None:
            enlarges = pixels.shape[0] < size[1]
            method = Image.Resampling.NEAREST if enlarges else Image.Resampling.BOX
            strip.paste(_uncut(pixels, view, panel).resize(size, method), (place * size[0], 0))
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue(), (size[1], size[0])


def _uncut(pixels: Pixels, view: View, panel: Panel) -> Any:
    """A picture without the border that the others lack: of an LR, the part that lies below them."""
    from PIL import Image

    picture = Image.fromarray(pixels)
    if panel.kind != "lr" or not view.border_px:
        return picture
    whole = [n + 2 * view.border_px for n in view.size]
    top, left = (view.border_px * n / w for n, w in zip(pixels.shape[:2], whole, strict=True))
    box = (left, top, pixels.shape[1] - left, pixels.shape[0] - top)
    return picture.transform(
        (max(1, round(box[2] - box[0])), max(1, round(box[3] - box[1]))), Image.Transform.EXTENT, box
    )


def index_data(report: Report) -> dict[str, Any]:
    """What the page knows before an image is looked at, without what is added of each image (``entry_data``)."""
    return {
        "format": 1,
        "kind": report.kind,
        "title": report.title,
        "panels": [{"key": p.key, "label": p.label, "kind": p.kind, "row": p.row} for p in report.panels],
        "rows": list(report.rows),
        "measures": [
            {"name": m.name, "title": m.title, "unit": m.unit, "direction": m.direction, "decimals": m.decimals,
             "meaning": m.meaning}
            for m in report.measures
        ],
        "start": dict(report.start),
        "strips": {
            name: [{"row": s.row, "number": s.number, "low": s.low, "high": s.high, "quartiles": list(s.quartiles)}
                   for s in strips]
            for name, strips in report.strips.items()
        },
        "plane": None if report.plane is None else {
            "x": report.plane.x_title, "y": report.plane.y_title, "xUp": report.plane.x_up, "yUp": report.plane.y_up,
            "points": [{"row": p.row, "x": list(p.x), "y": list(p.y)} for p in report.plane.points],
        },
    }  # fmt: skip


def entry_data(entry: Entry, reasons: dict[str, int]) -> dict[str, Any]:
    """An image in the lists; ``reasons`` numbers the texts that many images share."""
    found: dict[str, Any] = {
        "id": entry.id,
        "name": one_line(entry.id, 120),
        "scene": one_line(entry.scene, 80),
        "split": one_line(entry.split, 40),
        "values": [list(of_row) for of_row in entry.values],
        "lines": [[line.severity, line.text] for line in entry.lines],
    }
    why = {f"{i},{j}": reasons.setdefault(text, len(reasons)) for (i, j), text in entry.why.items()}
    return found | ({"why": why} if why else {})
