"""The shell blocks of README and the documentation, and the small world that they are run in."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from bench.check.pictures import picture
from tests.conftest import ROOT, write_dataset

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
ELSEWHERE = {"authors.md": "tests/e2e/test_authors_guide.py"}
"""Pages whose blocks another test runs to the letter."""
_BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```sh\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of shell: where it stands, its text, and why it is not run (empty where it is)."""

    page: str
    line: int
    text: str
    reason: str

    def commands(self) -> Iterator[list[str]]:
        """The words of each command, without comments."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def blocks(page: Path) -> list[Block]:
    """The shell blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page.name, text.count("\n", 0, found.start("text")), found["text"], found["reason"] or "")
        for found in _BLOCK.finditer(text)
    ]


def small(words: list[str]) -> list[str]:
    """A command of a page as it is run here: on few, small images, with few draws. All else of it stays."""
    if words[1] not in ("run", "predict"):
        return words
    drawn = any(word.startswith("rareflow") for word in words)
    at_most = {"--limit": "1" if drawn else "2"} | ({"--draws": "2"} if drawn or "--draws" in words else {})
    kept = [w for i, w in enumerate(words) if w not in at_most and words[i - 1] not in at_most]
    fitted = "bicubic-affine" in words  # it comes fitted for the embedded scenes alone
    data = [] if fitted or {"--data", "--config"} & set(words) else ["--data", "tiny"]
    return [*kept, *data, *(part for pair in at_most.items() for part in pair), "--workers", "0"]


def furnish(world: Path) -> None:
    """What the pages take for granted: images, folders and a model under the names that their blocks use."""
    world.mkdir()
    write_dataset(world / "tiny", count=6, hr_px=(100, 100))  # NIQE wants 96 px
    shutil.copytree(world / "tiny", world / "my-dataset")
    for i in range(2):
        hr = picture(i, 60, 60, 4)
        lr = hr.reshape(12, 5, 12, 5, 4).mean(axis=(1, 3))
        for side, image, gsd_m in (("hr", hr, 2), ("lr", lr, 10)):
            _geotiff(world / "PAIRS" / side / f"field_{i}.tif", (500 + 3000 * image).astype(np.uint16), gsd_m, i)
        for folder, image in (("PICTURES", hr), ("hr-images", hr), ("my-outputs", np.clip(hr * 1.1, 0, 1))):
            (world / folder).mkdir(exist_ok=True)
            pixels = np.round(image[:, :, :3] * 255).astype(np.uint8)
            Image.fromarray(pixels).save(world / folder / f"field_{i}.png")
    _geotiff(world / "s2.tif", (500 + 3000 * picture(9, 16, 16, 3)).astype(np.uint16), 10, 0)
    (model,) = re.findall(r"```python\n(import numpy.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (world / "mymodel.py").write_text(model)


def _geotiff(path: Path, image: np.ndarray, gsd_m: float, place: int) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    height, width, bands = image.shape
    where = {"crs": "EPSG:32633", "transform": from_origin(500_000 + 1000 * place, 7_700_000, gsd_m, gsd_m)}
    names = ("blue", "green", "red", "nir") if bands == 4 else ("blue", "green", "red")
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=image.dtype, **where
    ) as file:
        file.write(np.moveaxis(image, 2, 0))
        if path.name == "s2.tif":
            file.descriptions = names


def expanded(words: list[str], world: Path) -> list[str]:
    """``runs/bicubic-*`` as a shell has it."""
    found: list[str] = []
    for word in words:
        matches = sorted(str(p.relative_to(world)) for p in world.glob(word)) if "*" in word and "/" in word else []
        found += matches or [word]
    return found
