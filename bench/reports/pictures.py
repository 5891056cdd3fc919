"""Pictures of a run: what image metrics looked at, as 8-bit PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.core.errors import RfbenchError, one_line
from bench.core.files import safe_name, write_bytes
from bench.core.image import Array
from bench.records.folder import RunFolder
from bench.records.run import read_run, refuse_to_mix
from bench.score.replay import replay

REFERENCES = ("lr", "hr")


def export(
    runs: Sequence[RunFolder], out: Path, *, estimate: str = "sample", references: bool = False, data: str | None = None
) -> Iterator[tuple[RunFolder, Path, int]]:
    """Write each run's pictures to ``out/<run folder's name>/<id>.png``; yields each run with its folder and count.

    With ``references`` the LR and HR images go, once, to ``out/lr`` and ``out/hr``.

    Raises
    ------
    RfbenchError
        Two runs whose folders share a name, a run without a ``mean`` that was asked for, or what ``replay`` raises.
    NotComparable
        ``references`` for runs of different data or protocols, which have different ones.
    """
    folders = _folders(runs, out, REFERENCES if references else ())
    found = [read_run(run) for run in runs]
    for one in found:
        if estimate not in one.kinds:
            raise RfbenchError(
                f"{one.folder.path}: found no {estimate} of several draws (its model gives one image), expected one; "
                "leave the run out or use --estimate sample"
            )
        if references:
            refuse_to_mix(found[0], one, ())
    written: set[str] = set()
    for run, folder in zip(runs, folders, strict=True):
        count = 0
        for task, estimates in replay(run, data):
            name = f"{safe_name(task.id)}.png"
            write_bytes(folder / name, png(estimates[estimate].display))
            count += 1
            if references and name not in written:
                written.add(name)
                write_bytes(out / "lr" / name, png(task.lr_display))
                if task.reference.display is not None:
                    write_bytes(out / "hr" / name, png(task.reference.display))
        yield run, folder, count


def eight_bit(display: Array) -> npt.NDArray[np.uint8]:
    """Display values in [0, 1] as bytes; exact for images that a protocol rounded to 8 bit."""
    return np.rint(np.clip(display, 0, 1) * np.float32(255)).astype(np.uint8)


def png(display: Array) -> bytes:
    """A PNG of display values, float32 (H, W, 3) in [0, 1]."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(eight_bit(display)).save(buffer, "PNG")
    return buffer.getvalue()


def _folders(runs: Sequence[RunFolder], out: Path, reserved: Sequence[str]) -> list[Path]:
    names = [safe_name(run.path.resolve().name) for run in runs]
    for i, name in enumerate(names):
        if name in names[:i] or name in reserved:
            other = "another run" if name in names[:i] else "the references"
            raise RfbenchError(
                f"{run_name(runs[i])}: its pictures would go to {out / name}, as those of {other}; export it into "
                "another --out"
            )
    return [out / name for name in names]


def run_name(run: RunFolder) -> str:
    """A run folder's path for messages."""
    return one_line(run.path, 160)
