"""SAMSR and MISR-S2 as guests, over stand-ins with their module names and signatures: what goes in, what comes out."""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.misr_s2 import adapter as misr
from baselines.misr_s2.spec import MISR_S2
from baselines.samsr.spec import SAMSR
from bench import weights
from bench.check.models import check_model, check_task
from bench.core import registry
from bench.core.errors import ItemError, RfbenchError, Unavailable
from bench.core.image import Image
from bench.data.dataset import Pair, Record, Side
from bench.data.readers import Series
from bench.models.call import Answer, Model
from bench.models.guests import checkout, guest
from bench.models.guests.adapter import GuestAdapter
from bench.models.guests.adapter import header as guest_header
from bench.models.ready import missing, next_step
from bench.models.spec import Batch, Prediction
from bench.protocols.base import Task
from bench.protocols.paired import Paired
from tests import fake_upstreams
from tests.conftest import ROOT
from tests.guests import left_behind

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture(scope="module")
def upstreams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both systems with a stand-in as their checkout, and environments."""
    folder = tmp_path_factory.mktemp("systems")
    # Small tiles: what is proven of them does not depend on their size.
    with fake_upstreams.installed(folder, max_side_px=64, overlap_px=16):
        yield folder
    assert not left_behind(folder)


def loaded(text: str) -> Model:
    model = Model(text)
    model.check_ready()
    model.load()
    return model


def ask(model: Model, *tasks: Task, draws: int = 1, seed: int = 0) -> list[Answer]:
    found = model.predict(tasks, run_seed=seed, draws=draws)
    assert all(isinstance(f, Answer) for f in found), found
    return [f for f in found if isinstance(f, Answer)]


# --- SAMSR ----------------------------------------------------------------------------------------------------


def test_samsr_keeps_a_model_s_promises(upstreams: Path) -> None:
    report = check_model("samsr")  # with random weights
    assert report.exit_code == 0, [str(line) for line in report.lines if line.status != "pass"]
    assert {line.check for line in report.lines if line.status == "skip"} == {"captions"}


def test_samsr_names_the_files_that_it_needs(upstreams: Path) -> None:
    assert set(Model("samsr").spec.weights) == {"SamSR_v1.pth", "autoencoder_vq_f4.pth", "sam_vit_b_01ec64.pth"}
    other = Model("samsr:version=v2")
    assert "SamSR_v2.pth" in other.spec.weights and "SamSR_v1.pth" not in other.spec.weights
    assert (other.label, Model("samsr:weights=random").label) == ("samsr-v2", "samsr-random")
    assert Model("samsr:weights=random").spec.weights == {}
    with pytest.raises(Unavailable, match=r"model samsr: weights missing: SamSR_v1.pth .*'rfbench weights fetch"):
        Model("samsr").check_ready()
    assert next_step(Model("samsr").spec) == "rfbench weights fetch samsr"
    elsewhere = dataclasses.replace(Model("samsr").spec, commit="1" * 40)
    assert [text for text in missing(elsewhere) if text.startswith("a checkout of https://")]
    assert next_step(elsewhere) == "rfbench envs build samsr"


def test_samsr_s_numbers_go_in_and_come_out_in_the_right_range(upstreams: Path) -> None:
    torch = pytest.importorskip("torch")
    files = {
        "SamSR_v1.pth": {"state_dict": {"module.gain": torch.full((3,), 0.5)}},
        "autoencoder_vq_f4.pth": {"scale": torch.ones(1)},
        "sam_vit_b_01ec64.pth": {"level": torch.ones(1)},
    }
    (upstreams / "weights").mkdir()
    for name, state in files.items():
        torch.save(state, upstreams / "weights" / name)
        weights.record(upstreams / "weights" / name, source="a test")
    model, task = loaded("samsr"), check_task("a", (30, 40), (120, 160))
    (answer,) = ask(model, task, draws=2)
    # The stand-in gives the LR in [-1, 1] times the gain of its file, with 0.1 of noise where the LR is bright.
    up = np.repeat(np.repeat(task.lr_display, 4, 0), 4, 1)
    difference = answer.arrays["samples"] - ((up * 2 - 1) * 0.5 + 1) / 2
    assert np.abs(difference[:, up < 0.499]).max() < 1e-6
    assert difference[:, up > 0.501].std() == pytest.approx(0.05, rel=0.1)
    model.adapter.close()


def test_a_file_of_another_model_is_one_line(upstreams: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"bias": torch.ones(3)}, upstreams / "other.pth")
    with shim("samsr") as (made, folder):
        found = made({"version": "v1"}, {"SamSR_v1.pth": str(upstreams / "other.pth")}, folder)
        with pytest.raises(guest.UserError, match=r"^SamSR_v1.pth is the file of another model or version \(.*gain"):
            found.load("cpu", "float32")


def test_a_wrong_file_of_a_guest_is_told_when_it_loads(upstreams: Path, tmp_path: Path) -> None:
    """What its networks hold its own code alone knows, and no plan starts it; the guest is gone again."""
    torch = pytest.importorskip("torch")
    for name in Model("samsr").spec.weights:
        torch.save({"bias": torch.ones(3)}, tmp_path / name)
        weights.record(tmp_path / name, source="a test")
    model = Model("samsr", weights_dir=tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GuestAdapter, "load", lambda *given: pytest.fail("it was loaded"))
        model.check_ready()
    with pytest.raises(RfbenchError, match=r"^model samsr: .*SamSR_v1.pth is the file of another model or version"):
        model.load()
    assert not left_behind(upstreams)


@pytest.mark.parametrize("damage", ["cut", "text", "list", "no tensors"])
def test_a_broken_file_of_samsr_is_one_line(upstreams: Path, tmp_path: Path, damage: str) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pth"
    torch.save({"list": [1], "no tensors": {"state_dict": 1}}.get(damage, {"gain": torch.ones(3)}), path)
    if damage in ("cut", "text"):
        path.write_bytes(path.read_bytes()[:200] if damage == "cut" else b"<html>not found</html>")
    with shim("samsr") as (made, folder):
        found = made({"version": "v1"}, {"SamSR_v1.pth": str(path)}, folder)
        with pytest.raises(
            guest.UserError, match=r"^SamSR_v1.pth is cut or no checkpoint \(.*fetch it again$"
        ) as caught:
            found.load("cpu", "float32")
        assert "\n" not in str(caught.value)


@contextmanager
def shim(name: str) -> Iterator[tuple[Any, str]]:
    """The class of a shim and its checkout, in this process, for what needs no other."""
    spec = registry.load("models", name)
    folder, before = str(checkout.need(name, spec.commit)), Path.cwd()
    known = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setitem(sys.modules, "rfbench_guest", guest)
        patch.chdir(before)
        module = guest._module("shim_of_a_test", str(spec.environment.shim_file()))
        try:
            yield getattr(module, spec.environment.shim.partition(":")[2]), folder
        finally:
            for added in set(sys.modules) - known:
                place = getattr(sys.modules[added], "__file__", None) or str(
                    next(iter(getattr(sys.modules[added], "__path__", [""])))
                )
                if place.startswith(folder) or added == "shim_of_a_test":
                    del sys.modules[added]


# --- MISR-S2 --------------------------------------------------------------------------------------------------


def test_misr_s2_keeps_a_model_s_promises(upstreams: Path) -> None:
    report = check_model("misr-s2")
    assert report.exit_code == 0, [str(line) for line in report.lines if line.status != "pass"]


def series_task(days: list[int], lr_px: tuple[int, int] = (10, 10), **texts: str) -> Task:
    """A task whose frame of ``d`` days after 1 June is grey of 0.05 + 0.0001 d, with bands in another order."""
    import datetime

    dates = [(datetime.date(2021, 6, 1) + datetime.timedelta(d)).isoformat() for d in days]
    frames = np.stack([np.full((*lr_px, 4), 500 + d, np.uint16) for d in days])
    frames[..., 0] = 9999  # NIR, which must not be taken for R
    bands = ("R", "G", "B", "NIR")
    lr = Image(np.full((*lr_px, 4), 0.05, np.float32), "reflectance", bands, np.ones(lr_px, bool), 10.0)
    hr = Image(np.full((lr_px[0] * 4, lr_px[1] * 4, 4), 0.05, np.float32), "reflectance", bands,
               np.ones((lr_px[0] * 4, lr_px[1] * 4), bool))  # fmt: skip
    record = Record("a", "a", **({"hr_date": "2021-06-01"} | texts), sides={"lr": Side(), "hr": Side()})
    return Paired().prepare(Pair(record, lr, hr, series=Series(frames, ("NIR", "B04", "B03", "B02"), tuple(dates))))


def grey(answer: Answer) -> float:
    values = answer.arrays.get("mean", answer.arrays.get("samples"))
    assert values is not None
    return float(np.median(values))


@pytest.fixture(scope="module")
def own(upstreams: Path) -> str:
    """The options of a user's own checkpoint and configuration, which the regressor of the stand-in takes."""
    torch = pytest.importorskip("torch")
    state = {"weight": torch.full((3,), 0.5)}  # the answer is the weighted mean of the dates
    torch.save({"global_step": 5, "state_dict": {"model": state}}, upstreams / "model_ckpt_steps_5.ckpt")
    (upstreams / "config.yaml").write_text("base_config: [./gone.yaml]\nsr_scale: 4\nmisr_ref_image: median\n")
    return f"variant=regressor,checkpoint={upstreams / 'model_ckpt_steps_5.ckpt'},config={upstreams / 'config.yaml'}"


def test_misr_s2_takes_the_nearest_dates_and_says_how_many(upstreams: Path, own: str) -> None:
    model = loaded(f"misr-s2:{own}")
    # The stand-in's attention falls by e for each day: the nearest date has nearly all of it.
    (answer,) = ask(model, series_task([-300, -20, 10, 30, 50, 70, 90, 110, 130]))
    assert grey(answer) == pytest.approx(0.051, abs=1e-5) and answer.facts == {"distinct_dates": 8.0}
    assert answer.unit == "reflectance" and not answer.normalised
    (answer,) = ask(model, series_task([-20, 30], hr_date="2021-06-29"))
    assert grey(answer) == pytest.approx(0.053, abs=1e-5) and answer.facts == {"distinct_dates": 2.0}
    (answer,) = ask(model, series_task([-20, 30], hr_date="", lr_date="2021-05-13"))
    assert grey(answer) == pytest.approx(0.048, abs=1e-5)
    assert model.label == "misr-s2-regressor"
    model.adapter.close()


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (series_task([0, 5], hr_date=""), "needs the days of each date from the target; give hr_date or lr_date"),
        (series_task([0, 5], hr_date="yesterday"), "expected YYYY-MM-DD"),
        (dataclasses.replace(series_task([0, 5]), series=None), "needs a time series; the image has none"),
        (
            dataclasses.replace(series_task([0, 5]), series=series_task([0], (9, 9)).series),
            "has 9x9 px, expected the LR's 10x10",
        ),
    ],
)
def test_what_misr_s2_cannot_take_is_a_reason(upstreams: Path, task: Task, expected: str) -> None:
    model = Model("misr-s2:weights=random,variant=regressor")
    (found,) = model.predict([task], run_seed=0, draws=1)
    assert isinstance(found, ItemError) and expected in str(found)


def batch_of(task: Task, *, with_series: bool = True) -> Batch:
    """What an adapter sees of a task."""
    lr = task.lr.select(("R", "G", "B"))
    return Batch(images=lr.values[None], size=task.size, bands=lr.bands, ids=("a",), captions=("",), seeds=((1, 2),),
                 series=(task.series,) if with_series else (), dates=("",), target_dates=("2021-06-01",))  # fmt: skip


def test_misr_s2_with_one_date_is_another_row(upstreams: Path) -> None:
    model = Model("misr-s2:weights=random,series=repeat")
    assert model.label == "misr-s2-one-date-random" and model.spec.input_kind == "image"
    adapter = model.adapter
    assert isinstance(adapter, misr.MisrS2)
    found = adapter.arrays(batch_of(series_task([0]), with_series=False))
    assert found["frames"].shape == (1, 8, 10, 10, 3) and not found["days"].any() and found["distinct"].tolist() == [1]
    np.testing.assert_array_equal(found["frames"][0, 0], found["frames"][0, 7])
    np.testing.assert_allclose(found["reference"], 0.05)


def answered(options: str, batch: Batch) -> Any:
    """What the shim answers in this process to what its adapter sends it."""
    adapter = Model(f"misr-s2:weights=random,{options}").adapter
    assert isinstance(adapter, misr.MisrS2)
    arrays = {"images": batch.images} | {f"series{i}": s.values for i, s in enumerate(batch.series)}
    with shim("misr-s2") as (made, folder):
        model = made(adapter.options, {}, folder)
        model.load("cpu", "float32")
        return model.upscale(guest.Batch(guest_header(batch), arrays | dict(adapter.arrays(batch))))


def test_misr_s2_s_single_image_networks(upstreams: Path) -> None:
    batch = batch_of(series_task([0]), with_series=False)
    for variant, name, shape in (("regressor", "mean", (1, 40, 40, 3)), ("srdiff", "samples", (1, 2, 40, 40, 3))):
        values = answered(f"network=rrdb,variant={variant}", batch)[name]
        assert values.shape == shape
        np.testing.assert_allclose(values.mean(), 0.05, atol=3e-4)


@pytest.mark.parametrize(
    ("network", "variant"), [("highresnet", "regressor"), ("highresnet", "srdiff"), ("rrdb-ltae", "regressor")]
)
def test_misr_s2_s_other_networks_read_the_series(upstreams: Path, network: str, variant: str) -> None:
    batch = batch_of(series_task([-20, 10, 30]))
    found = answered(f"network={network},variant={variant}", batch)
    values = found["mean"] if variant == "regressor" else found["samples"][:, 0]
    assert values.shape == (1, 40, 40, 3) and found["facts"] == [{"distinct_dates": 3}]
    # The plain network is told which dates are repeats, and leaves them out; the reference is the nearest date.
    expected = {"highresnet": 0.05 + np.mean([-20, 10, 30]) * 1e-4, "rrdb-ltae": 0.051}[network]
    np.testing.assert_allclose(values.mean(), 0.051 if variant == "srdiff" else expected, atol=1e-4)
    assert Model(f"misr-s2:weights=random,network={network},variant={variant}").spec.square


def test_misr_s2_s_sampler_has_no_rrdb_with_attention() -> None:
    with pytest.raises(RfbenchError, match="leaves that encoder out at the pinned commit; write variant=regressor"):
        Model("misr-s2:weights=random,network=rrdb-ltae")


def test_misr_s2_s_diffusion_draws_by_seed(upstreams: Path) -> None:
    batch = batch_of(series_task([-20, 10, 30]))
    first, again, other = (
        answered("variant=srdiff", b)["samples"] for b in (batch, batch, dataclasses.replace(batch, seeds=((3, 4),)))
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-4 and np.abs(first[:, 0] - first[:, 1]).max() > 1e-4
    # residual / 2 + the reference, in [-1, 1] of 0.2058, 0.1583, 0.1118
    np.testing.assert_allclose(first.std(axis=(0, 1, 2, 3)), 0.05 / 2 * misr.CEILING / 2, rtol=0.05)
    np.testing.assert_allclose(first.mean(axis=(0, 1, 2, 3)), 0.051, atol=2e-4)


def test_misr_s2_s_checkpoint_is_the_user_s_own(upstreams: Path, own: str, tmp_path: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"model misr-s2: needs the option checkpoint; write --model misr-s2:checkpoint="
    ):
        Model("misr-s2").check_ready()
    assert missing(Model("misr-s2").spec) == ["the option checkpoint"]
    with pytest.raises(RfbenchError, match=r"option checkpoint: nowhere.ckpt is no file"):
        Model("misr-s2:checkpoint=nowhere.ckpt")
    first, plain = Model(f"misr-s2:{own}").identity(), Model("misr-s2:weights=random").identity()
    assert len(first["adapter"]["files"]["checkpoint"]) == 64
    assert plain["adapter"]["files"] == {"checkpoint": None, "config": None}
    assert str(upstreams) not in repr(first)
    (tmp_path / "short.yaml").write_text("misr_ref_image: median\nuse_rrdb: true\n")
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    ckpt = str(upstreams / "model_ckpt_steps_5.ckpt")
    cases = [
        (
            {"network": "rrdb"},
            {"config": tmp_path / "short.yaml"},
            "the config has no 'hidden_size'; give the config.yaml",
        ),
        ({"variant": "srdiff"}, {"checkpoint": ckpt}, "steps_5.ckpt is of another network or variant: choose network="),
        ({}, {"checkpoint": tmp_path / "broken.ckpt"}, "broken.ckpt is no checkpoint of upstream's trainer"),
    ]
    for options, files, expected in cases:
        with shim("misr-s2") as (made, folder), pytest.raises(guest.UserError, match=re.escape(expected)):
            whole = {"network": "ltae", "variant": "regressor"} | options
            made(whole, {k: str(v) for k, v in files.items()}, folder).load("cpu", "float32")


def test_eight_dates_of_a_series() -> None:
    frames = np.arange(10, dtype=np.float32)[:, None, None, None]
    days = np.array([-90, -60, -30, -10, 5, 20, 40, 70, 100, 130], np.float32)
    kept, of_kept, distinct = misr.nearest_dates(frames, days)
    assert of_kept.tolist() == [-90, -60, -30, -10, 5, 20, 40, 70] and distinct == 8
    assert kept.ravel().tolist() == list(range(8))
    kept, of_kept, distinct = misr.nearest_dates(frames[:3], days[:3])
    assert of_kept.tolist() == [-90, -60, -30] + [-30] * 5 and distinct == 3
    assert misr.nearest_dates(frames[:2], np.array([-5, 5], np.float32))[1].tolist() == [-5, 5] + [5] * 6


def test_values_go_to_the_network_and_back() -> None:
    reflectance = np.array([[0.0, 0.0, 0.0], [0.1029, 0.07915, 0.0559], [0.2058, 0.1583, 0.1118]], np.float32)
    np.testing.assert_allclose(misr.to_network(reflectance), [[-1] * 3, [0] * 3, [1] * 3], atol=1e-6)
    np.testing.assert_allclose(misr.to_network(np.array([[-0.1, 1.0, 0.0]], np.float32)), [[-1, 1, -1]], atol=1e-6)


def test_a_series_is_padded_and_cut_with_its_image(upstreams: Path) -> None:
    """9x13 px become 14x14 for the network, and 90 px two tiles: what the adapter sees fits together."""
    seen: list[Batch] = []
    model = Model("misr-s2:weights=random,variant=regressor")

    def watched(batch: Batch) -> Prediction:
        seen.append(batch)
        return Prediction(mean=np.zeros((1, *batch.size, 3), np.float32))

    model.adapter.upscale = watched  # type: ignore[method-assign]
    ask(model, series_task([0, 5], (9, 13)), series_task([0, 5], (90, 20)))
    sizes = [b.images.shape[1:3] for b in seen]
    assert sizes[0] == (14, 14) and sizes[1] == (64, 64) and len(sizes) == 3  # squares
    for batch in seen:
        (series,) = batch.series
        assert series.values.shape == (2, *batch.images.shape[1:3], 4) and series.values.dtype == np.float32
        assert series.bands == ("NIR", "R", "G", "B")


def test_opencv_enlarges_as_the_shim_does() -> None:
    cv2 = pytest.importorskip("cv2")
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(0).random((7, 9, 3)).astype(np.float32)
    theirs = cv2.resize(image, (36, 28), interpolation=cv2.INTER_CUBIC)
    low = torch.from_numpy(np.moveaxis(image, 2, 0).copy())[None]
    ours = torch.nn.functional.interpolate(low, scale_factor=4, mode="bicubic", align_corners=False)[0]
    np.testing.assert_allclose(np.moveaxis(ours.numpy(), 0, 2), theirs, atol=1e-5)


# --- both -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["samsr", "misr_s2"])
def test_a_shim_imports_nothing_of_ours_and_reads_in_old_pythons(name: str) -> None:
    tree = ast.parse((ROOT / "baselines" / name / "shim.py").read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not {m for m in modules if m.partition(".")[0] in ("bench", "baselines", "rareflow")}


def test_every_requirement_is_pinned() -> None:
    for spec in (SAMSR, MISR_S2):
        assert spec.environment is not None
        for line in spec.environment.requirements_text().splitlines():
            assert line.startswith("#") or "==" in line.partition(";")[0], line
