"""SYNAPSE: the package's own answers against the harness's on the same weights, its files, units, errors and bands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.synapse.spec import FLASH, FLASH_FILE, PACKAGE
from bench import weights
from bench.core.errors import RfbenchError
from bench.models import call, randomise
from bench.models.call import Model
from bench.models.ready import lacking
from bench.protocols.paired import Paired
from tests.systems import answer, task

if lacking(FLASH.requires):
    pytest.skip(f"needs {PACKAGE} (pip install 'rfbench[systems]')", allow_module_level=True)

import safetensors.torch
from synapse_sr.pro import Flash

from baselines.synapse import network

TINY = "synapse-flash:weights=random,size=tiny"
BANDS = FLASH.bands or ()
LR_PX = (20, 26)


@pytest.fixture(scope="module")
def model() -> Model:
    found = Model(TINY)
    found.load()
    return found


def test_a_file_that_the_package_saves_gives_the_package_s_own_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flash in a small size: its published names, its operator, its reflectance, and its calibrated error."""
    small = network.network("flash", is_tiny=True)
    randomise(small, "synapse")
    kernels, about = network.gaussian_kernels(39), network.registry.manifest("flash-v1")
    original = network.assembled("flash", small, kernels, "cpu", about)
    path = tmp_path / FLASH_FILE
    original.save_pretrained(path)
    spec = dict(FLASH.weights[FLASH_FILE]) | {"sha256": weights.hash_of(path), "bytes": path.stat().st_size}
    monkeypatch.setitem(FLASH.weights, FLASH_FILE, spec)
    monkeypatch.setattr(network, "network", lambda kind, is_tiny=False, make=network.network: make(kind, is_tiny=True))
    mine = Model("synapse-flash", weights_dir=tmp_path)
    mine.load()
    asked = task(Paired(), (32, 33), bands=BANDS)
    found = answer(mine, asked)
    theirs = Flash.from_pretrained(weights=path, device="cpu")
    theirs.meta = about
    image = np.moveaxis(asked.input.select(BANDS).values, 2, 0)
    result = theirs.super_resolve(image, band_names=network.BANDS, scl=None, progress=False, context=False)
    np.testing.assert_array_equal(found.arrays["mean"], np.moveaxis(result.image, 0, 2))
    expected = np.moveaxis(result.uncertainty(), 0, 2) * np.sqrt(np.pi / 2)
    np.testing.assert_allclose(found.arrays["std"], expected, rtol=1e-6)
    assert found.bands == ("R", "G", "B", "NIR") and found.unit == "reflectance" and not found.native
    assert found.facts["synapse_consistency"] == max(result.consistency.values())
    np.testing.assert_array_equal(found.maps["synapse_support"], result.support)


def test_published_sizes() -> None:
    """The files' sizes that the publisher's manifests state; a header names each tensor."""
    for kind, size, left in (("flash", 12_102_536, 48), ("pro", 58_047_072, 0)):
        state = {f"model.{k}": v for k, v in network.network(kind).state_dict().items()}
        state["operator.weight"] = network.gaussian_kernels()
        assert size - len(safetensors.torch.save(state)) == left, kind


def test_bright_clouds_are_no_dn(model: Model) -> None:
    """The package would divide an image that holds a number above 2 by 10,000."""
    asked = task(Paired(), LR_PX, bands=BANDS)
    dark = answer(model, asked).arrays["mean"]
    asked.input.values[3, 4] = 2.5
    bright = answer(model, asked).arrays["mean"]
    assert np.abs(bright[80:] - dark[80:]).max() < 0.1 and bright.max() > 1


def test_bands_options_and_variants_are_told(model: Model) -> None:
    (found,) = model.predict([task(Paired(), LR_PX)], run_seed=0, draws=1)
    assert isinstance(found, call.ItemError) and "band B05, B06, B07, B8A, B11, B12 is needed" in str(found)
    assert Model("synapse-flash:tta=yes").label == "synapse-flash-tta"
    assert Model(TINY).label == "synapse-flash-random-tiny"
    for options, message in (("tta=maybe", "expected no or yes"), ("size=tiny", "no published weights")):
        with pytest.raises(RfbenchError, match=message):
            Model(f"synapse-pro:{options}")


def test_pro_answers_and_its_file_must_be_complete(tmp_path: Path) -> None:
    pro = Model("synapse-pro:weights=random,size=tiny")
    pro.load()
    mean = answer(pro, task(Paired(), (12, 13), bands=BANDS)).arrays["mean"]
    assert mean.shape == (60, 65, 4) and np.isfinite(mean).all()
    with pytest.raises(RfbenchError, match="1 missing"):
        state = {f"model.{k}": torch.zeros(v.shape) for k, v in network.network("flash").state_dict().items()}
        state.pop("model.conv_cat.bias")
        state["operator.weight"] = network.gaussian_kernels()
        network.published("flash", state, FLASH_FILE, "cpu")


@pytest.mark.parametrize(
    ("kernels", "found"),
    [
        (None, "no operator.weight"),
        (torch.zeros(4, 1, 89, 87), "operator.weight of 4x1x89x87"),
        (torch.zeros(3, 1, 89, 89), "operator.weight of 3x1x89x89"),
        (torch.zeros(4, 1, 88, 88), "operator.weight of 4x1x88x88"),
    ],
)
def test_a_file_without_the_sensor_is_no_checkpoint(kernels: torch.Tensor | None, found: str) -> None:
    """Said when weights are looked at, not at the first image."""
    state = {f"model.{k}": v for k, v in network.network("flash").state_dict().items()}
    with pytest.raises(RfbenchError, match=f"{FLASH_FILE}: found {found}, expected the sensor's kernels"):
        network.published("flash", state | ({} if kernels is None else {"operator.weight": kernels}), FLASH_FILE, "cpu")


def test_without_a_valid_pixel_there_is_an_answer_and_no_consistency(model: Model) -> None:
    asked = task(Paired(), LR_PX, bands=BANDS)
    assert answer(model, asked).facts.keys() == {"synapse_consistency"}
    asked.input.values[:] = 0
    found = answer(model, asked)
    assert found.facts == {} and np.isfinite(found.arrays["mean"]).all()
