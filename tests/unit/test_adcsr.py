"""AdcSR: its size, its files, its colour fix, and its answers with random weights."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.adcsr import convert, network
from baselines.adcsr.network import TINY, Config, Network, match_colours
from bench import weights
from bench.core.errors import RfbenchError
from bench.models import check_state, load_state, randomise
from bench.models.call import Model
from bench.protocols.bicubic import Bicubic4x
from bench.protocols.paired import Paired
from tests.systems import answer, check_sizes, task

SMALL = "adcsr:weights=random,size=tiny"
# Where upstream's sequence of the UNet's parts has each, which makes every name but the first convolution's come twice.
PLACES = {**{f"down_blocks.{i}": i for i in range(4)}, "mid_block": 4, **{f"up_blocks.{i}": 5 + i for i in range(4)},
          "conv_norm_out": 9, "conv_out": 11}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    found = Model(SMALL)
    found.load()
    return found


def meta(config: Config) -> Network:
    with torch.device("meta"):
        return Network(config)


def upstream_names(net: Network) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The states of the two published files as upstream's classes name them."""
    state, decoder = {}, {}
    for name, tensor in net.state_dict().items():
        part, _, rest = name.partition(".")
        if part == "unet":
            state[f"module.body.1.{rest}"] = tensor
            for place, index in PLACES.items():
                if rest.startswith(place + "."):
                    state[f"module.body.1.body.{index}.{rest.removeprefix(place + '.')}"] = tensor
        elif rest.startswith("mid_block."):
            state[f"module.body.2.{rest.removeprefix('mid_block.')}"] = tensor
            decoder[name] = tensor * 0  # as it was before AdcSR trained it; upstream drops it
        else:
            decoder[name] = tensor
    return state, decoder | {"decoder.conv_in.weight": torch.ones(2), "decoder.conv_in.bias": torch.ones(2)}


def write_files(folder: Path, net: Network) -> None:
    """The two files as upstream publishes them: the second holds a trainer's class and the trainer's other networks."""
    folder.mkdir(parents=True, exist_ok=True)
    state, decoder = upstream_names(net)
    torch.save(state, folder / convert.NET)
    module = types.ModuleType("a_trainer_that_is_gone")
    module.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": module.__name__})  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    others = {"encoder.conv_in.weight": torch.ones(2), "loss.perceptual.weight": torch.ones(2)}
    document = {"callbacks": {module.ModelCheckpoint: {"best": 1}}, "state_dict": decoder | others}
    torch.save(document, folder / convert.DECODER)
    del sys.modules[module.__name__]
    for file in (convert.NET, convert.DECODER):
        weights.record(folder / file, source="")


def test_the_published_size_has_upstream_s_parameters_and_names() -> None:
    net = meta(Config())
    millions = {k: sum(p.numel() for p in m.parameters()) / 1e6 for k, m in (
        ("all", net), ("unet", net.unet), ("middle", net.decoder.mid_block))}  # fmt: skip
    assert round(millions["unet"] + millions["middle"], 1) == 446.3  # what net_params_200.pkl holds
    assert round(millions["all"], 2) == 456.07
    state, _ = upstream_names(net)
    assert len(state) == 1076
    groups = {m.num_groups: m.num_channels for m in net.modules() if isinstance(m, torch.nn.GroupNorm)}
    assert set(groups) == {32, 24}  # 240 and 720 channels are not divisible by 32


def test_upstream_s_files_load_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFBENCH_CONVERTED", str(tmp_path / "converted"))
    monkeypatch.setattr(network, "Config", lambda: TINY)
    original = Network(TINY)
    randomise(original, "adcsr")
    write_files(tmp_path / "weights", original)
    model = Model("adcsr", weights_dir=tmp_path / "weights")
    model.check_ready()
    model.load()
    loaded = model.adapter.network.state_dict()  # type: ignore[attr-defined]
    assert loaded.keys() == original.state_dict().keys()
    assert all(torch.equal(loaded[k], v) for k, v in original.state_dict().items())
    small = Model(SMALL)
    small.load()
    asked = task(Bicubic4x(), (16, 16))
    np.testing.assert_array_equal(answer(model, asked).arrays["mean"], answer(small, asked).arrays["mean"])
    assert model.label == "adcsr" and all(len(h) == 64 for h in model.identity()["spec"]["weights"].values())
    (made,) = (tmp_path / "converted").glob("*.safetensors")
    assert made.name.startswith("adcsr-")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"of .* expected tensors 1 missing \(unet.conv_in.bias\)"),
        ("more", r"1 unexpected \(module.body.9.weight\)"),
        ("shape", r"of another shape \(unet.conv_in.bias 3 for 40\)"),
        ("swapped", r"halfDecoder.ckpt: found .*, expected 'state_dict' with a dict of tensors"),
        ("cut", "net_params_200.pkl is (cut or no checkpoint|not opened)"),
    ],
)
def test_wrong_files_are_one_line(damage: str, message: str, tmp_path: Path) -> None:
    net = Network(TINY)
    write_files(tmp_path, net)
    state, _ = upstream_names(net)
    path, decoder = tmp_path / convert.NET, tmp_path / convert.DECODER
    if damage == "missing":
        torch.save({k: v for k, v in state.items() if k != "module.body.1.conv_in.bias"}, path)
    elif damage == "more":
        torch.save(state | {"module.body.9.weight": torch.ones(3)}, path)
    elif damage == "shape":
        torch.save(state | {"module.body.1.conv_in.bias": torch.ones(3)}, path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:10_000])
    else:
        decoder = path
    with pytest.raises(RfbenchError, match=message) as caught:
        if damage == "swapped":
            path.rename(tmp_path / "x")
            decoder = (tmp_path / "x").rename(tmp_path / convert.DECODER)
            torch.save(state, path)
        check_state(convert.state(path, decoder), net, "net_params_200.pkl and halfDecoder.ckpt")
    assert "\n" not in str(caught.value)


def test_sizes_on_both_protocols(model: Model) -> None:
    check_sizes(model)


def test_the_colour_fix_gives_the_lr_s_mean_and_deviation(model: Model) -> None:
    rng = np.random.default_rng(0)
    image, lr = (rng.normal(0.2, 0.4, (2, 3, *s)).astype(np.float32) for s in ((24, 20), (6, 5)))
    fixed = match_colours(torch.from_numpy(image), torch.from_numpy(lr)).numpy()
    np.testing.assert_allclose(fixed.mean((2, 3)), lr.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(fixed.std((2, 3), ddof=1), lr.std((2, 3), ddof=1), rtol=1e-5)
    flat = match_colours(torch.full((1, 3, 8, 8), 0.3), torch.from_numpy(lr[:1])).numpy()
    np.testing.assert_allclose(flat, np.broadcast_to(lr[:1].mean((2, 3), keepdims=True), flat.shape), atol=1e-6)
    assert np.isfinite(match_colours(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 1, 1)).numpy()).all()
    # Also where the image had to be padded: the moments are those of the pixels that are there.
    asked = task(Paired(), (13, 21))
    found, wanted = answer(model, asked).native["mean"], asked.lr_display
    inside = (found > 0) & (found < 1)
    assert inside.mean() > 0.97  # what little is clipped moves a moment by less than a hundredth
    np.testing.assert_allclose(found.mean((0, 1)), wanted.mean((0, 1)), atol=0.01)
    np.testing.assert_allclose(found.std((0, 1)), wanted.std((0, 1)), atol=0.015)


def test_post_and_pre_are_two_answers(model: Model) -> None:
    asked = task(Paired(), (20, 24))
    post, pre = (model.predict([asked], run_seed=0, draws=1, policy=p)[0] for p in ("post", "pre"))
    assert post.native["mean"].shape == (80, 96, 3) and "pre resize" in pre.notes[0]  # type: ignore[union-attr]
    assert not np.array_equal(post.arrays["mean"], pre.arrays["mean"])  # type: ignore[union-attr]


@pytest.mark.parametrize("options", ["tile_px=8", "tile_px=x", "tile=32", "size=tiny"])
def test_bad_options_are_one_line(options: str) -> None:
    with pytest.raises(RfbenchError, match=r"tile_px|did you mean tile_px|size=tiny"):
        Model(f"adcsr:{options}")
    assert Model(SMALL + ",tile_px=64").spec.max_side_px == 64


def test_a_full_state_on_the_meta_device_is_not_half_loaded() -> None:
    net, other = meta(TINY), Network(Config(widths=(40, 40, 80, 160), heads=(1, 1, 2, 2), latent=16,
                                            decoder=(8, 8, 16, 16), decoder_groups=4))  # fmt: skip
    with pytest.raises(RfbenchError, match="of another shape"):
        load_state(net, other.state_dict(), "another version")
    assert all(p.is_meta for p in net.parameters())
