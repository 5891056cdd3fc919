"""Satlas's ESRGAN: its size, its file, its values, the frames it reads, and its answers with random weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.satlas import network
from baselines.satlas.adapter import WHITE, true_colour
from baselines.satlas.network import FULL, SMALL, Network
from baselines.satlas.spec import weights_file
from bench import weights
from bench.cli.weights import _chosen
from bench.core.errors import RfbenchError
from bench.data.readers import Series
from bench.models import randomise
from bench.models.call import Answer, Model
from bench.protocols.base import Task
from bench.protocols.bicubic import Bicubic4x
from bench.protocols.paired import Paired
from tests.systems import answer, check_sizes, task

TINY = "satlas-esrgan:weights=random,size=tiny"


@pytest.fixture(scope="module")
def model() -> Model:
    found = Model(TINY)
    found.load()
    return found


def series_task(values: np.ndarray, dates: tuple[str, ...], target: str = "2020-06-10") -> Task:
    """A task whose LR is the first frame of a series (T, h, w, 3)."""
    asked = task(Bicubic4x(), (values.shape[1], values.shape[2]), bands=("R", "G", "B"))
    return dataclasses.replace(asked, series=Series(values, ("R", "G", "B"), dates), lr_date=target)


@pytest.mark.parametrize(("dates", "millions"), [(1, 16.70), (8, 16.71)])
def test_the_published_size_has_upstream_s_parameters_and_names(dates: int, millions: float) -> None:
    with torch.device("meta"):
        net = Network(dates, *FULL)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == millions
    assert {"conv_first.weight", "body.22.rdb3.conv5.bias", "conv_up2.weight", "conv_last.bias"} <= set(
        net.state_dict()
    )
    assert net.conv_first.in_channels == 3 * dates


def test_upstream_s_file_loads_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "FULL", SMALL)
    original = Network(1, *SMALL)
    randomise(original, "satlas-esrgan")
    state = original.state_dict()
    other = {k: v * 0 for k, v in state.items()}  # as trained, before averaging: not what inference takes
    torch.save({"params": other, "params_ema": state}, tmp_path / weights_file(1))
    weights.record(tmp_path / weights_file(1), source="")
    published, random = Model("satlas-esrgan", weights_dir=tmp_path), Model(TINY)
    published.check_ready()
    asked, found = task(Bicubic4x(), (12, 14)), []
    for each in (published, random):
        each.load()
        found.append(answer(each, asked).arrays["mean"])
    np.testing.assert_array_equal(*found)
    torch.save({"params": other}, tmp_path / weights_file(1))
    (tmp_path / f"{weights_file(1)}{weights.RECORDED}").unlink()
    weights.record(tmp_path / weights_file(1), source="")
    with pytest.raises(RfbenchError, match="expected 'params_ema'"):
        Model("satlas-esrgan", weights_dir=tmp_path).load()


def test_each_number_of_dates_has_its_file_and_its_name() -> None:
    one, eight = Model("satlas-esrgan"), Model("satlas-esrgan:dates=8")
    assert list(one.spec.weights) == ["esrgan_1S2.pth"] and list(eight.spec.weights) == ["esrgan_8S2.pth"]
    assert (one.label, eight.label) == ("satlas-esrgan", "satlas-esrgan-8-dates")
    assert (one.spec.input_kind, eight.spec.input_kind) == ("image", "series")
    assert one.identity() != eight.identity()


@pytest.mark.parametrize(
    ("name", "files"),
    [("satlas-esrgan", {"esrgan_1S2.pth"}), ("satlas-esrgan:dates=8", {"esrgan_8S2.pth"}),
     ("samsr:version=v2", {"SamSR_v2.pth", "autoencoder_vq_f4.pth", "sam_vit_b_01ec64.pth"})],
)  # fmt: skip
def test_fetch_gets_the_files_of_the_network_that_is_asked_for(name: str, files: set[str]) -> None:
    assert {entry.file for entry in _chosen((name,), False, None, None)} == files


def test_values_are_those_of_the_true_colour_image() -> None:
    found = true_colour(np.array([-0.1, 0, 0.5 * WHITE, WHITE, 0.9], np.float32))
    np.testing.assert_allclose(found * 255, [1, 1, 128, 255, 255])  # 0 is no data there
    assert found.dtype == np.float32


def test_frames_are_chosen_by_date_and_wholeness() -> None:
    loaded = Model(f"{TINY},dates=2")
    loaded.load()
    rng = np.random.default_rng(0)
    values = rng.uniform(0.02, 0.3, (4, 8, 8, 3)).astype(np.float32)
    dates = ("2020-06-11", "2020-06-01", "2020-07-20", "2020-06-20")
    first = answer(loaded, series_task(values, dates))
    assert first.facts == {"distinct_dates": 2.0}
    far = values.copy()
    far[2:] = 0.1  # the two that are further from 10 June
    np.testing.assert_array_equal(first.arrays["mean"], answer(loaded, series_task(far, dates)).arrays["mean"])
    black = values.copy()
    black[0, 3, 3] = 0  # a frame with a hole gives way to one that is further
    changed = answer(loaded, series_task(black, dates)).arrays["mean"]
    near = values[[1, 3]]
    np.testing.assert_array_equal(changed, answer(loaded, series_task(near, dates[1::2])).arrays["mean"])
    dark = values.copy()
    dark[0, 3, 3, 0] = 0  # one dark channel is no hole
    assert not np.array_equal(answer(loaded, series_task(dark, dates)).arrays["mean"], changed)
    # Fewer than asked for: the last again.
    assert answer(loaded, series_task(values[:1], dates[:1])).facts == {"distinct_dates": 1.0}


def test_what_a_series_lacks_is_one_line() -> None:
    loaded = Model(f"{TINY},dates=2")
    loaded.load()
    values = np.full((2, 8, 8, 3), 0.1, np.float32)
    for asked, message in (
        (task(Bicubic4x(), (8, 8)), "needs a time series"),
        (series_task(values, ("2020-06-01", "x")), "expected YYYY-MM-DD"),
        (series_task(values, ("2020-06-01", "2020-06-02"), target=""), "give hr_date or lr_date"),
    ):
        (found,) = loaded.predict([asked], run_seed=0, draws=1)
        assert not isinstance(found, Answer) and message in str(found)


def test_sizes_on_both_protocols(model: Model) -> None:
    check_sizes(model)
    tiled = Model(f"{TINY},tile_px=32")
    tiled.load()
    asked = task(Paired(), (40, 44))
    whole, parts = (answer(m, asked).arrays["mean"] for m in (model, tiled))
    # Tiles see zeros beyond their border, so seams are blended and not exact.
    assert whole.shape == parts.shape and np.abs(whole - parts).max() > 0


@pytest.mark.parametrize("options", ["dates=3", "tile_px=4", "date=1", "size=tiny"])
def test_bad_options_are_one_line(options: str) -> None:
    with pytest.raises(RfbenchError, match=r"dates|tile_px|size=tiny"):
        Model(f"satlas-esrgan:{options}")
