"""``rfbench table --against SOURCE``: printed numbers beside ours, each said to be what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli import cli
from bench.core import registry
from bench.reports.claims import sources
from tests.conftest import write_dataset


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("claims")
    data = write_dataset(folder / "data", count=2)
    words = ["run", "--model", "bicubic", "--model", "lanczos", "--data", str(data), "--metrics", "psnr_rgb"]
    done = CliRunner().invoke(
        cli, [*words, "--protocol", "paired", "--workers", "0", "--out", str(folder / "out")], standalone_mode=False
    )
    assert done.return_value == 0, (done.stderr, done.exception)
    return folder / "out"


def test_specs_hold_the_published_rows() -> None:
    found = sources()["opensr-test"]
    assert {"bicubic", "opensr", "satlas-esrgan", "sen2sr-lite"} <= set(found)
    for name, claim in found.items():
        assert claim.citation and claim.setting, name
        parts = [claim.numbers[f"opensr_{m}"] for m in ("improvement", "omission", "hallucination")]
        assert sum(parts) == pytest.approx(1, abs=0.0021), name  # they are shares of the counted pixels
        assert "published" not in registry.load("models", name).default_options


def test_a_system_s_own_numbers_are_by_their_benchmark() -> None:
    both = [sources()[name]["osediff"] for name in ("realsr", "drealsr")]
    assert [c.numbers["psnr_y"] for c in both] == [25.1511, 27.9243] and all("table 1" in c.citation for c in both)
    ours = {*registry.names("metrics"), "SSIM", "CLIPIQA", "MUSIQ", "FID"}  # the latter are computed otherwise here
    assert all(set(c.numbers) <= ours for c in both)


def test_the_table_shows_both_and_no_difference(run: Path) -> None:
    done = CliRunner().invoke(cli, ["table", str(run), "--against", "opensr-test"], standalone_mode=False)
    assert done.exception is None, done.exception
    lines = done.stdout.splitlines()
    printed = next(line for line in lines if line.startswith("| bicubic, printed"))
    assert "| 0.102 | 0.83 | 0.068 |" in printed
    ours = lines[lines.index(printed) + 1]
    assert ours.startswith("| bicubic, ours |") and "–" in ours  # the run has none of these metrics
    assert not any("lanczos" in line for line in lines) and "178 scenes" in done.stdout
    document = json.loads(
        CliRunner().invoke(cli, ["table", str(run), "--against", "opensr-test", "--format", "json"]).stdout
    )
    assert document[0]["model"] == "bicubic" and document[0]["ours"] == {"bicubic": dict.fromkeys(
        document[0]["printed"])}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--against", "opensr-tset"], "did you mean opensr-test"),
     (["--against", "opensr-test", "--format", "latex"], "expected markdown or json"),
     (["--against", "opensr-test", "--same", "data=x"], "--against paper")],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(run: Path, words: list[str], message: str) -> None:
    done = CliRunner().invoke(cli, ["table", str(run), *words], standalone_mode=False)
    assert message in str(done.exception)
