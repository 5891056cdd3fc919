"""ZoomLDM: its size, its file, the sampler on problems whose answer is known, and its answers with random weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from baselines.zoomldm import condition, convert, features, finish, network
from baselines.zoomldm.network import FULL, SMALL, Summariser, build_unet, build_vae, cumulative_products, standardised
from baselines.zoomldm.sampler import (
    FAST_CONSTRAINED,
    Constraint,
    Settings,
    Step,
    joined,
    parted,
    resizing,
    sample,
)
from baselines.zoomldm.spec import CHECKPOINT, DINO
from bench import weights
from bench.core.errors import RfbenchError, Unavailable
from bench.core.resample import resize
from bench.models import load_state, randomise
from bench.models.call import Model
from bench.models.spec import Batch
from bench.protocols.bicubic import Bicubic4x
from bench.protocols.paired import Paired
from tests.systems import LR_SIZES, answer, check_sizes, task

ATTENDING = dataclasses.replace(SMALL, vae_attends=True)  # as the published one does
FAST = "zoomldm:weights=random,size=tiny,stride=1000,inner=1,condition=none,finish=0"


@pytest.fixture(scope="module")
def model() -> Model:
    found = Model(FAST)
    found.load()
    return found


def parts(size: network.Size) -> dict[str, Any]:
    return {"unet": build_unet(size), "vae": build_vae(size), "summariser": Summariser(size)}


def shapes(nets: dict[str, Any]) -> dict[str, dict[str, torch.Size]]:
    return {part: {k: v.shape for k, v in net.state_dict().items()} for part, net in nets.items()}


# --- networks and files -------------------------------------------------------------------------------------------


def test_the_published_size_has_upstream_s_parameters_and_names() -> None:
    with torch.device("meta"):
        nets = parts(FULL)
    millions = {k: round(sum(p.numel() for p in n.parameters()) / 1e6, 2) for k, n in nets.items()}
    assert millions == {"unet": 400.92, "vae": 55.32, "summariser": 38.65}
    names = {part: [convert.source(part, k, FULL) for k in net.state_dict()] for part, net in nets.items()}
    assert all(len(set(n)) == len(n) for n in names.values())  # also without dots no two names meet
    # Latent diffusion's numbering, by hand: 3 stages of attention behind one without; 3 blocks a stage
    unet = {convert.unet_name(k, FULL) for k in nets["unet"].state_dict()}
    assert {n.split(".")[1] for n in unet if n.startswith("input_blocks")} == {str(i) for i in range(12)}
    for name in ("input_blocks.3.0.op.weight", "input_blocks.4.0.skip_connection.weight", "middle_block.1.norm.weight",
                 "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight", "output_blocks.2.2.conv.weight",
                 "output_blocks.8.2.conv.bias", "output_blocks.11.0.out_layers.3.weight", "out.2.bias"):  # fmt: skip
        assert name in unet, name
    assert not any(n.startswith(("input_blocks.1.1", "output_blocks.9.1", "output_blocks.11.1")) for n in unet)
    assert "model_ema.diffusion_modelinput_blocks00weight" in names["unet"]
    for name in ("encoder.down.0.block.1.conv2.weight", "decoder.up.2.block.2.norm1.bias", "quantize.embedding.weight",
                 "encoder.mid.attn_1.proj_out.weight", "decoder.up.1.upsample.conv.weight",
                 "encoder.down.1.block.0.nin_shortcut.weight", "post_quant_conv.bias"):  # fmt: skip
        assert f"first_stage_model.{name}" in names["vae"], name


def checkpoint(nets: dict[str, Any], size: network.Size) -> dict[str, torch.Tensor]:
    """The state of upstream's training class: what is used, under its names and shapes, and what else it holds."""
    state: dict[str, torch.Tensor] = {}
    for part, net in nets.items():
        for name, tensor in net.state_dict().items():
            theirs = convert.source(part, name, size)
            pointwise = ".attn_1." in theirs and tensor.ndim == 2
            state[theirs] = tensor[:, :, None, None] if pointwise else tensor
            if part == "unet":  # before averaging: these must not be used
                state[f"model.diffusion_model.{convert.unet_name(name, size)}"] = tensor + 1
    products = cumulative_products().float()
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(9, dtype=torch.int)}
    return state | counters | {"betas": products * 0, "alphas_cumprod": products, "lvlb_weights": products}


def write_files(folder: Path, nets: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    torch.save(checkpoint(nets, ATTENDING), folder / CHECKPOINT)
    monkeypatch.setattr(features, "_FULL", features._SMALL)
    dino = features.build_dino(small=True)
    randomise(dino, "zoomldm/dino")
    save_file({k: v.contiguous() for k, v in dino.state_dict().items()}, folder / DINO)
    for file in (CHECKPOINT, DINO):
        weights.record(folder / file, source="")


def test_upstream_s_files_load_completely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RFBENCH_CONVERTED", str(tmp_path / "converted"))
    for name in ("FULL", "SMALL"):
        monkeypatch.setattr(network, name, ATTENDING)
    nets = parts(ATTENDING)
    for part, net in nets.items():
        randomise(net, f"zoomldm/{part}")
    write_files(tmp_path / "weights", nets, monkeypatch)
    options = "stride=1000,inner=1,condition=dinov2,finish=0"
    found = Model(f"zoomldm:{options}", weights_dir=tmp_path / "weights")
    found.check_ready()
    found.load()
    loaded: Any = found.adapter
    for part, net in nets.items():
        state = loaded.networks[part].state_dict()
        assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    small = Model(f"zoomldm:weights=random,size=tiny,{options}")
    small.load()
    asked = task(Paired(), (6, 7))
    np.testing.assert_allclose(
        answer(found, asked).arrays["samples"], answer(small, asked).arrays["samples"], atol=1e-4
    )
    assert found.label == "zoomldm-reimplemented" and small.label == "zoomldm-random-tiny"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"1 missing \(unet.conv_in.bias\)"),
        ("more", r"1 unexpected \(first_stage_model.encoder.extra\)"),
        ("shape", r"of another shape \(summariser.dim_reduce.weight 3x3 for 16x32\)"),
        ("schedule", "another noise schedule"),
        ("unaveraged", r"missing \(unet\.conv_in\.weight"),
    ],
)
def test_a_checkpoint_of_another_model_is_one_line(damage: str, message: str) -> None:
    nets = parts(ATTENDING)
    state = checkpoint(nets, ATTENDING)
    if damage == "missing":
        del state["model_ema.diffusion_modelinput_blocks00bias"]
    elif damage == "more":
        state["first_stage_model.encoder.extra"] = torch.ones(1)
    elif damage == "shape":
        state["cond_stage_model.dim_reduce.weight"] = torch.ones(3, 3)
    elif damage == "schedule":
        state["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    else:
        state = {k: v for k, v in state.items() if not k.startswith("model_ema.diffusion")}
    with pytest.raises(RfbenchError, match=message) as caught:
        load_state(torch.nn.ModuleDict(nets), convert.state(state, shapes(nets), ATTENDING), CHECKPOINT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_wrong_file_of_dinov2_is_one_line(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_FULL", features._SMALL)
    path, dino = tmp_path / DINO, features.build_dino(small=True)
    state = {k: v.contiguous() for k, v in dino.state_dict().items()}
    save_file({k: v for k, v in state.items() if damage == "cut" or "layernorm.weight" not in k}, path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(RfbenchError, match=DINO) as caught:
        features.load_dino(path)
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_missing_weights_are_one_line_with_the_command(tmp_path: Path) -> None:
    found = Model("zoomldm", weights_dir=tmp_path)
    with pytest.raises(Unavailable, match=rf"{CHECKPOINT} \(about 3.6 GB\).*rfbench weights fetch"):
        found.check_ready()
    assert found.label == "zoomldm-reimplemented" and "fast-constrained-sampling" in found.spec.reimplementation
    assert set(Model("zoomldm:condition=none", weights_dir=tmp_path).spec.weights) == {CHECKPOINT}


# --- the condition ------------------------------------------------------------------------------------------------


def test_features_stand_in_the_middle_of_the_slots() -> None:
    net = Summariser(SMALL).eval()
    randomise(net, "summariser")
    seen: list[torch.Tensor] = []
    net.encoder.forward = lambda x: seen.append(x) or x  # type: ignore[method-assign,func-returns-value,assignment]
    with torch.no_grad():
        for side in (1, 2, 4, 8):
            found = torch.randn(2, 32, side, side)
            assert net(found, 1).shape == (2, 65, 16)
            (tokens,), count = seen, side * side
            seen.clear()
            first = 1 + 32 - count // 2
            expected = net.dim_reduce(found.flatten(2).transpose(1, 2))
            torch.testing.assert_close(tokens[:, first : first + count], expected)
            rest = torch.cat([tokens[:, 1:first], tokens[:, first + count :]], 1)
            assert rest.shape[1] == 64 - count and torch.equal(rest, net.pad_token.expand_as(rest))
            assert torch.equal(tokens[:, 0], net.mag_embedding.weight[[1, 1]])


def test_features_are_those_of_each_patch() -> None:
    dino = features.build_dino(small=True).eval()
    randomise(dino, "dino")
    image = torch.rand(1, 3, 256, 256)
    found = features.features(dino, image, 2)
    assert found.shape == (1, 32, 2, 2)
    image[:, :, :100, :100] = 0.5  # inside the first patch alone
    changed = (features.features(dino, image, 2) - found).abs().amax(dim=1)[0] > 1e-6
    assert changed.tolist() == [[True, False], [False, False]]
    alike = standardised(found)
    torch.testing.assert_close(alike.mean(dim=1), torch.zeros(1, 2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(alike.std(dim=1), torch.ones(1, 2, 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("gsd_m", "factor", "zooms"),
    # The LR is taken to be of the last zoom that is not coarser than it is.
    [(10.0, 5, (1, 2)), (10.0, 4, (1, 2)), (10.0, 10, (0, 3)), (16.0, 4, (2, 1)), (10.0, 3, (2, 1)), (10.0, 2, (2, 1)),
     (30.0, 3, (2, 1)), (None, 5, (1, 2))],
)  # fmt: skip
def test_the_zoom_is_that_of_the_answer_s_pixels(
    gsd_m: float | None, factor: int, zooms: tuple[int, int], model: Model
) -> None:
    loaded: Any = model.adapter
    batch = Batch(
        np.zeros((1, 8, 8, 3), np.float32), (8 * factor,) * 2, ("R", "G", "B"), ("x",), ("",), ((0,),), gsd_m=gsd_m
    )
    assert loaded._zooms(batch) == zooms


@pytest.mark.parametrize(
    ("options", "side"), [("", 512), (",scales=0", 256), (",scales=2", 1024), (",zoom=3", 256), (",zoom=1", 512)]
)
def test_the_largest_answer_is_what_the_lr_s_zoom_covers(options: str, side: int) -> None:
    assert Model(FAST + options).spec.max_out_side_px == side


# --- the sampler --------------------------------------------------------------------------------------------------


def test_the_reduction_is_the_protocol_s_kernel() -> None:
    image = np.random.default_rng(0).random((60, 52, 3)).astype(np.float32)
    constraint = Constraint(torch.zeros(1, 3, 12, 13), (60, 52))
    whole = torch.zeros(1, 3, 64, 64)
    whole[:, :, :60, :52] = torch.from_numpy(image).permute(2, 0, 1)
    found = constraint.down(whole)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, resize(image, (12, 13)), atol=1e-6)
    torch.testing.assert_close(resizing(60, 12).sum(1), torch.ones(12))
    torch.testing.assert_close(resizing(12, 60).sum(1), torch.ones(60))


def linear(size: int) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor], Callable[..., torch.Tensor]]:
    """A model whose clean latent is 0.8 of what a perfect one of white noise would say; its decoder repeats pixels, its
    encoder is their mean."""
    products = cumulative_products()

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        # eps such that x0 = 0.8 sqrt(a) x
        a = float(products[t - 1])
        return (x - a * 0.8 * x) / (1 - a) ** 0.5

    def encode(image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(image, size)

    return predict, encode, lambda z: z.repeat_interleave(size, 2).repeat_interleave(size, 3)


@pytest.mark.parametrize("usual", [Settings(), FAST_CONSTRAINED], ids=lambda s: s.push)
def test_constrained_sampling_comes_nearer_to_the_lr(usual: Settings) -> None:
    predict, encode, decode = linear(4)
    lr = torch.from_numpy(np.random.default_rng(0).uniform(-0.8, 0.8, (1, 3, 8, 8)).astype(np.float32))
    constraint = Constraint(lr, (32, 32))
    noise = torch.randn(1, usual.noise_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    free, held, more = (
        constraint.distance(
            decode(sample(predict, encode, decode, constraint, noise, dataclasses.replace(usual, inner=n)))
        ).item()
        for n in (0, 5, 30)
    )
    # ZoomLDM's own answer still has the noise of the schedule's first entry, and its steps are larger.
    assert max(held, more) < (0.1 if usual.push == "decoder" else 0.35) * free
    corner = Constraint(lr, (32, 32))
    wide = torch.randn(1, usual.noise_channels, 16, 16, generator=torch.Generator().manual_seed(0))

    def padded(z: torch.Tensor) -> torch.Tensor:
        return decode(z)

    a, b = (sample(predict, encode, padded, corner, wide, dataclasses.replace(usual, inner=n)) for n in (0, 5))
    # What lies outside of the corner is not touched by a model that sees single pixels.
    assert torch.equal(a[..., 9:, 9:], b[..., 9:, 9:]) and not torch.allclose(a[..., :8, :8], b[..., :8, :8])


@pytest.mark.parametrize("usual", [Settings(), FAST_CONSTRAINED], ids=lambda s: s.push)
def test_a_flat_gradient_is_no_division_by_zero(usual: Settings) -> None:
    predict, encode, decode = linear(4)
    noise = torch.randn(1, usual.noise_channels, 8, 8)
    flat = Constraint(torch.zeros(1, 3, 8, 8), (32, 32))
    found = sample(predict, lambda x: encode(x) * 0, lambda z: decode(z) * 0, flat, noise, usual)
    assert torch.isfinite(found).all()


def test_patches_are_joined_row_by_row_and_held_together() -> None:
    whole = torch.arange(2 * 3 * 4 * 5.0).reshape(1, 1, 8, 15)
    patches = parted(whole, (2, 3))
    assert patches.shape == (6, 1, 4, 5) and torch.equal(patches[1], whole[0, :, :4, 5:10])
    assert torch.equal(joined(patches, (2, 3)), whole)
    lr = torch.rand(1, 3, 5, 9)
    constraint = Constraint(lr, (25, 45), (1, 2))
    # What is missing of the LR, added to images that have nothing, is the enlarged LR: brought down it comes back.
    lacking = constraint.missing(torch.zeros(2, 3, 32, 32))
    assert lacking.shape == (2, 3, 32, 32) and lacking[..., 25:, :].abs().max() == 0
    assert joined(lacking, (1, 2))[..., 45:].abs().max() == 0
    assert constraint.distance(lacking) < 0.5 * constraint.distance(torch.zeros(2, 3, 32, 32))


# --- the condition and the finish ---------------------------------------------------------------------------------


def test_inversion_finds_features_that_explain_the_image() -> None:
    """A model of which the features are the latent's mean: they are found from another start."""
    latent = torch.full((1, 3, 8, 8), 1.5)

    def denoise(noisy: torch.Tensor, t: int, found: torch.Tensor) -> torch.Tensor:
        product = float(cumulative_products()[t - 1])
        clean = found[0, 0].mean() * 3  # features are standardised: the first of four reaches at most 1.5
        return (noisy - product**0.5 * clean) / (1 - product) ** 0.5

    start = torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(3 * 100, 8, 8, generator=torch.Generator().manual_seed(1))
    found = condition.invert(latent, denoise, start, noise)
    before, after = (float(standardised(f[None])[0, 0].mean() * 3) for f in (start, found))
    assert abs(after - 1.5) < 0.2 < abs(before - 1.5)
    assert condition.times(200)[0] == 950 and condition.times(200)[-1] == 50 and condition.times(1) == (950,)


def test_likeness_is_rewarded() -> None:
    start = torch.randn(16, 2, 2, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(3 * 20, 4, 4)
    found = condition.invert(torch.zeros(1, 3, 4, 4), lambda x, t, f: x * 0 + 0 * f.sum(), start, noise)
    assert condition._likeness(found) > condition._likeness(start) + 0.2


def test_features_between_places_lie_on_the_sphere() -> None:
    grid = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])  # (2, 1, 2): right angles
    half = condition.between(grid, 0, 0.5)
    torch.testing.assert_close(half, torch.full((2,), 0.5**0.5))
    torch.testing.assert_close(condition.between(grid, 0, 1), grid[:, 0, 1])
    torch.testing.assert_close(condition.between(grid, 0, 1.7), grid[:, 0, 1])  # beyond the last: the last
    alike = torch.stack([torch.ones(2, 2), 2 * torch.ones(2, 2)])
    torch.testing.assert_close(condition.between(alike, 0.5, 0.5), torch.tensor([1.0, 2.0]))


def test_the_finish_starts_from_the_noised_whole_and_keeps_what_the_model_knows() -> None:
    """A model that knows the image: what is sharpened comes back but for the schedule's first entry."""
    known = torch.randn(1, 3, 64, 128, generator=torch.Generator().manual_seed(0))

    def predict(x: torch.Tensor, t: int, row: int, column: int) -> torch.Tensor:
        product = float(cumulative_products()[t - 1])
        return (x - product**0.5 * known[..., row : row + 64, column : column + 64]) / (1 - product) ** 0.5

    noise = torch.randn(1, finish.noise_channels(300, 50), 64, 128, generator=torch.Generator().manual_seed(1))
    found = finish.sharpen(torch.zeros_like(known), predict, noise, 300, 50)
    left = (1 - float(cumulative_products()[0])) ** 0.5
    assert (found - float(cumulative_products()[0]) ** 0.5 * known).std() < 1.3 * left
    assert list(finish.windows(known)) == [(0, c) for c in range(0, 65, 16)]
    image = finish.decode(known, lambda z: z.repeat_interleave(4, 2).repeat_interleave(4, 3))
    torch.testing.assert_close(image, known.repeat_interleave(4, 2).repeat_interleave(4, 3))  # blending equals is equal


def test_times_and_schedule_are_the_published_ones() -> None:
    assert Settings().times == tuple(range(1000, 0, -50)) and Settings().noise_channels == 3 * 21
    assert Settings(stride=400).times == (1000, 600, 200)
    products = cumulative_products()
    first, last = Step.of(1000, 50), Step.of(50, 50)
    assert first.before == float(products[949]) and last.before == float(products[0])
    assert Step.of(50, 50, last=1).before == float(products[1])
    # diffusers' name for latent diffusion's "linear"
    from diffusers import DDPMScheduler

    other = DDPMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear").alphas_cumprod
    torch.testing.assert_close(products.float(), other, atol=1e-5, rtol=1e-4)


# --- the whole ----------------------------------------------------------------------------------------------------


def test_sizes_on_both_protocols(model: Model) -> None:
    check_sizes(model, LR_SIZES[:-1])
    # 128x128 px are four patches, more come in tiles; one protocol shows it.
    found = answer(model, task(Bicubic4x(), (128, 130)))
    assert found.arrays["samples"].shape == (1, 512, 520, 3)


def test_seeds_and_draws(model: Model) -> None:
    asked = task(Paired(), (12, 16))
    one, again, other = (answer(model, asked, seed=s, draws=2).arrays["samples"] for s in (0, 0, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other) and not np.array_equal(one[0], one[1])
    assert np.array_equal(answer(model, asked, draws=1).arrays["samples"][0], one[0])


def test_guidance_and_condition_count() -> None:
    found = []
    for options in (
        "condition=dinov2,guidance=0", "condition=dinov2", "condition=dinov2,zoom=3", "condition=none",
        "condition=inversion,invert_steps=1", "condition=inversion,invert_steps=2", "condition=none,scales=1",
    ):  # fmt: skip
        each = Model(f"zoomldm:weights=random,size=tiny,stride=1000,inner=0,finish=0,{options}")
        each.load()
        found.append(answer(each, task(Paired(), (6, 7))).arrays["samples"])
        assert "settings" in each.identity()["adapter"] and json.dumps(each.identity())
    same = [(i, j) for i, a in enumerate(found) for j, b in enumerate(found[:i]) if np.array_equal(a, b)]
    assert same == [(6, 3)]  # without a condition or a constraint nothing depends on the LR's zoom


def test_the_finish_counts() -> None:
    found = []
    for time in (0, 500):
        each = Model(f"zoomldm:weights=random,size=tiny,stride=1000,inner=0,condition=dinov2,finish={time}")
        each.load()
        found.append(answer(each, task(Paired(), (6, 7))).arrays["samples"])
    assert not np.array_equal(*found)


@pytest.mark.parametrize(
    ("options", "message"),
    [("stride=0", "option stride"), ("inner=-1", "option inner"), ("zoom=4", "option zoom"), ("zoom=x", "option zoom"),
     ("condition=clip", "expected inversion or dinov2 or none"), ("difference=0", "option difference"),
     ("size=tiny", "no published"),
     ("condition=none,guidance=2", "nothing to guide to"), ("zoom=2,scales=2", "together at most 3"),
     ("push=both", "encoder or decoder"), ("invert_steps=0", "option invert_steps"), ("finish=2000", "option finish"),
     ("strides=2", "did you mean stride")],
)  # fmt: skip
def test_bad_options_are_one_line(options: str, message: str) -> None:
    with pytest.raises(RfbenchError, match=message) as caught:
        Model(f"zoomldm:{options}")
    assert "\n" not in str(caught.value)


def test_settings_change_the_answer() -> None:
    predict, encode, decode = linear(4)
    constraint = Constraint(torch.rand(1, 3, 8, 8), (32, 32))
    noise = torch.randn(1, Settings().noise_channels, 8, 8)
    base = sample(predict, encode, decode, constraint, noise, Settings(inner=3))
    for change in ({"rate": 0.2}, {"inner": 4}, {"push": "decoder"}):
        settings = dataclasses.replace(Settings(inner=3), **change)
        assert not torch.equal(base, sample(predict, encode, decode, constraint, noise, settings))
