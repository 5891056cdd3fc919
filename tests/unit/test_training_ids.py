"""A model is not scored on images that it was trained on, unless the user insists; then tables say so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.cli.run import command as run_command
from bench.cli.table import command as table_command
from bench.core.errors import RfbenchError
from bench.core.files import id_hash, write_json
from tests.runs import planned
from tests.runs import run as run_models

MATRIX = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0]]


@pytest.fixture
def trained_on_two(tmp_path: Path) -> str:
    """A model whose training ids hold two of the five images of ``dataset``."""
    ids = " ".join(id_hash(i) for i in ("im1", "im4", "elsewhere"))
    write_json(tmp_path / "fit.json", {"format": 1, "matrix": MATRIX, "training_ids": ids})
    return f"bicubic-affine:fit={tmp_path / 'fit.json'}"


def test_the_hash_of_an_id_is_what_the_documents_say() -> None:
    assert id_hash("scene_0001") == hashlib.blake2b(b"scene_0001", digest_size=8).hexdigest()
    assert id_hash("Žilina") == hashlib.blake2b("Žilina".encode(), digest_size=8).hexdigest()
    assert len(id_hash("")) == 16 and id_hash("\udc80")  # an id that is no text still has one


def test_a_run_on_training_images_is_refused_before_anything_is_written(
    dataset: Path, trained_on_two: str, tmp_path: Path
) -> None:
    words = ["--model", "bicubic", "--model", trained_on_two, "--data", str(dataset), "--out", str(tmp_path / "out")]
    with pytest.raises(RfbenchError) as error:
        CliRunner().invoke(run_command, words, catch_exceptions=False)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    assert "bicubic-affine was trained on 2 of these 5 images (im1, im4)" in str(error.value)
    assert "--split or --data" in str(error.value) and "--allow-train" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_only_the_images_of_the_run_count(dataset: Path, trained_on_two: str, tmp_path: Path) -> None:
    plan = planned(models=(trained_on_two,), data=str(dataset), limit=1, metrics=("psnr_rgb",))
    (record,) = plan.runs.values()
    assert not record.allow_train and "--allow-train" not in record.command


def test_an_allowed_run_is_recorded_and_marked(dataset: Path, trained_on_two: str, tmp_path: Path) -> None:
    request = dict(
        models=("bicubic", trained_on_two), data=str(dataset), metrics=("psnr_rgb",), workers=0, out=tmp_path / "out",
        allow_train=True,
    )  # fmt: skip
    runs = {f.path.name: f.record() for f in run_models(**request).folders}
    fitted, bicubic = runs["bicubic-affine"], runs["bicubic"]
    assert fitted.allow_train and fitted.seen_in_training == 2
    assert bicubic.allow_train and bicubic.seen_in_training == 0
    assert "--allow-train" in fitted.command and "--allow-train" not in bicubic.command
    # The numbers are those of the plan: to insist changes none of them.
    alone = planned(models=("bicubic",), data=str(dataset), metrics=("psnr_rgb",))
    assert alone.runs["bicubic"].plan_sha256 == bicubic.plan_sha256
    text = CliRunner().invoke(table_command, [str(tmp_path / "out")], catch_exceptions=False).stdout
    (row,) = [line for line in text.splitlines() if line.startswith("| bicubic-affine")]
    assert row.startswith("| bicubic-affine (trained on 2 of these) ")
    assert "bicubic-affine: 2 of the 5 images were among those it was trained on (--allow-train)" in text
    as_json = CliRunner().invoke(table_command, [str(tmp_path / "out"), "--format", "json"], catch_exceptions=False)
    seen = {row["model"]: row["run"]["seen_in_training"] for row in json.loads(as_json.stdout)["rows"]}
    assert seen == {"bicubic": 0, "bicubic-affine (trained on 2 of these)": 2}
