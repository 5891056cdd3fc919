"""Runs in parts, put together, have the bytes of a run in one piece, whatever the order; what is missing is told."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bench.cli import cli
from bench.core.errors import RfbenchError
from bench.predict.plan import Request, make_plan
from bench.score.merge import merge
from tests.e2e.test_run import tree

METRICS = "psnr_rgb,crps,logspec_l1,niqe_ref"
"""With draws, of an image and of the set."""


@pytest.fixture
def words(dataset: Path, plugin: Path) -> Sequence[str]:
    return ["--model", "noisy", "--model", "bicubic", "--data", str(dataset), "--draws", "2", "--workers", "0"]


def call(*words: object) -> Any:
    return CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False)


def test_three_parts_make_the_run(words: Sequence[str], tmp_path: Path) -> None:
    """In any order, one of them twice, and merged twice."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert call("run", *words, "--metrics", METRICS, "--out", whole).return_value == 0
    for i in (3, 1, 2, 1):
        done = call("run", *words, "--metrics", METRICS, "--out", parts, "--shard", f"{i}/3")
        assert done.return_value == 0 and not done.stdout and f"part {i} of 3" in done.stderr, done.output
    assert not list(parts.glob("*/run.json")), "a part is no run"
    assert call("merge", parts, "--keep").return_value == 0
    shutil.rmtree(parts / "bicubic")
    assert call("merge", parts).return_value == 0
    (parts / ".noisy.shards.gone" / "2-of-3").mkdir(parents=True)  # as a kill leaves them while they are removed
    for place in (parts, parts / "noisy.shards"):
        assert call("merge", place).return_value == 0
        assert sorted(p.name for p in parts.iterdir()) == ["bicubic", "noisy"]
    for name in ("noisy", "bicubic"):
        assert tree(parts / name) == tree(whole / name)
    again = call("run", *words, "--metrics", METRICS, "--out", parts)
    assert "5 of 5 predictions were there" in again.stderr and "nothing is left to compute" in again.stderr


def test_parts_that_were_only_predicted_are_scored_afterwards(words: Sequence[str], tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    call("run", *words, "--metrics", "psnr_rgb", "--batch-size", 2, "--out", whole)
    for i in (1, 2):
        assert call("predict", *words, "--batch-size", 2, "--out", parts, "--shard", f"{i}/2").return_value == 0
    merge([parts])
    call("score", parts, "--metrics", "psnr_rgb", "--workers", 0)
    assert tree(parts / "noisy") == tree(whole / "noisy")


def test_what_is_missing_or_foreign_is_one_line(words: Sequence[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RfbenchError, match="holds no parts of runs"):
        merge([tmp_path])
    call("predict", *words, "--out", out, "--shard", "1/2")
    with pytest.raises(RfbenchError, match="found 1 of 2 parts; run the same command with --shard 2/2"):
        merge([out])
    call("predict", *words, "--seed", 1, "--out", out, "--shard", "2/2")
    with pytest.raises(RfbenchError, match=r"2-of-2 is of another run \(seed: it has 1, the first part 0\)"):
        merge([out])
    shutil.rmtree(out / "noisy.shards" / "2-of-2")
    shutil.rmtree(out / "bicubic.shards")
    call("predict", *words, "--out", out, "--shard", "2/2")
    lost = min((out / "noisy.shards" / "2-of-2" / "items").iterdir())
    record = lost.read_bytes()
    lost.unlink()
    with pytest.raises(RfbenchError, match="1 of 5 images are in no part, first 'im1'"):
        merge([out / "noisy.shards"])
    lost.write_bytes(record)
    min((out / "noisy.shards" / "2-of-2" / "predictions").iterdir()).write_bytes(b"damaged")
    with pytest.raises(RfbenchError, match="is damaged or missing; run that part again"):
        merge([out / "noisy.shards"])
    assert (out / "noisy.shards").is_dir(), "parts go only when the run is whole"


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/2/3", "-1/2"])
def test_a_part_is_one_of_all(text: str) -> None:
    error = call("run", "--model", "bicubic", "--shard", text).exception
    assert error is not None and "expected I/N" in str(getattr(error, "message", error))


def test_parts_are_of_whole_batches(dataset: Path) -> None:
    """Every second batch each, so that long and short work is shared out."""
    request = Request(models=("bicubic",), data=str(dataset), batch_size=2, shard=(1, 2))
    assert [[r.id for r in batch] for batch in make_plan(request).batches(2)] == [["im0", "im1"], ["im4"]]


def test_the_batches_of_parts_are_known_beforehand(dataset: Path) -> None:
    request = Request(("bicubic:batch=auto",), data=str(dataset), device="cuda", is_remote=True)
    with pytest.raises(RfbenchError, match="found the batch size auto with --shard or on a cluster"):
        make_plan(request)


def test_executors_take_their_own_options() -> None:
    error = call("run", "--model", "bicubic", "--actors", "2").exception
    assert "--actors goes with --executor ray" in str(error)
    error = call("run", "--model", "bicubic", "--executor", "ray", "--device", "cuda:1").exception
    assert "where --gpus-per-model says what models run on" in str(error)
