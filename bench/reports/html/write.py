"""Reports on the disk: a folder that is whole or absent, or one file; equal reports give equal bytes."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import RfbenchError, one_line
from bench.core.files import read_json, write_bytes
from bench.core.process import is_left, mark
from bench.reports.document import Column
from bench.reports.html.content import Report
from bench.reports.html.encode import entry_data, image_data, index_data, script_json, thumbnails
from bench.reports.numbers import meaning_of

if TYPE_CHECKING:
    from jinja2 import Environment

FORMAT = 1
MARK = "report.json"
"""The file that says that a folder is a report, which another one may replace."""
LARGEST_FILE = 40 * 10**6
"""Bytes of a single file. Browsers fail on files of 30 to 80 MB."""
_STYLES = ("report.css",)
_SCRIPTS = ("base.js", "overview.js", "charts.js", "gallery.js", "pixels.js", "viewer.js")
_TICK = Callable[[int, int], None]


def write_folder(report: Report, out: Path, tick: _TICK = lambda done, total: None) -> Path:
    """Write the report into the folder ``out`` and return its ``index.html``. An earlier report there is replaced, once
    the new one is whole.

    Parameters
    ----------
    tick : told how many images are done, and of how many.

    Raises
    ------
    RfbenchError
        ``out`` holds other files, or cannot be written; and what making a picture raises.
    """
    with _renewed(out) as folder:
        for name in (*_STYLES, *_SCRIPTS):
            _put(folder / "page" / name, _page_file(name))
        places: dict[str, dict[str, Any]] = {}
        for number, (view, done) in enumerate(zip(report.views(), report.shown, strict=True)):
            assert view.id == done
            name = f"{number:05d}"
            _put(folder / "images" / f"{name}.js", _call("put", number, image_data(view)))
            strip, size = thumbnails(view, report.panels)
            _put(folder / "images" / f"{name}.jpg", strip)
            places[view.id] = _place(number, size, view.deviation, f"images/{name}.jpg")
            tick(number + 1, len(report.shown))
        _put(folder / "page" / "index.js", _call("start", _index(report, places)))
        for name, text in report.files.items():
            _put(folder / name, text.encode())
        _put(folder / "index.html", _folder_page(report))
        _put(folder / MARK, (json.dumps(_about(report), indent=1) + "\n").encode())
    return out / "index.html"


def write_file(report: Report, out: Path, tick: _TICK = lambda done, total: None) -> Path:
    """Write the report as the one file ``out``, and return it.

    RfbenchError above ``LARGEST_FILE``, with the number of images that fit whichever they are.
    """
    places: dict[str, dict[str, Any]] = {}
    blocks: list[str] = []
    sizes: list[int] = []
    for number, view in enumerate(report.views()):
        strip, size = thumbnails(view, report.panels)
        thumb = f"data:image/jpeg;base64,{base64.b64encode(strip).decode('ascii')}"
        places[view.id] = _place(number, size, view.deviation, thumb)
        block = _block(f"image-{number}", image_data(view))
        sizes.append(len(block) + len(thumb))
        if sum(sizes) <= LARGEST_FILE:
            blocks.append(block)
        tick(number + 1, len(report.shown))
    page = _single_page(report, _index(report, places))
    largest = sorted(sizes, reverse=True)
    of_page = len(page) - sum(len(str(place["thumb"])) for place in places.values())
    fits = next((n for n in range(len(sizes), -1, -1) if of_page + sum(largest[:n]) <= LARGEST_FILE), 0)
    if fits < len(sizes):
        raise RfbenchError(
            f"--single-file: {len(sizes)} images make {(of_page + sum(sizes)) / 1e6:.0f} MB, a file that browsers open "
            f"has at most {LARGEST_FILE / 1e6:.0f}; {fits} images fit: give --max-images {fits}, or leave "
            "--single-file out"
        )
    write_bytes(out, "".join([page, *blocks, "</body>\n</html>\n"]).encode("utf-8", "replace"))
    return out


@contextmanager
def _renewed(out: Path) -> Iterator[Path]:
    """A new folder that takes the name ``out`` when the block ends well; what killed processes left is removed."""
    out = out.resolve()
    if out.exists() and not is_report(out) and (not out.is_dir() or any(out.iterdir())):
        raise RfbenchError(f"{out} holds something else than a report; choose another --out, or empty it")
    new, old = (out.with_name(f".{out.name}.{mark()}.{word}") for word in ("new", "old"))
    try:
        for left in out.parent.glob(f".{out.name}.*.*") if out.parent.is_dir() else ():
            if left.is_dir() and (left in (new, old) or is_left(left.name.rsplit(".", 2)[-2])):
                shutil.rmtree(left)
        new.mkdir(parents=True)
        yield new
        if out.exists():
            out.rename(old)
        new.rename(out)
    except OSError as error:
        raise RfbenchError(
            f"cannot write {out}: {error.strerror or one_line(error)}; free space or choose a folder that can be "
            "written, then run the same command again"
        ) from error
    finally:
        for path in (new, old):
            with suppress(OSError):
                shutil.rmtree(path)


def is_report(folder: Path) -> bool:
    """Whether a folder holds a report."""
    try:
        found = read_json(folder / MARK)
    except (RfbenchError, OSError):
        return False
    return isinstance(found, dict) and "rfbench_report" in found


def _about(report: Report) -> dict[str, Any]:
    return {"rfbench_report": FORMAT, "kind": report.kind, "title": report.title, "about": report.about,
            "images": len(report.entries), "shown": list(report.shown)}  # fmt: skip


def _place(number: int, size: tuple[int, int], deviation: Any, thumb: str) -> dict[str, Any]:
    """What is known of an image once its pixels were seen."""
    found: dict[str, Any] = {"n": number, "thumb": thumb, "cell": list(size)}
    return found | ({"deviation": {str(row): value for row, value in deviation.items()}} if deviation else {})


def _index(report: Report, places: dict[str, dict[str, Any]]) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    images = [entry_data(entry, reasons) | places.get(entry.id, {}) for entry in report.entries]
    return index_data(report) | {"images": images, "reasons": list(reasons)}


def _call(function: str, *arguments: Any) -> bytes:
    """A classic script that hands data to the page."""
    return f"rfbench.{function}({','.join(map(script_json, arguments))});\n".encode("ascii")


def _block(name: str, data: Any) -> str:
    """Data inside a page; ``script_json`` cannot end the element."""
    return f'<script type="application/json" id="{name}">{script_json(data)}</script>\n'


# --- pages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Inline:
    """A style or a script inside a page, with the hash by which its policy allows it and nothing else."""

    text: str

    @property
    def source(self) -> str:
        digest = base64.b64encode(hashlib.sha256(self.text.encode()).digest()).decode("ascii")
        return f"'sha256-{digest}'"


def _folder_page(report: Report) -> bytes:
    policy = _policy("'self'", "'self'", "'self' data:")
    styles = [f"page/{name}" for name in _STYLES]
    scripts = [f"page/{name}" for name in (*_SCRIPTS, "index.js")]
    text = _rendered(report, policy, styles=styles, scripts=scripts, downloads=list(report.files))
    return f"{text}</body>\n</html>\n".encode("utf-8", "replace")


def _single_page(report: Report, index: dict[str, Any]) -> str:
    """The page up to the data of its images, which follow."""
    from markupsafe import Markup

    styles = [_Inline(_page_file(name).decode()) for name in _STYLES]
    begin = 'rfbench.start(JSON.parse(document.getElementById("index").textContent));'
    scripts = [*(_Inline(_page_file(name).decode()) for name in _SCRIPTS), _Inline(begin)]
    for one in (*styles, *scripts):
        assert "</s" not in one.text and "<!--" not in one.text  # ours, and none may end its element
    policy = _policy(" ".join(s.source for s in scripts), " ".join(s.source for s in styles), "data:")
    inline_styles, inline_scripts = ([Markup(one.text) for one in of] for of in (styles, scripts))
    block = Markup(_block("index", index))
    return _rendered(report, policy, inline_styles=inline_styles, inline_scripts=inline_scripts, index=block)


def _policy(scripts: str, styles: str, images: str) -> str:
    """Nothing but what the page itself brings; no address of elsewhere is ever asked."""
    return (
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src {images}; base-uri 'none'; "
        "form-action 'none'"
    )


def _rendered(report: Report, policy: str, **how: Any) -> str:
    template = _environment().get_template("index.html.jinja")
    return template.render(report=report, policy=policy, **how)


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(lambda name: _page_file(name).decode()), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["letter"] = _letter
    environment.filters["groups"] = _groups
    environment.globals["meaning"] = meaning_of
    environment.filters["line"] = lambda text: one_line(text, 1000)
    return environment


def _groups(columns: Sequence[Column]) -> list[tuple[str, int]]:
    """The groups of neighbouring columns, with how many each has."""
    return [(name, len(list(of))) for name, of in itertools.groupby(columns, key=lambda column: column.group)]


def _letter(index: int) -> str:
    """a to z, then aa: how footnotes are called."""
    more, last = divmod(index, 26)
    return (_letter(more - 1) if more else "") + chr(ord("a") + last)


def _page_file(name: str) -> bytes:
    return (resources.files("bench.reports.html") / "page" / name).read_bytes()


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
