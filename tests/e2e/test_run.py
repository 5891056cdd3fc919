"""The whole way through the Python interface: numbers do not depend on how a run was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from bench.core.errors import NotComparable, RfbenchError
from bench.core.files import safe_name
from bench.records.folder import RunFolder
from tests.conftest import write_dataset
from tests.runs import planned
from tests.runs import run as run_models

# Metrics that need neither weights nor the slow imports, so that these tests are about the runner.
FAST = ("psnr_rgb", "ssim_rgb", "sam_rgb", "sam_refl", "logspec_l1", "d_lambda", "nll", "ece", "crps")


def run(data: Path | str, out: Path, *models: str, **options: Any) -> list[RunFolder]:
    request = dict(models=models or ("bicubic",), data=str(data), out=out, **{"metrics": FAST, "workers": 0} | options)
    return list(run_models(**request).folders)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a run folder but ``host.json``."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != "host.json"
    }


def scores(folder: RunFolder) -> pd.DataFrame:
    return folder.scores().drop(columns=["notes"])


def test_two_runs_are_equal_byte_for_byte(dataset: Path, tmp_path: Path) -> None:
    first, second = (run(dataset, tmp_path / name)[0] for name in ("a", "b"))
    assert tree(first.path) == tree(second.path)
    assert {"run.json", "images.parquet", "summary.json"} <= set(tree(first.path))
    assert not (first.path / "items").exists() and not (first.path / "scoring").exists()


def test_batch_workers_and_order_do_not_move_a_digit(dataset: Path, tmp_path: Path, plugin: Path) -> None:
    one_of_each = (*FAST, "fsim", "de00", "niqe", "cpsnr", "seams", "style_texture", "opensr_hallucination")
    base = run(dataset, tmp_path / "base", "bicubic", "noisy", metrics=one_of_each)
    rows = (dataset / "pairs.csv").read_text().splitlines()
    (dataset / "pairs.csv").write_text("\n".join([rows[0], *reversed(rows[1:])]) + "\n")
    variants = {
        "batch": run(dataset, tmp_path / "batch", "bicubic", "noisy", metrics=one_of_each, batch_size=3),
        "workers": run(dataset, tmp_path / "workers", "noisy", "bicubic", metrics=one_of_each, workers=2)[::-1],
    }
    for folders in variants.values():
        for one, other in zip(base, folders, strict=True):
            pd.testing.assert_frame_equal(scores(one), scores(other), check_exact=True)
            a, b = one.summary(), other.summary()
            assert a is not None and b is not None
            assert a.rows == b.rows


def test_draws_give_a_row_of_the_mean_and_a_distribution(dataset: Path, tmp_path: Path, plugin: Path) -> None:
    (folder,) = run(dataset, tmp_path / "out", "noisy")
    summary = folder.summary()
    assert summary is not None
    sample, mean = summary.rows["sample"], summary.rows["mean"]
    assert (sample.label, mean.label) == ("noisy", "noisy@mean")
    assert mean.metrics["psnr_rgb"].value > sample.metrics["psnr_rgb"].value
    for name in ("nll", "ece", "crps"):
        assert sample.metrics[name].value is not None
        assert "mean of the draws" in str(mean.metrics[name].reason)


def test_the_same_draw_has_the_same_noise_whatever_the_number_of_draws(
    dataset: Path, tmp_path: Path, plugin: Path
) -> None:
    few = run(dataset, tmp_path / "few", "noisy", draws=2)[0].predictions.read("im3")[0]["samples"]
    many = run(dataset, tmp_path / "many", "noisy", draws=5)[0].predictions.read("im3")[0]["samples"]
    other = run(dataset, tmp_path / "other", "noisy", draws=2, seed=1)[0].predictions.read("im3")[0]["samples"]
    np.testing.assert_array_equal(few, many[:2])
    assert np.abs(few - other).max() > 0.01
    assert np.abs(few[0] - few[1]).max() > 0.01


def test_one_bad_image_is_a_row_with_its_error_and_is_tried_again(dataset: Path, tmp_path: Path, plugin: Path) -> None:
    request = dict(
        models=("noisy:fail_on=im2",), data=str(dataset), out=tmp_path / "out", metrics=FAST, workers=0, batch_size=5
    )
    outcome = run_models(**request)
    assert outcome.failed.total() == 1
    frame = outcome.folders[0].scores().set_index("id")
    assert "does not suit me" in frame.loc["im2", "error"]
    assert frame.drop("im2")["error"].isna().all() and frame.drop("im2")["psnr_rgb"].notna().all()
    before = tree(outcome.folders[0].path)
    assert run_models(**request).failed.total() == 1
    assert tree(outcome.folders[0].path) == before


def test_a_corrupt_file_loses_its_image_only(dataset: Path, tmp_path: Path) -> None:
    (dataset / "hr" / "im1.npy").write_bytes(b"\x93NUMPY broken")
    (folder,) = run(dataset, tmp_path / "out")
    frame = folder.scores().set_index("id")
    assert "im1.npy" in frame.loc["im1", "error"]
    summary = folder.summary()
    assert summary is not None and summary.failed == ("im1",)
    assert summary.rows["sample"].metrics["psnr_rgb"].n == 4


def test_other_options_into_the_same_folder_are_refused(dataset: Path, tmp_path: Path) -> None:
    run(dataset, tmp_path / "out")
    with pytest.raises(RfbenchError, match=r"other options \(seed: it has 0, asked for 1\)"):
        run(dataset, tmp_path / "out", seed=1)


def test_a_model_beside_a_finished_one_leaves_it_alone(dataset: Path, tmp_path: Path, plugin: Path) -> None:
    (first,) = run(dataset, tmp_path / "out", "bicubic")
    before = tree(first.path)
    folders = run(dataset, tmp_path / "out", "bicubic", "nearest")
    assert tree(first.path) == before
    assert folders[1].summary() is not None
    # Also where the other one has an image that fails and the command is repeated.
    for _ in range(2):
        request = dict(
            models=("bicubic", "noisy:fail_on=im1"), data=str(dataset), out=tmp_path / "out", metrics=FAST, workers=0
        )
        assert run_models(**request).failed.total() == 1
        assert tree(first.path) == before


@pytest.mark.parametrize("lost", ["scores/psnr_rgb.*/scores.parquet", "scores/ece.*/metric.json", "predictions/im2.*"])
def test_a_damaged_run_is_made_again(dataset: Path, tmp_path: Path, lost: str) -> None:
    (folder,) = run(dataset, tmp_path / "out")
    before = tree(folder.path)
    (path,) = folder.path.glob(lost)
    path.write_bytes(b"damaged")
    run(dataset, tmp_path / "out")
    assert tree(folder.path) == before


def test_every_missing_value_has_its_reason_in_the_rows(dataset: Path, tmp_path: Path) -> None:
    (dataset / "hr" / "im1.npy").write_bytes(b"broken")
    (folder,) = run(dataset, tmp_path / "out", metrics=(*FAST, "lpips_alex", "niqe_ref"))
    frame = folder.scores()
    for name in (*FAST, "lpips_alex", "niqe_ref"):
        assert (frame[name].isna() == frame[f"{name}:reason"].notna()).all(), name


def test_one_draw_has_no_spread(dataset: Path, tmp_path: Path, plugin: Path) -> None:
    (folder,) = run(dataset, tmp_path / "out", "noisy", draws=1)
    summary = folder.summary()
    assert summary is not None and set(summary.rows) == {"sample"}
    assert "one draw has no spread" in str(summary.rows["sample"].metrics["nll"].reason)


def test_a_broken_lr_is_no_matter_to_bicubic_4x(dataset: Path, tmp_path: Path) -> None:
    (dataset / "lr" / "im1.npy").write_bytes(b"broken")
    (folder,) = run(dataset, tmp_path / "out", protocol="bicubic-4x")
    summary = folder.summary()
    assert summary is not None and summary.failed == ()


def test_files_are_found_by_id_and_by_safe_name(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", count=2)
    text = (data / "pairs.csv").read_text().replace("im0,s0", "Amnesty POI-20-2-2,s0").replace("im1,s0", "\u00fc,s0")
    (data / "pairs.csv").write_text(text)
    (bicubic,) = run(data, tmp_path / "out")
    (tmp_path / "predictions").mkdir()
    for name in ("Amnesty POI-20-2-2", "\u00fc"):
        arrays, _ = bicubic.predictions.read(name)
        stem = name if name.startswith("A") else safe_name(name)
        np.save(tmp_path / "predictions" / f"{stem}.npy", arrays["mean"][:, :, :3])
    model = f"files:folder={tmp_path / 'predictions'},unit=reflectance,label=again"
    (again,) = run(data, tmp_path / "out", model)
    one, other = bicubic.summary(), again.summary()
    assert one is not None and other is not None
    for name in ("psnr_rgb", "ssim_rgb", "sam_rgb"):
        assert one.rows["sample"].metrics[name] == other.rows["sample"].metrics[name]


def test_a_changed_pixel_changes_the_plan(dataset: Path, tmp_path: Path) -> None:
    before = planned(models=("bicubic",), data=str(dataset), metrics=FAST).runs["bicubic"].plan_sha256
    values = np.load(dataset / "hr" / "im0.npy")
    values[0, 0, 0] += 1
    np.save(dataset / "hr" / "im0.npy", values)
    after = planned(models=("bicubic",), data=str(dataset), metrics=FAST).runs["bicubic"].plan_sha256
    assert before != after


def test_a_fixed_scale_model_is_brought_to_the_grid_and_its_own_answer_kept(tmp_path: Path, plugin: Path) -> None:
    data = write_dataset(tmp_path / "five", hr_px=(75, 100), factor=5, count=2)
    post, pre = (run(data, tmp_path / p, "four", protocol=f"paired:policy={p}")[0] for p in ("post", "pre"))
    arrays, header = post.predictions.read("im0")
    assert arrays["mean"].shape == (75, 100, 3) and arrays["native_mean"].shape == (60, 80, 3)
    assert header["normalised"] is True
    assert pre.predictions.read("im0")[0]["native_mean"].shape == (76, 100, 3)
    assert "post resize" in post.scores()["notes"][0]


def test_host_specific_facts_are_in_host_json_alone(dataset: Path, tmp_path: Path) -> None:
    (folder,) = run(dataset, tmp_path / "out")
    assert str(tmp_path) not in (folder.path / "run.json").read_text()
    assert str(tmp_path) not in (folder.path / "summary.json").read_text()
    assert json.loads((folder.path / "host.json").read_text())["sessions"][0]["machine"]["cores"] >= 1


def test_hr_only_and_lr_only_data(dataset: Path, tmp_path: Path) -> None:
    (hr_only,) = run(dataset, tmp_path / "hr", protocol="bicubic-4x")
    assert hr_only.predictions.read("im0")[0]["mean"].shape == (60, 80, 4)
    rows = (dataset / "pairs.csv").read_text().replace("hr/im", "").splitlines()
    lines = [",".join([*(c for i, c in enumerate(r.split(",")) if i != 4)]) for r in rows]
    (dataset / "pairs.csv").write_text("\n".join(lines))
    (lr_only,) = run(dataset, tmp_path / "lr", protocol="paired:scale=2.5")
    assert lr_only.predictions.read("im0")[0]["mean"].shape == (38, 50, 4)
    summary = lr_only.summary()
    assert summary is not None
    cell = summary.rows["sample"].metrics["psnr_rgb"]
    assert cell.value is None and str(cell.reason) == "no reference image"


def test_a_fit_on_references_does_not_depend_on_where_a_model_failed(tmp_path: Path, plugin: Path) -> None:
    """niqe_ref is fitted on all references of the dataset; two models of one table are held against one fit."""
    pytest.importorskip("pyiqa")
    from bench.reports.table.build import build_table

    data = write_dataset(tmp_path / "data", count=5, hr_px=(288, 288))
    options = {"metrics": ("niqe_ref",)}
    whole, failing = run(data, tmp_path / "out", "bicubic", "noisy:fail_on=im2", **options)
    one, other = (f.summary().rows["sample"].metrics["niqe_ref"] for f in (whole, failing))
    assert one.identity == other.identity
    assert f"|fit:{one.details['fit_sha256'][:8]}|" in one.identity
    assert (one.n, other.n, other.details["references"]) == (5, 4, 5)
    assert other.details["blocks"] == one.details["blocks"]
    kept, expected = (load_file(f.metric("niqe_ref").path / "features.safetensors") for f in (failing, whole))
    assert kept["sample/fitted:covariance"].shape == (36, 36)
    assert kept["sample/fitted:mean"] == pytest.approx(expected["sample/fitted:mean"])

    table = build_table([whole, failing])
    assert table.columns[0].identity == one.identity
    summary = json.loads((failing.path / "summary.json").read_text())
    fitted = summary["rows"]["sample"]["metrics"]["niqe_ref"]
    fitted["identity"] = fitted["identity"].replace("|fit:", "|fit:0")
    (failing.path / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(NotComparable, match="niqe_ref: found values of two identities"):
        build_table([whole, failing])


# --- two stages -----------------------------------------------------------------------------------------------


def stamps(folder: RunFolder) -> dict[str, tuple[bytes, int]]:
    """The bytes of the predictions, and when they were written."""
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in (folder.path / "predictions").iterdir()}


def test_a_metric_added_later_ends_in_the_same_bytes_and_touches_no_prediction(
    dataset: Path, tmp_path: Path, plugin: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (at_once,) = run(dataset, tmp_path / "at-once", "noisy", metrics=("psnr_rgb", "ece", "sam_rgb"))
    (later,) = run(dataset, tmp_path / "later", "noisy", metrics=("psnr_rgb",))
    before = stamps(later)
    for metrics in (("sam_rgb",), ("psnr_rgb", "ece")):
        run(dataset, tmp_path / "later", "noisy", metrics=metrics)
    assert stamps(later) == before
    assert tree(later.path) == tree(at_once.path)
    said = capsys.readouterr().err
    assert "noisy: 5 of 5 predictions were there" in said
    assert "noisy: 1 of 2 metrics were there; computing ece" in said


def test_a_metric_that_failed_is_computed_by_the_same_command_and_no_other(
    dataset: Path, tmp_path: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = run(dataset, tmp_path / "whole", metrics=("psnr_rgb", "mean_error"))
    from rfbench_example import MeanError

    with monkeypatch.context() as patch:
        patch.setattr(MeanError, "value", lambda self, estimate, reference, state: 1 / 0)
        (folder,) = run(dataset, tmp_path / "out", metrics=("psnr_rgb", "mean_error"))
    cell = folder.summary().rows["sample"].metrics["mean_error"]
    assert cell.value is None and cell.reason.kind == "failed" and "ZeroDivisionError" in str(cell.reason)
    (psnr,) = folder.path.glob("scores/psnr_rgb.*/metric.json")
    written = psnr.stat().st_mtime_ns
    run(dataset, tmp_path / "out", metrics=("psnr_rgb", "mean_error"))
    assert tree(folder.path) == tree(whole.path)
    assert psnr.stat().st_mtime_ns == written


MODEL = """
import numpy as np
from rfbench import Adapter, Prediction, resize

class Mine(Adapter):
    '''{doc}'''
    def upscale(self, batch):
        images = [resize(image, batch.size) for image in batch.images]
        return Prediction(mean=np.clip({factor} * np.stack(images), 0, 1).astype(np.float32))
"""


def of_file(path: Path, doc: str, factor: float) -> str:
    """A model by the file of its code, as it stands there now."""
    import sys

    path.write_text(MODEL.format(doc=doc, factor=factor))
    for name in [n for n in sys.modules if n.startswith("rfbench_model_")]:
        del sys.modules[name]  # as a new process would
    return f"{path}:Mine"


def test_changed_code_is_predicted_anew_and_reworded_code_is_not(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mymodel.py"
    (first,) = run(dataset, tmp_path / "out", of_file(file, "One.", 0.9), metrics=("psnr_rgb",))
    before, number = stamps(first), first.scores()["psnr_rgb"][0]
    run(dataset, tmp_path / "out", of_file(file, "Reworded.", 0.9), metrics=("psnr_rgb",))
    assert stamps(first) == before and "its code has changed" not in capsys.readouterr().err
    run(dataset, tmp_path / "out", of_file(file, "One.", 0.5), metrics=("psnr_rgb",))
    assert first.scores()["psnr_rgb"][0] != number
    assert "mine: predicted anew, since its code has changed; the old run lies in" in capsys.readouterr().err
    (old,) = (tmp_path / "out" / "superseded").iterdir()
    assert RunFolder(old).scores()["psnr_rgb"][0] == number


def test_an_interrupted_run_of_old_code_does_not_mix_with_the_new(dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "mymodel.py"
    from bench.records.types import ItemRecord
    from tests.runs import planned

    options = {"data": str(dataset), "out": tmp_path / "out"}
    plan = planned(models=(of_file(file, "", 0.9),), **options)
    (half,) = run(dataset, tmp_path / "half", f"{file}:Mine", metrics=("psnr_rgb",))
    folder = plan.folders["mine"]
    folder.start(plan.runs["mine"])
    for i in ("im0", "im1"):  # as a kill leaves it
        arrays, header = half.predictions.read(i)
        item = half.images()[i]
        assert folder.predictions.write(i, arrays, header) == item.prediction_sha256
        folder.predictions.commit(ItemRecord(**{f: getattr(item, f) for f in item.__struct_fields__}))
    (mixed,) = run(dataset, tmp_path / "out", of_file(file, "", 0.5), metrics=("psnr_rgb",))
    (pure,) = run(dataset, tmp_path / "pure", f"{file}:Mine", metrics=("psnr_rgb",))
    assert list(mixed.scores()["psnr_rgb"]) == list(pure.scores()["psnr_rgb"])


def test_fresh_begins_anew(dataset: Path, tmp_path: Path) -> None:
    (folder,) = run(dataset, tmp_path / "out", metrics=("psnr_rgb",))
    before = stamps(folder)
    run(dataset, tmp_path / "out", metrics=("psnr_rgb",), fresh=True)
    assert {n: b for n, (b, _) in stamps(folder).items()} == {n: b for n, (b, _) in before.items()}
    assert stamps(folder) != before and len(list((tmp_path / "out" / "superseded").iterdir())) == 1


def test_images_that_are_predicted_at_last_bring_all_metrics_up_to_date(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plugin: Path
) -> None:
    (whole,) = run(dataset, tmp_path / "whole", "noisy", metrics=("psnr_rgb", "ece"))
    from rfbench_example import Noisy

    upscale = Noisy.upscale
    with monkeypatch.context() as patch:

        def failing(self: object, batch: object) -> object:
            if "im2" in batch.ids:  # type: ignore[attr-defined]
                raise ValueError("not today")
            return upscale(self, batch)

        patch.setattr(Noisy, "upscale", failing)
        (folder,) = run(dataset, tmp_path / "out", "noisy", metrics=("psnr_rgb", "ece"))
        assert folder.summary().failed == ("im2",)
    run(dataset, tmp_path / "out", "noisy", metrics=("psnr_rgb",))  # ece was asked for before
    assert tree(folder.path) == tree(whole.path)
