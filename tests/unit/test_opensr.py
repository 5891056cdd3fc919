"""OpenSR: what is refused, NIR, its files, and its own package's answers against the harness's, with random weights."""

from __future__ import annotations

import importlib.metadata
import random
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.opensr.adapter import TINY_WINDOW_PX, WEIGHTS, OpenSR
from baselines.opensr.network import CHANNELS, Config, build, noise_channels, sample, tiny, uncertainty
from baselines.opensr.spec import OPENSR
from bench import weights
from bench.core.errors import RfbenchError
from bench.models import call, randomise
from bench.models.call import Model
from bench.predict.plan import NotReady
from bench.protocols.bicubic import Bicubic4x
from bench.protocols.paired import Paired
from tests.conftest import write_dataset
from tests.runs import planned
from tests.systems import answer, check_sizes, task

SMALL = "opensr:weights=random,size=tiny,steps=2"


def installed() -> bool:
    try:
        return importlib.metadata.version("opensr-model") == "1.0.8"
    except importlib.metadata.PackageNotFoundError:
        return False


needs_package = pytest.mark.skipif(not installed(), reason="needs opensr-model==1.0.8 (pip install 'rfbench[systems]')")


@pytest.fixture(scope="module")
def model() -> Model:
    found = Model(SMALL)
    found.load()
    return found


# --- without the package ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("nir=guess", "option nir: found 'guess', expected band or from_ndvi or copy_red"),
        ("steps=3", "option steps: found 3, expected a divisor of 1000, such as 50 or 100"),
        ("steps=1000", "option steps: found '1000', expected a whole number from 1 to 500"),
        ("eta=2", "option eta: found '2', expected a number from 0 to 1"),
        ("uncertainty=3", "option uncertainty: found 3, expected 4 or more samples"),
        ("histogram=maybe", "option histogram"),
        ("size=tiny", "size=tiny has no published weights"),
        ("nri=band", "did you mean nir"),
    ],
)
def test_bad_options_are_one_line(options: str, message: str) -> None:
    with pytest.raises(RfbenchError, match=message):
        Model(f"opensr:{options}")


def test_the_fourth_band_is_what_was_chosen() -> None:
    image = np.random.default_rng(0).uniform(0.02, 0.4, (4, 5, 4)).astype(np.float32)

    def made(nir: str, values: np.ndarray) -> np.ndarray:
        return OpenSR(**OPENSR.default_options | {"nir": nir})._four_bands(values)

    assert made("band", image) is image
    np.testing.assert_array_equal(made("copy_red", image[..., :3])[..., 3], image[..., 0])
    ndvi = (image[..., 3] - image[..., 0]) / (image[..., 3] + image[..., 0])
    with_ndvi = np.concatenate([image[..., :3], ndvi[..., None]], axis=2)
    np.testing.assert_allclose(made("from_ndvi", with_ndvi), image, rtol=1e-5)
    with_ndvi[..., 3] = 1  # no NIR is infinitely brighter than red
    assert np.isfinite(made("from_ndvi", with_ndvi)).all()
    with pytest.raises(RfbenchError, match=r"band NDVI runs from 1 to 2500 .*expected -1 to 1; store it so"):
        with_ndvi[0, 0, 3] = 2500
        made("from_ndvi", with_ndvi)
    bands = {nir: Model(f"opensr:nir={nir}").spec.bands for nir in ("band", "from_ndvi", "copy_red")}
    assert bands == {"band": ("R", "G", "B", "NIR"), "from_ndvi": ("R", "G", "B", "NDVI"), "copy_red": ("R", "G", "B")}


def test_data_without_nir_are_refused_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call, "lacking", lambda requires: [])  # whether the package is here or not
    data = write_dataset(tmp_path / "rgb", count=1, bands="R G B")
    for protocol in ("paired", "bicubic-4x"):
        with pytest.raises(
            NotReady, match=r"band NIR is needed; the LR image has R G B; choose .* by opensr:nir=copy_red"
        ):
            planned(models=(SMALL,), protocol=protocol, data=str(data), metrics=("psnr_rgb",))
    plan = planned(models=("bicubic", SMALL + ",nir=copy_red"), data=str(data), metrics=("psnr_rgb",))
    assert not plan.not_ready
    assert plan.runs["opensr-random-tiny"].plan.model.options["nir"] == "copy_red"
    plan = planned(models=("bicubic", SMALL), data=str(data), metrics=("psnr_rgb",))
    assert [m.label for m in plan.models] == ["bicubic"] and "NIR" in plan.not_ready["opensr-random-tiny"]
    side = {"unit": "display", "scale": 65535, "bands": "R G B NIR"}
    display = write_dataset(tmp_path / "display", count=1, info={"lr": side, "hr": side})
    with pytest.raises(NotReady, match="needs reflectance; the LR image is in unit 'display'"):
        planned(models=(SMALL,), data=str(display), metrics=("psnr_rgb",))


def test_what_is_missing_is_said_with_the_command_that_gets_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(call, "lacking", lambda requires: [f"the package {requires[0]} is not installed"])
    with pytest.raises(RfbenchError, match=r"opensr-model==1\.0\.8 is not installed; pip install 'rfbench\[systems\]'"):
        Model("opensr").load()
    monkeypatch.setattr(call, "lacking", lambda requires: [])
    with pytest.raises(RfbenchError, match=r"weights missing: opensr-ldsrs2_v1_0_0\.ckpt \(about 1\.1 GB\)"):
        Model("opensr").check_ready()


# --- with it ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Noise that the package's own code takes, in this order, where it asks torch; it may pad nothing, either."""
    import opensr_model.srmodel

    queue: list[torch.Tensor] = []
    normal = torch.randn

    def randn(*shape: Any, **options: Any) -> torch.Tensor:
        if not queue:
            return normal(*shape, **options)
        found = queue.pop(0)
        assert tuple(found.shape) == tuple(shape[0])
        return found

    monkeypatch.setattr(torch, "randn", randn)
    monkeypatch.setattr(opensr_model.srmodel, "assert_tensor_validity", lambda x: (x, (0, 0, 0, 0)))
    return queue


def an_image(px: int = TINY_WINDOW_PX) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(task(Paired(), (px, px)).lr.values, 2, 0)[None].copy())


@needs_package
@pytest.mark.parametrize(("steps", "eta", "temperature", "histogram"), [(4, 0.95, 1.0, True), (2, 0.0, 0.5, False)])
def test_the_package_s_own_forward_gives_the_same_image_for_the_same_noise(
    model: Model, given: list[torch.Tensor], steps: int, eta: float, temperature: float, histogram: bool
) -> None:
    network, lr = model.adapter.model, an_image()  # type: ignore[attr-defined]
    noise = torch.from_numpy(np.random.default_rng(5).normal(size=(1, noise_channels(steps), *lr.shape[2:]))).float()
    options = {"steps": steps, "eta": eta, "temperature": temperature, "histogram": histogram}
    (ours,) = sample(network, lr, iter([noise]), **options)  # type: ignore[arg-type]
    given.extend(noise.split(CHANNELS, dim=1))
    theirs = network.forward(lr.clone(), sampling_eta=eta, sampling_steps=steps, sampling_temperature=temperature,
                             histogram_matching=histogram)  # fmt: skip
    assert not given and torch.equal(ours, theirs)


@needs_package
def test_the_package_s_own_uncertainty_map_is_the_one_that_is_offered(model: Model, given: list[torch.Tensor]) -> None:
    network, lr, count = model.adapter.model, an_image(), 5  # type: ignore[attr-defined]
    rng = np.random.default_rng(6)
    noises = [torch.from_numpy(rng.normal(size=(1, noise_channels(2), *lr.shape[2:]))).float() for _ in range(count)]
    ours = list(sample(network, lr, iter(noises), steps=2, eta=0.0, temperature=1.0, histogram=True))
    for noise in noises:
        given.extend(noise.split(CHANNELS, dim=1))
    state = random.getstate()
    theirs = network.uncertainty_map(lr, n_variations=count, sampling_steps=2)
    random.setstate(state)
    np.testing.assert_allclose(uncertainty(torch.cat(ours)), theirs[0, 0], rtol=1e-6)


@needs_package
def test_the_map_comes_with_the_answer_and_changes_no_sample(model: Model) -> None:
    asked = task(Bicubic4x(), (12, 20))
    with_map = Model(SMALL + ",uncertainty=4")
    with_map.load()
    found, plain = answer(with_map, asked), answer(model, asked)
    np.testing.assert_array_equal(found.arrays["samples"], plain.arrays["samples"])
    assert found.maps["opensr_uncertainty"].shape == (48, 80) and found.maps["opensr_uncertainty"].min() > 0
    again = answer(with_map, asked, draws=2)
    np.testing.assert_array_equal(again.maps["opensr_uncertainty"], found.maps["opensr_uncertainty"])
    np.testing.assert_array_equal(again.arrays["samples"][0], found.arrays["samples"][0])
    assert not np.array_equal(*again.arrays["samples"])


@needs_package
def test_sizes_on_both_protocols(model: Model) -> None:
    check_sizes(model)


@needs_package
def test_each_band_has_the_lr_s_histogram_and_missing_pixels_stay_missing(model: Model) -> None:
    lr = an_image()
    lr[0, 2, 3:5, 4:9] = 0.0
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=(1, noise_channels(2), *lr.shape[2:]))).float()
    (found,) = sample(
        model.adapter.model,
        lr,
        iter([noise]),
        steps=2,
        eta=0.95,
        temperature=1.0,
        histogram=True,  # type: ignore[attr-defined]
    )
    assert (found[0, 2, 12:20, 16:36] == 0).all()
    for band in (0, 1, 3):
        quantiles = torch.linspace(0, 1, 21)
        ours, theirs = (torch.quantile(x[0, band].ravel(), quantiles) for x in (found, lr))
        assert float((ours - theirs).abs().max()) < 0.01, band
        assert lr[0, band].min() <= found[0, band].min() and found[0, band].max() <= lr[0, band].max()


@needs_package
def test_made_up_nir_is_not_answered_with(model: Model) -> None:
    asked = task(Bicubic4x(), (10, 12))
    copied = Model(SMALL + ",nir=copy_red")
    copied.load()
    found = answer(copied, asked)
    assert found.bands == ("R", "G", "B") and found.arrays["samples"].shape == (1, 40, 48, 3)
    assert answer(model, asked).bands == ("R", "G", "B", "NIR")


@needs_package
def test_upstream_s_checkpoint_loads_completely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    from baselines.opensr import network

    original = build(tiny(), "cpu").model
    randomise(original, "opensr")
    state = original.state_dict()
    module = types.ModuleType("a_trainer_that_is_gone")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    extra = {"first_stage_model.loss.perceptual.weight": torch.ones(3)}
    torch.save({"state_dict": state | extra, "callbacks": {module.ModelCheckpoint: 1}}, tmp_path / WEIGHTS)
    monkeypatch.delitem(sys.modules, module.__name__)
    weights.record(tmp_path / WEIGHTS, source="")
    full = Config(autoencoder=tiny().autoencoder, unet=tiny().unet)
    monkeypatch.setattr(network, "Config", lambda: full)
    found = Model("opensr:steps=2", weights_dir=tmp_path)
    found.check_ready()
    found.load()
    loaded = found.adapter.model.model.state_dict()  # type: ignore[attr-defined]
    assert loaded.keys() == state.keys() and all(torch.equal(loaded[k], v) for k, v in state.items())
    assert found.label == "opensr" and found.spec.max_side_px == 128
    assert not capsys.readouterr().out  # stdout is for results
    for wrong, message in (
        (
            {k: v for k, v in state.items() if "time_embed" not in k},
            r"of \d+ expected tensors 8 missing \(model.diffusion",
        ),
        (state | {"model.extra.weight": torch.ones(1)}, r"1 unexpected \(model.extra.weight\)"),
        ({k: v[..., :1] if v.ndim == 4 else v for k, v in state.items()}, "of another shape"),
    ):
        torch.save({"state_dict": wrong}, tmp_path / WEIGHTS)
        weights.record(tmp_path / WEIGHTS, source="")
        with pytest.raises(RfbenchError, match=message):
            Model("opensr", weights_dir=tmp_path).load()


@needs_package
def test_the_published_size_has_upstream_s_parameters() -> None:
    from opensr_model.autoencoder.autoencoder import AutoencoderKL
    from opensr_model.denoiser.unet import UNetModel

    config = Config()
    with torch.device("meta"):  # the whole cannot be made there: it computes its schedule
        parts = UNetModel(**config.unet), AutoencoderKL(config.autoencoder, embed_dim=4)
    unet, autoencoder = (sum(p.numel() for p in part.parameters()) / 1e6 for part in parts)
    assert (round(unet, 2), round(autoencoder, 2), round(unet + autoencoder, 2)) == (113.63, 55.33, 168.96)
