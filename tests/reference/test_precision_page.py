"""docs/precision.md says what the comparisons say: all of them, none beyond its tolerance, and in their words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.core import registry
from tests import precision
from tests.conftest import ROOT
from tests.reference.cases import cases
from tests.reference.definitions import DEFINITIONS

PAPER = (
    "PSNR", "SSIM", "FSIM", "LPIPS", "DISTS", "FID", "NIQE", "MANIQA", "SAM", "ΔE00", "NLL", "ECE", "QNR", "D_λ", "D_s",
)  # fmt: skip
ROW = re.compile(r"\| (\*\w.*) \| (\S+) \| (\S+) \| (.*) \| (\S+)( of it)? \|")


def problems(text: str) -> list[str]:
    """What is wrong with a page: metrics that it lacks, words that are not the cases', differences beyond."""
    found = [f"no section on {name}" for name in registry.names("metrics") if f": `{name}`\n" not in text]
    for line in text.splitlines():
        row = ROW.fullmatch(line)
        if row and row[4].startswith("needs "):
            found += [] if row[2] == row[3] == "–" else [f"numbers without what they need: {line}"]
        elif row and not float(row[4].removesuffix(" of it")) <= float(row[5]):
            found.append(f"beyond: {line}")
        elif row and abs(float(row[2]) - float(row[3])) > 2 * float(row[5]) * (abs(float(row[3])) if row[6] else 1) + (
            1e-7 * abs(float(row[3]))
        ):
            found.append(f"the numbers differ by more than it says: {line}")
    here = precision.page(cases(), {case.name: "" for case in cases()})
    if _words(text) != _words(here):
        odd = set(_words(text).splitlines()) ^ set(_words(here).splitlines())
        found.append(f"stale, run {precision.COMMAND}: {sorted(odd)[:4]}")
    return found


def _words(text: str) -> str:
    """The page without what a machine or a version may change."""
    text = re.sub(r"(?ms)^Versions: .*?\n\n", "", text)
    text = re.sub(r"(?m)^(\| `.*) \| \d+ \| \d+ \|$", r"\1", text)
    text = re.sub(r"(?m)^(    \w+_dinov2\|.*)\|w:\w+", r"\1", text)  # a hash is recorded where its file is
    return "\n".join(f"{row[1]}, {row[5]}{row[6]}" if (row := ROW.fullmatch(x)) else x for x in text.splitlines())


@pytest.fixture(scope="module")
def committed() -> str:
    return precision.PAGE.read_text(encoding="utf-8")


def test_the_committed_page_is_whole_and_up_to_date(committed: str) -> None:
    assert problems(committed) == []
    assert all(any(d.paper.split(",")[0] == name for d in DEFINITIONS.values()) for name in PAPER)
    assert str(ROOT.parent) not in committed


def test_a_page_that_is_not_is_found(committed: str) -> None:
    row = next(x for x in committed.splitlines() if ROW.fullmatch(x) and "needs" not in x)
    _, ours, theirs, apart, allowed = (cell.strip() for cell in row.strip("|").split(" | "))
    worse = row.replace(f"| {apart} | {allowed} |", f"| 1.0e+00 | {allowed} |")
    assert any(p.startswith("beyond") for p in problems(committed.replace(row, worse)))
    other = row.replace(f"| {ours} | {theirs} |", f"| {ours} | 9{theirs} |")
    assert any(p.startswith("the numbers differ") for p in problems(committed.replace(row, other)))
    looser = row.replace(f"{allowed} |", f"{allowed}0 |")
    assert any(p.startswith("stale") for p in problems(committed.replace(row, looser)))
    assert any(p.startswith("stale") for p in problems(committed.replace(row + "\n", "")))
    without = committed.replace(": `psnr_rgb`\n", "\n")
    assert "no section on psnr_rgb" in problems(without)
    assert any(p.startswith("stale") for p in problems(committed.replace("psnr_rgb|rgb|", "psnr_rgb|bgr|")))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes each time, nothing left over, and exit code 1 where a difference is beyond."""
    light = [c for c in cases() if c.metric in ("psnr_y", "nll")]
    monkeypatch.setattr(precision, "cases", lambda: tuple(light))
    written = []
    for name in ("a.md", "b.md"):
        assert precision.main(["--out", str(tmp_path / name)]) == 0
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] and sorted(p.name for p in tmp_path.iterdir()) == ["a.md", "b.md"]
    assert precision.main(["--only", "nll"]) == 0
    out = capsys.readouterr()
    assert "## NLL: `nll`" in out.out and "psnr_y" not in out.out.split("a.md")[-1].split("b.md")[-1]
    import dataclasses

    off = dataclasses.replace(light[0], measure=lambda: (1.0, 2.0))
    monkeypatch.setattr(precision, "cases", lambda: (off,))
    assert precision.main(["--out", str(tmp_path / "c.md")]) == 1
    assert "beyond what is allowed: psnr_y" in capsys.readouterr().err
