"""Sampling: against the same steps written out with diffusers' parts, and what must not change the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from rareflow.checkpoint import load
from rareflow.config import with_changes
from rareflow.errors import RareflowError
from rareflow.flow import noise_levels
from rareflow.images import next_multiple, pad_to, shrink, upsample
from rareflow.model import RareFlow, Result, _means
from rareflow.noise import normal
from rareflow.uncertainty import Scale, measure
from tests.small_rareflow import pixels, small_config, small_model, squares, unsquared

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (50, 65)  # no multiple of the 12 px that the small model works in


@pytest.fixture(scope="module")
def model() -> RareFlow:
    return scaled(small_model())


def scaled(model: RareFlow) -> RareFlow:
    """With a scale that brings u into the middle of [0, 1]."""
    found = model.upscale(lrs(4), SIZE, seeds=[(i,) for i in range(4)], steps=1).mean_v
    model.scale = Scale(float(found.max() * 1.2), float(np.median(found)))
    return model


def lrs(count: int, size: tuple[int, int] = (10, 13)) -> np.ndarray:
    """LR pictures of different contrast, so that their u differ."""
    return np.stack([0.5 + (pixels(i, *size) - 0.5) * (0.2 + i / count) for i in range(count)]).clip(0, 1)


def changed(model: RareFlow, **changes: dict[str, Any]) -> RareFlow:
    return dataclasses.replace(model, config=with_changes(model.config, changes))


def same(a: Result, b: Result) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(Result))


# --- the way to the grid and back ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("small", "large"), [((10, 13), (50, 65)), ((7, 9), (24, 31)), ((1, 1), (5, 7)), ((9, 9), (4, 5))]
)
def test_upsample_is_pillows_bicubic_clipped(small: tuple[int, int], large: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((*small, 3), dtype=np.float32)
    got = upsample(torch.from_numpy(image.transpose(2, 0, 1))[None], large)[0].permute(1, 2, 0).numpy()
    for c in range(3):
        channel = PIL.Image.fromarray(image[:, :, c]).resize(large[::-1], PIL.Image.Resampling.BICUBIC)
        np.testing.assert_allclose(got[:, :, c], np.clip(np.asarray(channel), 0, 1), atol=2e-6)


@pytest.mark.parametrize("have", [1, 2, 3, 11, 12])
def test_padding_is_numpys_reflection(have: int) -> None:
    image = np.random.default_rng(have).random((2, 3, have, 5))
    got = pad_to(torch.from_numpy(image), (24, 12)).numpy()
    expected = np.pad(image, ((0, 0), (0, 0), (0, 24 - have), (0, 7)), mode="reflect")
    assert np.array_equal(got, expected)
    assert np.array_equal(pad_to(torch.from_numpy(image), (have, 5)).numpy(), image)


def test_sides_go_up_to_the_next_multiple() -> None:
    for n in range(1, 40):
        rows, columns = next_multiple((n, n + 1), 12)
        assert rows % 12 == columns % 12 == 0 and 0 <= rows - n < 12 and 0 <= columns - n - 1 < 12


def test_shrink_is_the_mean_of_blocks() -> None:
    image = np.random.default_rng(0).random((2, 3, 8, 12))
    expected = image.reshape(2, 3, 4, 2, 6, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(shrink(torch.from_numpy(image), (4, 6)).numpy(), expected, rtol=1e-12)


# --- sampling by hand ------------------------------------------------------------------------------------------------


def condition_by_hand(model: RareFlow, lr: np.ndarray, size: tuple[int, int]) -> Tensor:
    vae, scale = model.codec.vae, model.config.work_scale
    inner = size[0] * scale, size[1] * scale
    work = [-(-n // 12) * 12 for n in inner]
    up = np.stack([np.asarray(PIL.Image.fromarray(lr[:, :, c]).resize(inner[::-1], PIL.Image.Resampling.BICUBIC))
                   for c in range(3)]).clip(0, 1)  # fmt: skip
    padded = np.pad(up, ((0, 0), (0, work[0] - inner[0]), (0, work[1] - inner[1])), mode="reflect")
    with torch.no_grad():
        mode = vae.encode(torch.from_numpy(squares(padded))[None] * 2 - 1).latent_dist.mode()
    return (mode - vae.config.shift_factor) * vae.config.scaling_factor


def sample_by_hand(
    model: RareFlow, lr: np.ndarray, size: tuple[int, int], noise: Tensor, u: float | Callable[[int, Tensor], float],
    caption: str = "", steps: int = 2, guidance: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """One image (H, W, 3) from noise (C, rows, columns): diffusers' scheduler and networks, gates in numpy."""
    field, vae, scale = model.field, model.codec.vae, model.config.work_scale
    assert field.gates is not None and field.control is not None
    x, z = condition_by_hand(model, lr, size), noise[None]
    table = model.captions.table  # type: ignore[attr-defined]
    scheduler = FlowMatchEulerDiscreteScheduler(shift=model.config.sampling.shift)
    scheduler.set_timesteps(steps)
    p0, pt, pu = (p.numpy().astype(np.float64) for p in (field.gates.p0, field.gates.pt, field.gates.pu))
    now = u if isinstance(u, float) else 0.0
    whole, condition = z.shape[-2:], x
    for step, t in enumerate(scheduler.timesteps):
        now = now if isinstance(u, float) else u(step, z)
        alpha = 1 / (1 + np.exp(-(p0 + pt * float(t) / 1000 + pu * now)))
        # patches of 3 cells begin at (0, 0), (1, 2), (2, 1), (0, 0), ...: cells are missing before them and behind
        top, left = ((-o) % 3 for o in ((0, 0), (1, 2), (2, 1))[step % 3])
        sides = ((0, 0), (0, 0), (top, (-top) % 3), (left, (-left) % 3))
        x, laid = (torch.from_numpy(np.pad(i.numpy(), sides, mode="reflect")) for i in (condition, z))
        velocities = []
        for text in (caption, ""):
            with torch.no_grad():
                tokens, pooled = table(table.ids([text]))
                shared = {"encoder_hidden_states": tokens, "pooled_projections": pooled, "timestep": t[None],
                          "return_dict": False}  # fmt: skip
                residuals = field.control(hidden_states=laid, controlnet_cond=x, **shared)[0]
                gated = [r * float(field.s_ctrl * a) for r, a in zip(residuals, alpha, strict=True)]
                velocities.append(
                    field.transformer(hidden_states=laid, block_controlnet_hidden_states=gated, **shared)[0]
                )
        v = velocities[1] + guidance * (velocities[0] - velocities[1])
        v = v[..., top : top + whole[0], left : left + whole[1]]
        z = scheduler.step(v, t, z, return_dict=False)[0]
    with torch.no_grad():
        decoded = vae.decode(z / vae.config.scaling_factor + vae.config.shift_factor).sample[0]
    image = (unsquared(decoded.numpy()) + 1) / 2
    image = image[:, : size[0] * scale, : size[1] * scale].reshape(3, size[0], scale, size[1], scale).mean((2, 4))
    return image.clip(0, 1).transpose(1, 2, 0)


@pytest.mark.parametrize(
    ("work_scale", "guidance", "steps", "caption"),
    [(1, 1.0, 2, ""), (1, 2.5, 3, "a slump above a river"), (1, 0.0, 1, "snow"), (2, 1.0, 4, "a lake")],
)
def test_a_sample_is_that_of_the_steps_written_out(
    model: RareFlow, work_scale: int, guidance: float, steps: int, caption: str
) -> None:
    model = changed(model, work_scale=work_scale)  # type: ignore[arg-type]
    lr = lrs(3)[2]
    got = model.upscale(
        lr, SIZE, captions=[caption], seeds=[(5, 6)], u=0.7, steps=steps, guidance=guidance
    ).samples  # fmt: skip
    assert got.shape == (1, 2, *SIZE, 3) and got.dtype == np.float32
    rows, columns = (-(-n * work_scale // 12) * 3 for n in SIZE)
    for k, seed in enumerate((5, 6)):
        noise = normal([seed], (4, rows, columns), "noise")[0]
        expected = sample_by_hand(model, lr, SIZE, noise, 0.7, caption, steps, guidance)
        np.testing.assert_allclose(got[0, k], expected, atol=5e-5)
    assert got.std() > 0.05 and np.abs(got[0, 0] - got[0, 1]).mean() > 0.01


def test_measured_u_is_that_of_eq_4_and_5_from_pure_noise(model: RareFlow) -> None:
    images, seeds, captions = lrs(2), [(5, 6), (9, 7)], ["a lake", ""]
    got = model.upscale(images, SIZE, captions=captions, seeds=seeds)
    table = model.captions.table  # type: ignore[attr-defined]
    for i in range(2):
        tokens, pooled = table(table.ids([captions[i]]))
        v = measure(
            model.field, model.masks, model.codec.decode, z=normal([seeds[i][0]], (4, 15, 18), "noise"), sigma=1.0,
            x=condition_by_hand(model, images[i], SIZE), tokens=tokens.detach(), pooled=pooled.detach(),
            seeds=[seeds[i][0]], passes=3,
        )[0, : SIZE[0], : SIZE[1]].double().numpy()  # fmt: skip
        np.testing.assert_allclose(got.v[i], v, rtol=2e-2, atol=2e-2 * v.mean())
        assert got.mean_v[i] == pytest.approx(got.v[i].astype(np.float64).mean(), rel=1e-5)
        tau = model.scale.tau
        assert got.u[i] == pytest.approx(np.clip(v, 0, tau).mean() / tau, rel=2e-3)
    exp = dataclasses.replace(model, scale=Scale(1.0, model.scale.kappa, "exp")).upscale(images, SIZE, seeds=seeds)
    np.testing.assert_allclose(exp.u, 1 - np.exp(-exp.mean_v / model.scale.kappa), rtol=1e-5)


def test_a_measured_u_and_the_same_u_given_are_one(model: RareFlow) -> None:
    images, seeds = lrs(2), [(1,), (2,)]
    measured = model.upscale(images, SIZE, seeds=seeds)
    assert 0 < measured.u[0] < 1 and measured.u[0] != measured.u[1] and measured.v.min() >= 0
    for i in range(2):
        given = model.upscale(images[i], SIZE, seeds=seeds[i : i + 1], u=float(measured.u[i]))
        assert np.array_equal(given.samples[0], measured.samples[i])
        assert given.u[0] == measured.u[i] and not given.v.any() and not given.mean_v.any()
    other = model.upscale(images, SIZE, seeds=seeds, u=0.0)
    assert np.abs(other.samples - measured.samples).max() > 1e-3


def test_u_measured_again_every_k_steps(model: RareFlow) -> None:
    """Each time at the noise level and the latents of that step, the padding left out, with the image's own masks."""
    images, seed, steps = lrs(3), 3, 5
    model = dataclasses.replace(model, scale=Scale(model.scale.tau / 8, 1.0, "ratio"))  # v falls with the noise
    again = changed(model, uncertainty={"every": 2})
    got = again.upscale(images[2], SIZE, seeds=[(seed, 8)], steps=steps)
    once = model.upscale(images[2], SIZE, seeds=[(seed, 8)], steps=steps)
    assert np.array_equal(got.u, once.u) and np.array_equal(got.v, once.v)
    x = condition_by_hand(model, images[2], SIZE)
    table = model.captions.table  # type: ignore[attr-defined]
    tokens, pooled = (t.detach() for t in table(table.ids([""])))
    sigmas = noise_levels(steps, model.config.sampling.shift)
    for k, noise in enumerate(normal([seed, 8], (4, 15, 18), "noise")):
        used = [float(once.u[0])]

        def u_at(step: int, z: Tensor, used: list[float] = used) -> float:
            if step and step % 2 == 0:
                v = measure(
                    model.field, model.masks, model.codec.decode, z=z, sigma=sigmas[step], x=x, tokens=tokens,
                    pooled=pooled, seeds=[seed], passes=3,
                )  # fmt: skip
                used.append(min(1.0, float(v[0, : SIZE[0], : SIZE[1]].mean()) / model.scale.tau))
            return used[-1]

        expected = sample_by_hand(model, images[2], SIZE, noise, u_at, "", steps)
        assert len(set(used)) == 3
        np.testing.assert_allclose(got.samples[0, k], expected, atol=2e-5)
        assert np.abs(once.samples[0, k] - expected).max() > 1e-3


def test_temperature_scales_the_noise_and_leaves_u(model: RareFlow) -> None:
    images, seeds = lrs(1), [(1, 2, 3)]
    whole = model.upscale(images, SIZE, seeds=seeds)
    cool = model.upscale(images, SIZE, seeds=seeds, temperature=0.5)
    noise = normal([1, 2, 3], (4, 15, 18), "noise").numpy().transpose(0, 2, 3, 1)[None]
    by_hand = model.upscale(images, SIZE, seeds=seeds, noise=np.float32(0.5) * noise, u=float(whole.u[0]))
    assert np.array_equal(cool.samples, by_hand.samples) and np.array_equal(cool.u, whole.u)
    assert np.array_equal(cool.v, whole.v)
    assert cool.samples.std(axis=1).mean() < whole.samples.std(axis=1).mean()
    set_so = changed(model, sampling={"temperature": 0.5}).upscale(images, SIZE, seeds=seeds)
    assert same(set_so, cool)
    with pytest.raises(RareflowError, match="temperature: found -1"):
        model.upscale(images, SIZE, temperature=-1)


def test_a_small_model_takes_one_thread_whatever_torch_is_set_to() -> None:
    model, seen = load(), []
    assert model.threads == 1
    decode = model.codec.decode
    model.codec.decode = lambda z: (seen.append(torch.get_num_threads()), decode(z))[1]  # type: ignore[method-assign]
    try:
        torch.set_num_threads(2)
        model.upscale(lrs(1), (24, 36), steps=1)
        assert set(seen) == {1} and torch.get_num_threads() == 2
        model.threads = None
        seen.clear()
        model.upscale(lrs(1), (24, 36), steps=1)
        assert set(seen) == {2}
    finally:
        torch.set_num_threads(1)


# --- what must not change the answer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [0, 1])
def test_one_batch_of_eight_is_eight_of_one_to_the_bit(model: RareFlow, every: int) -> None:
    model = changed(model, uncertainty={"every": every})
    images, size, seeds = lrs(8), (22, 33), [(i,) for i in range(8)]
    captions = [f"picture {i} with a lake" * (i % 3) for i in range(8)]
    order = [7, 2, 5]

    def results(which: list[int]) -> Result:
        return model.upscale(
            images[which], size, captions=[captions[i] for i in which], seeds=[seeds[i] for i in which], guidance=1.5
        )

    whole, some = results(list(range(8))), results(order)
    assert len(set(whole.u.tolist())) == 8
    for i in range(8):
        alone = results([i])
        for field in dataclasses.fields(Result):
            assert np.array_equal(getattr(alone, field.name)[0], getattr(whole, field.name)[i]), (i, field.name)
            if i in order:
                assert np.array_equal(getattr(some, field.name)[order.index(i)], getattr(whole, field.name)[i])


def test_the_mean_of_a_map_is_its_own_with_several_threads_too() -> None:
    """Threads share a sum out by the size of the whole tensor, so a mean over a batch is not that over its images."""
    maps = torch.rand(8, 210, 230, generator=torch.Generator().manual_seed(0))[:, :203, :201]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(_means(maps), torch.cat([_means(one[None]) for one in maps]))
    finally:
        torch.set_num_threads(before)


def test_several_at_once_as_on_a_gpu_are_the_same_up_to_rounding(model: RareFlow) -> None:
    model = changed(model, uncertainty={"every": 1})
    x = torch.cat([condition_by_hand(model, image, SIZE) for image in lrs(3)])
    tokens, pooled = model.captions.get(["a", "lake", ""])
    z, u, seeds = normal([1, 2, 3], (4, 15, 18), "noise"), torch.tensor([0.1, 0.9, 0.5]), [4, 5, 6]
    sigmas = [1.0, 0.7, 0.3, 0.0]

    def draw(which: list[int]) -> np.ndarray:
        condition = x[which], tokens[which], pooled[which]
        return model._draw(z[which], sigmas, condition, u[which], [seeds[i] for i in which], 1.5, 1, SIZE)

    whole = draw([0, 1, 2])
    for i in range(3):
        np.testing.assert_allclose(draw([i])[0], whole[i], atol=1e-4)


def test_draw_0_does_not_know_of_the_others(model: RareFlow) -> None:
    images = lrs(2)
    one = model.upscale(images, SIZE, seeds=[(7,), (8,)])
    four = model.upscale(images, SIZE, seeds=[(7, 1, 2, 3), (8, 1, 2, 3)])
    assert four.samples.shape == (2, 4, *SIZE, 3)
    assert np.array_equal(one.samples[:, 0], four.samples[:, 0])
    assert np.array_equal(one.v, four.v) and np.array_equal(one.u, four.u)
    assert all(np.abs(four.samples[:, 0] - four.samples[:, k]).mean() > 0.01 for k in (1, 2, 3))
    alone = model.upscale(images[:1], SIZE, seeds=[(2,)], u=float(four.u[0]))
    assert np.array_equal(alone.samples[0, 0], four.samples[0, 2])


def test_noise_that_is_the_seeds_own_changes_nothing(model: RareFlow) -> None:
    images, seeds = lrs(2), [(3, 4), (5, 6)]
    expected = model.upscale(images, SIZE, seeds=seeds)
    assert model.latent_cells(SIZE) == (15, 18)
    noise = torch.stack([normal(list(row), (4, 15, 18), "noise") for row in seeds]).permute(0, 1, 3, 4, 2).numpy()
    assert same(model.upscale(images, SIZE, seeds=seeds, noise=noise), expected)
    assert same(model.upscale(images, SIZE, seeds=seeds, noise=noise.astype(np.float64)), expected)
    assert not same(model.upscale(images, SIZE, seeds=seeds, noise=-noise), expected)


def test_the_global_generator_and_torchs_modes_have_no_say(model: RareFlow) -> None:
    images = lrs(1)
    expected = model.upscale(images, SIZE)
    state = torch.random.get_rng_state()
    torch.manual_seed(99)
    model.field.transformer.train()
    assert model.field.control is not None
    model.field.control.train()
    try:
        before = torch.random.get_rng_state()
        assert same(model.upscale(images, SIZE), expected)
        assert torch.equal(torch.random.get_rng_state(), before)
    finally:
        model.field.transformer.eval()
        model.field.control.eval()
        torch.random.set_rng_state(state)


def test_inputs_are_left_as_they_are(model: RareFlow) -> None:
    images = lrs(2)
    kept = images.copy()
    model.upscale(images, (10, 13))
    assert np.array_equal(images, kept)
    assert same(model.upscale(images.astype(np.float64), SIZE), model.upscale(images, SIZE))
    assert same(model.upscale(images[0], SIZE), model.upscale(images[:1], SIZE))


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lr", "size"),
    [((1, 1), (5, 5)), ((1, 1), (1, 1)), ((30, 40), (150, 200)), ((2, 7), (7, 23)), ((9, 11), (36, 44)),
     ((20, 20), (13, 9)), ((48, 48), (48, 48)), ((6, 48), (30, 228))],
)  # fmt: skip
def test_any_size_and_scale(model: RareFlow, lr: tuple[int, int], size: tuple[int, int]) -> None:
    got = model.upscale(pixels(1, *lr), size)
    assert got.samples.shape == (1, 1, *size, 3) and got.v.shape == (1, *size)
    assert np.isfinite(got.samples).all() and got.samples.min() >= 0 and got.samples.max() <= 1
    assert np.isfinite(got.v).all() and 0 <= got.u[0] <= 1


def test_the_largest_size_is_that_of_the_positions(model: RareFlow) -> None:
    assert model.multiple == 12 and model.largest_px == 228
    model.upscale(pixels(0, 5, 5), (5, 228), steps=1, u=0.0)
    for size in ((229, 5), (5, 229)):
        with pytest.raises(RareflowError, match=r"of \d+x\d+ px is larger than the 228 px a side .*tile the image"):
            model.upscale(pixels(0, 5, 5), size)
    twice = changed(model, work_scale=2)  # type: ignore[arg-type]
    twice.upscale(pixels(0, 5, 5), (5, 108), steps=1, u=0.0)
    with pytest.raises(RareflowError, match="the 114 px a side"):
        twice.upscale(pixels(0, 5, 5), (5, 115))


# --- captions --------------------------------------------------------------------------------------------------------


def test_a_caption_acts_through_its_embedding_alone(model: RareFlow, monkeypatch: pytest.MonkeyPatch) -> None:
    image = lrs(1)
    plain = model.upscale(image, SIZE)
    told = model.upscale(image, SIZE, captions=["a slump above a river"])
    assert np.abs(told.samples - plain.samples).max() > 1e-3 and not np.array_equal(told.v, plain.v)
    assert same(model.upscale(image, SIZE, captions=["the of and"]), plain)  # stop words are no caption
    assert same(
        model.upscale(image, SIZE, captions=["Slump, RIVER!"]), model.upscale(image, SIZE, captions=["slump river"])
    )
    one = model.captions.get([""])
    monkeypatch.setattr(model.captions, "get", lambda texts: tuple(t.expand(len(texts), *t.shape[1:]) for t in one))
    assert same(model.upscale(image, SIZE, captions=["a slump above a river"]), plain)


@pytest.mark.parametrize(
    "caption",
    ["slump " * 1667, "x" * 10_000, "ein Rutsch über dem Fluß", "оползень у реки", "河川の上の地すべり", "انزلاق أرضي",
     "🏔🌊", "\x00\n\t", "\ud800 lone surrogate", ""],
    ids=["many", "long", "German", "Russian", "Japanese", "Arabic", "pictures", "control", "broken", "none"],
)  # fmt: skip
def test_any_caption_is_accepted(model: RareFlow, caption: str) -> None:
    got = model.upscale(lrs(1), (12, 12), captions=[caption], steps=1)
    assert np.isfinite(got.samples).all()
    words = not caption.isspace() and caption not in ("", "\x00\n\t", "🏔🌊")
    assert same(got, model.upscale(lrs(1), (12, 12), steps=1)) != words


def test_a_model_without_captions_is_given_none(model: RareFlow) -> None:
    mute = changed(model, text={"captions": False})
    image = lrs(1)
    assert same(mute.upscale(image, SIZE, captions=["a slump"], guidance=2.0), mute.upscale(image, SIZE))


# --- bad input -------------------------------------------------------------------------------------------------------

GOOD = lrs(2)


@pytest.mark.parametrize(
    ("lr", "size", "options", "says"),
    [
        (GOOD[:, :, :, :2], SIZE, {}, r"shape \(2, 10, 13, 2\), expected \(B, height, width, 3\)"),
        (GOOD[0, :, :, 0], SIZE, {}, "expected .B, height, width, 3"),
        (GOOD[:0], SIZE, {}, "expected .B, height, width, 3"),
        (GOOD[:, :0], SIZE, {}, "expected .B, height, width, 3"),
        (np.where(GOOD > 0.6, np.nan, GOOD), SIZE, {}, "not finite; mask or fill"),
        (np.where(GOOD > 0.6, np.inf, GOOD), SIZE, {}, "not finite; mask or fill"),
        (GOOD * 255, SIZE, {}, r"expected display values in \[0, 1\]; normalise"),
        (GOOD - 0.5, SIZE, {}, r"runs from -\d.*normalise"),
        (GOOD, (0, 5), {}, "rows: found 0"),
        (GOOD, (5, -1), {}, "columns: found -1"),
        (GOOD, SIZE, {"u": 1.5}, r"u: found 1.5, expected a number from 0 to 1"),
        (GOOD, SIZE, {"u": float("nan")}, "u: found nan"),
        (GOOD, SIZE, {"steps": 0}, "steps: found 0, expected a number from 1"),
        (GOOD, SIZE, {"guidance": -1.0}, "guidance: found -1"),
        (GOOD, SIZE, {"captions": ["one"]}, "1 captions and 2 rows of seeds for 2 images, expected one"),
        (GOOD, SIZE, {"seeds": [(1,)]}, "2 captions and 1 rows of seeds"),
        (GOOD, SIZE, {"seeds": [(1,), (1, 2)]}, "one row of as many seeds"),
        (GOOD, SIZE, {"seeds": [(), ()]}, "one or more"),
        (GOOD, SIZE, {"noise": np.zeros((2, 1, 15, 18, 3), np.float32)}, r"expected \(2, 1, 15, 18, 4\)"),
        (GOOD, SIZE, {"noise": np.full((2, 1, 15, 18, 4), np.nan, np.float32)}, "noise holds values that are not f"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    model: RareFlow, lr: np.ndarray, size: tuple[int, int], options: dict, says: str
) -> None:
    with pytest.raises(RareflowError, match=says) as error:
        model.upscale(lr, size, **options)
    assert "\n" not in str(error.value)


def test_models_of_other_shapes_of_gates() -> None:
    for changes in ({"control": {"gates": False}}, {"control": {"pu_min": 0.0}}, {"uncertainty": {"form": "exp"}},
                    {"control": {"layers": 4}}, {"control": {"s_ctrl": 0.0}}):  # fmt: skip
        got = small_model(small_config(changes)).upscale(lrs(1), (12, 24))
        assert np.isfinite(got.samples).all() and np.isfinite(got.u).all()
        assert (got.mean_v[0] < 1e-12) == (changes == {"control": {"s_ctrl": 0.0}})
