"""Every shell block of README and the documentation is run, on small images, or says why it is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.commands import rfbench
from tests.conftest import ROOT
from tests.docs.blocks import ELSEWHERE, PAGES, Block, blocks, expanded, furnish, small

RUN = {page.name: found for page in PAGES if (found := [b for b in blocks(page) if not b.reason])}
NOT_RUN_AT_MOST = 26
"""Blocks that need a network, weights, a cluster or people; each says so above it."""
_RUNS = "rfbench run --model bicubic --model lanczos:label=rareflow-like --metrics psnr_rgb,ssim_rgb --no-report"
MADE_BEFORE = {
    # page -> the commands that make what it takes for granted
    "score.md": ("rfbench data import folder PAIRS my-data --unit reflectance --scale 10000 --bands 'B G R NIR'",),
    "statistics.md": (_RUNS, f"{_RUNS} --out OUT"),
    "report.md": (_RUNS,),
}


def test_every_block_is_run_or_says_why_not() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    fences = sum(page.read_text(encoding="utf-8").count("```sh\n") for page in PAGES)
    assert len(found) == fences
    assert sum(bool(b.reason) for b in found) <= NOT_RUN_AT_MOST, "more blocks are not run; is that meant?"
    for place in ELSEWHERE.values():
        assert (ROOT / place).is_file()


def test_readme_is_read_in_ten_minutes() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 130


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = tmp_path_factory.mktemp("world") / "world"
    furnish(world)
    return world


@pytest.mark.parametrize("page", [name for name in RUN if name not in ELSEWHERE])
def test_the_blocks_of(page: str, furnished: Path, tmp_path: Path) -> None:
    world = tmp_path / "world"
    shutil.copytree(furnished, world)
    run(Block(page, 0, "\n".join(MADE_BEFORE.get(page, ())), ""), world)
    for block in RUN[page]:
        run(block, world)


def run(block: Block, world: Path) -> None:
    for words in block.commands():
        assert words[0] == "rfbench", f"{block.page}:{block.line}: {words[0]} is not run; say why above the block"
        done = rfbench(*expanded(small(words), world)[1:], cwd=world)
        assert done.returncode == 0, f"{block.page}:{block.line}: {' '.join(words)}\n{done.stderr}"
        assert "Traceback" not in done.stderr
