"""bicubic-affine: the fit against numpy's least squares, the map against its definition, the command's file."""

from __future__ import annotations

import json
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines import affine
from bench.core.errors import RfbenchError
from bench.core.files import id_hash, sha256, write_json
from bench.core.resample import resize
from bench.data.dataset import FolderDataset
from bench.data.embedded import EmbeddedScenes
from bench.models import Batch
from bench.models.call import Model
from bench.protocols.paired import Paired
from tests.commands import python
from tests.conftest import picture, write_dataset


def pixels(seed: int, count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (count, 3))
    return x, x @ rng.uniform(0, 0.5, (3, 3)) + 0.1 + rng.normal(0, 0.05, (count, 3))


def test_the_fit_is_the_least_squares_over_all_pixels() -> None:
    pairs = [pixels(i, 300 + 100 * i) for i in range(4)]
    matrix, facts = affine.fit(pairs)
    x = np.concatenate([np.column_stack([x, np.ones(len(x))]) for x, _ in pairs])
    y = np.concatenate([y for _, y in pairs])
    expected = np.linalg.lstsq(x, y, rcond=None)[0]
    np.testing.assert_allclose(matrix, expected.T, atol=1e-8)
    assert facts["pixels"] == len(x) == 1800
    assert facts["rmse_bicubic"] == pytest.approx(np.sqrt(np.mean((y - x[:, :3]) ** 2)), abs=1e-8)
    assert facts["rmse_fitted"] == pytest.approx(np.sqrt(np.mean((y - x @ expected) ** 2)), abs=1e-8)


def test_a_known_map_is_found_again() -> None:
    true = np.array([[0.9, 0.2, -0.1, 0.05], [0.0, 1.1, 0.1, -0.02], [0.3, 0.1, 0.5, 0.0]])
    x = np.random.default_rng(0).uniform(0, 1, (200, 3))
    matrix, facts = affine.fit([(x, x @ true[:, :3].T + true[:, 3])])
    np.testing.assert_allclose(matrix, true, atol=1e-8)
    assert facts["rmse_fitted"] < 1e-6


def test_grey_pixels_do_not_fix_a_map() -> None:
    grey = np.random.default_rng(0).uniform(0, 1, (200, 1)).repeat(3, 1)
    with pytest.raises(RfbenchError, match="200 pixels do not fix a colour map"):
        affine.fit([(grey, grey)])
    with pytest.raises(RfbenchError, match="0 pixels"):
        affine.fit([])


def fit_file(path: Path, **changes: Any) -> Path:
    matrix = [[0.5, 0.1, 0.0, 0.2], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 1.0, -0.3]]
    write_json(path, {"format": 1, "matrix": matrix, "training_ids": "", **changes})
    return path


def test_the_answer_is_the_map_of_the_bicubic_image(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    images = np.stack([picture(i, 8, 9) for i in range(2)]).astype(np.float32)
    batch = Batch(images, (40, 36), ("R", "G", "B"), ("a", "b"), ("", ""), ((1,), (2,)))
    found = affine.BicubicAffine(fit=str(fit_file(tmp_path / "fit.json"))).upscale(batch).mean
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    up = torch.nn.functional.interpolate(x, size=(40, 36), mode="bicubic", antialias=True, align_corners=False)
    r, g, b = up.double().numpy().transpose(1, 0, 2, 3)
    expected = np.clip(np.stack([0.5 * r + 0.1 * g + 0.2, 2 * g, b - 0.3], -1), 0, 1)
    assert found is not None and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert found.min() == 0 and found.max() == 1  # both clips were needed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": 2}, "no colour map of format 1"),
        ({"matrix": [[1, 2, 3]] * 3}, "no matrix of 3x4 finite numbers"),
        ({"matrix": "one"}, "no matrix of 3x4 finite numbers"),
        ({"matrix": [[1e999, 0, 0, 0]] * 3}, "not readable JSON|no matrix"),
        ({"training_ids": None}, "no training_ids"),
    ],
)
def test_a_broken_fit_is_one_line(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    path = fit_file(tmp_path / "fit.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    with pytest.raises(RfbenchError, match=message):
        affine.BicubicAffine(fit=str(path))
    with pytest.raises(RfbenchError, match="is missing"):
        affine.BicubicAffine(fit=str(tmp_path / "none.json"))


def test_the_file_s_hash_is_the_identity_and_its_place_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one, same = fit_file(tmp_path / "one.json"), fit_file(tmp_path / "a" / "same.json")
    other = fit_file(tmp_path / "other.json", training_ids="00ff00ff00ff00ff")
    identities = [Model(f"bicubic-affine:fit={path}").identity() for path in (one, same, other)]
    assert identities[0] == identities[1] != identities[2]
    assert identities[0]["adapter"]["fit_sha256"] == sha256(one) and str(tmp_path) not in json.dumps(identities)


def command(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return python("baselines.affine", *words, cwd=cwd)


def test_the_command_fits_what_metrics_see(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "tiny")
    words = ("--data", str(folder), "--split", "test", "--limit", "4", "--out")
    done = command(*words, "fit.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = command(*words, str(tmp_path / "again.json"), cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    found, other = (json.loads((tmp_path / name).read_text()) for name in ("fit.json", "again.json"))
    assert found.pop("command") == "python -m baselines.affine --data tiny --split test --limit 4 --out fit.json"
    assert other.pop("command").endswith("--out again.json") and found == other
    assert str(tmp_path) not in (tmp_path / "fit.json").read_text()
    dataset = FolderDataset(folder)
    records = dataset.records("test")[:4]
    assert found["data"]["fingerprint"] == dataset.fingerprint(records) and found["data"]["last_id"] == "im3"
    assert found["training_ids"].split() == [id_hash(f"im{i}") for i in range(4)]
    x, y = [], []
    for record in records:
        task = Paired().prepare(dataset.load(record))
        (answer,) = Model("bicubic").predict([task], run_seed=0, draws=1)
        x.append(answer.arrays["mean"][:, :, :3] / 0.3)  # bicubic in reflectance, fixed[0,3000]
        y.append(task.reference.display_float)
    x1 = np.column_stack([np.reshape(x, (-1, 3)), np.ones(np.size(x) // 3)])
    expected = np.linalg.lstsq(x1, np.reshape(y, (-1, 3)), rcond=None)[0]
    np.testing.assert_allclose(found["matrix"], expected.T, atol=2e-4)
    assert found["pixels"] == len(x1) == 4 * 60 * 80


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--split", "train"], "has no images in the split 'train'"),
        (["--split", "test", "--limit", "0"], "0 is not in the range"),
        (["--split", "test", "--normalisation", "fixed"], "expected fixed"),
        (["--splt", "test"], "No such option"),
    ],
)
def test_errors_of_the_command_are_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    folder = write_dataset(tmp_path / "tiny", count=1)
    done = command("--data", str(folder), *words, "--out", "fit.json", cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "fit.json").exists()


def test_the_shipped_fit_was_made_by_the_command_from_training_scenes() -> None:
    found = json.loads(affine.FITTED.read_text())
    assert found["command"].startswith("python -m baselines.affine --data scenes --split train")
    assert found["data"]["split"] == "train" and "--seed 2026" not in found["data"]["command"]
    assert found["images"] == len(found["training_ids"].split()) and found["rmse_fitted"] < found["rmse_bicubic"]
    trained = affine.BicubicAffine(fit="").training_ids()
    assert id_hash(found["data"]["first_id"]) in trained
    from bench.data.embedded import SCENES

    assert not {id_hash(r.id) for r in SCENES().records("test")} & trained


def with_train(folder: Path, *, train: int = 3) -> Path:
    """A paired dataset whose first images are a split for training."""
    write_dataset(folder)
    rows = (folder / "pairs.csv").read_text().splitlines()
    rows[1 : 1 + train] = [row.replace(",test,", ",train,") for row in rows[1 : 1 + train]]
    (folder / "pairs.csv").write_text("\n".join(rows) + "\n")
    return folder


def least_squares(data: FolderDataset, records: Any) -> np.ndarray:
    """numpy's own solution over all pixels at once, float64 (3, 4)."""
    tasks = [Paired().prepare(data.load(r)) for r in records]
    x = np.concatenate([resize(t.lr_display, t.size).reshape(-1, 3) for t in tasks]).astype(np.float64)
    y = np.concatenate([t.reference.display_float.reshape(-1, 3) for t in tasks]).astype(np.float64)
    return np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0].T


def test_a_run_fits_on_the_train_split_of_its_dataset(tmp_path: Path) -> None:
    data = FolderDataset(with_train(tmp_path / "d"))
    model = Model("bicubic-affine")
    shipped = model.identity()
    model.fit_to(data, "test", Paired())
    np.testing.assert_allclose(model.adapter.matrix, least_squares(data, data.records("train")), atol=1e-7)
    assert model.identity() != shipped and model.training_ids == {id_hash(r.id) for r in data.records("train")}
    again = Model("bicubic-affine")
    again.fit_to(data, "test", Paired())
    assert again.identity() == model.identity()
    other = Model("bicubic-affine")
    other.fit_to(data, "test", Paired(normalisation="percentile[2,98]"))
    assert other.identity() != model.identity()


def test_without_a_train_split_a_fit_is_asked_for(tmp_path: Path) -> None:
    data = FolderDataset(write_dataset(tmp_path / "d"))
    with pytest.raises(RfbenchError, match=r"no split 'train' .* give bicubic-affine:fit=FILE .*:held-out=scene"):
        Model("bicubic-affine").fit_to(data, "test", Paired())
    model = Model("bicubic-affine")
    model.fit_to(EmbeddedScenes(), "test", Paired())  # these keep the fit of the package
    assert model.identity() == Model("bicubic-affine").identity()


def test_a_scene_s_map_is_fitted_on_all_other_scenes(tmp_path: Path) -> None:
    data = FolderDataset(write_dataset(tmp_path / "d"))
    model = Model("bicubic-affine:held-out=scene")
    assert model.label == "bicubic-affine (leave-one-scene-out)"
    model.fit_to(data, "test", Paired())
    records = data.records("test")
    for record in records:
        others = [r for r in records if r.scene_id != record.scene_id]
        np.testing.assert_allclose(model.adapter._by_id[record.id], least_squares(data, others), atol=1e-7)
    with pytest.raises(RfbenchError, match="exclude each other"):
        Model(f"bicubic-affine:held-out=scene,fit={tmp_path / 'x.json'}")


def test_a_single_image_is_not_mapped_like_the_scenes_in_silence(tmp_path: Path) -> None:
    images = picture(0, 8, 9).astype(np.float32)[None]
    batch = Batch(images, (40, 36), ("R", "G", "B"), ("a",), ("",), ((1,),))
    with pytest.warns(UserWarning, match="mapped as those of the procedural scenes, .* give bicubic-affine:fit=FILE"):
        affine.BicubicAffine(fit="").upscale(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        affine.BicubicAffine(fit=str(fit_file(tmp_path / "fit.json"))).upscale(batch)
        model = Model("bicubic-affine")
        model.fit_to(EmbeddedScenes(), "test", Paired())
        model.adapter.upscale(batch)
