"""Eq. 4-6: dropout by name, the variance of T passes, u and its scale."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rareflow.base import controlnet_fresh
from rareflow.config import UncertaintyConfig
from rareflow.model import RareFlow
from rareflow.networks import Masks, NamedDropout, name_dropout
from rareflow.noise import normal
from rareflow.uncertainty import Scale, measure, measure_levels
from tests.small_rareflow import small_config, small_model, stir, unsquared

pytestmark = pytest.mark.usefixtures("one_thread")
LAYERS = ("attn.to_out.1", "ff.net.1", "ff_context.net.1")


# --- where dropout is ------------------------------------------------------------------------------------------------


def test_every_dropout_of_the_control_has_a_name_and_none_of_the_transformer() -> None:
    model = small_model()
    control, transformer = model.field.control, model.field.transformer
    assert control is not None
    names = {n: m for n, m in control.named_modules() if isinstance(m, NamedDropout)}
    assert set(names) == {f"transformer_blocks.{block}.{layer}" for block in range(2) for layer in LAYERS}
    assert all(m.layer == n and m.masks is model.masks and m.p == 0.1 for n, m in names.items())
    assert not any(isinstance(m, nn.Dropout) for m in control.modules())
    assert not any(isinstance(m, NamedDropout) for m in transformer.modules())
    left = [m.p for m in transformer.modules() if isinstance(m, nn.Dropout)]
    assert left and not any(left)  # diffusers makes them all with p = 0


def test_naming_again_gives_dropout_to_another_model() -> None:
    """A control that came with a checkpoint belongs to that checkpoint's masks until it is named for a new training."""
    control = small_model().field.control
    assert control is not None
    mine = Masks()
    found = name_dropout(control, mine, 0.4)
    assert len(found) == 6
    assert all(m.masks is mine and m.p == 0.4 for m in control.modules() if isinstance(m, NamedDropout))


def test_dropout_is_off_unless_it_is_asked_for() -> None:
    masks, x = Masks(), torch.ones(2, 5)
    layer = NamedDropout(masks, 0.5, "a")
    assert layer(x) is x
    layer.train()  # torch's mode has no say
    assert layer(x) is x
    masks.training = True
    assert not torch.equal(layer(x), x)
    masks.training = False
    with masks.use([(0, 0), (0, 1)]):
        assert not torch.equal(layer(x), x)
    assert layer(x) is x
    with pytest.raises(ZeroDivisionError), masks.use([(0, 0)]):
        _ = 1 / 0
    assert masks.seeds is None


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_a_mask_drops_the_share_p_and_scales_the_rest(p: float, training: bool) -> None:
    masks, x = Masks(), torch.ones(4, 50, 100)
    torch.manual_seed(0)
    if training:
        masks.training = True
        kept = masks.keep(x, p, "layer")
    else:
        with masks.use([(3, t) for t in range(4)]):
            kept = masks.keep(x, p, "layer")
    assert kept is not None and kept.shape == x.shape
    values = kept.unique().tolist()
    assert values[0] == 0 and values[1:] == [pytest.approx(1 / (1 - p), rel=1e-6)]
    for row in kept:  # 5000 values: standard deviation of the share is at most 0.0071
        assert float((row == 0).float().mean()) == pytest.approx(p, abs=0.03)
    assert float(kept.mean()) == pytest.approx(1, abs=0.03)


def test_masks_differ_by_seed_pass_and_layer_and_by_nothing_else() -> None:
    masks, x = Masks(), torch.ones(1, 40, 10)

    def one(seed: int, pass_: int, layer: str) -> Tensor:
        with masks.use([(seed, pass_)]):
            kept = masks.keep(x, 0.5, layer)
        assert kept is not None
        return kept[0]

    keys = [(0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"), (1, 1, "b")]
    alone = {key: one(*key) for key in keys}
    for i, key in enumerate(keys):
        for other in keys[:i]:
            share = float((alone[key] == alone[other]).float().mean())
            assert 0.35 < share < 0.65, (key, other)  # as if they were independent
    torch.manual_seed(5)
    with masks.use([(1, 0), (0, 1), (0, 0)]):  # in a batch, in another order, another layer asked first
        masks.keep(torch.ones(3, 7), 0.5, "b")
        batch = masks.keep(x.expand(3, 40, 10), 0.5, "a")
    assert batch is not None
    for row, key in zip(batch, [(1, 0, "a"), (0, 1, "a"), (0, 0, "a")], strict=True):
        assert torch.equal(row, alone[key])


def test_a_batch_without_a_seed_for_every_sample_is_a_mistake() -> None:
    masks = Masks()
    with pytest.raises(ValueError, match="2 dropout seeds for a batch of 3"), masks.use([(0, 0), (0, 1)]):
        masks.keep(torch.ones(3, 4), 0.1, "a")


# --- eq. 4 -----------------------------------------------------------------------------------------------------------


def case(count: int = 2) -> dict[str, Tensor]:
    config = small_config().transformer
    generator = torch.Generator().manual_seed(8)

    def draw(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    return {
        "z": draw(4, 12, 15), "x": draw(4, 12, 15), "tokens": draw(6, config["joint_attention_dim"]),
        "pooled": draw(config["pooled_projection_dim"]),
    }  # fmt: skip


def found(model: RareFlow, given: dict[str, Tensor], seeds: list[int], passes: int, sigma: float = 1.0) -> Tensor:
    return measure(model.field, model.masks, model.codec.decode, sigma=sigma, seeds=seeds, passes=passes, **given)


def mask_by_hand(seed: int, pass_: int, layer: str, shape: tuple[int, ...], p: float) -> Tensor:
    digest = hashlib.blake2b(f"{seed}\x1fdropout\x1f{pass_}\x1f{layer}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return (torch.rand(shape, generator=generator) >= p) / (1 - p)


@pytest.mark.parametrize("sigma", [1.0, 0.4])
def test_v_is_the_variance_of_passes_computed_by_hand(sigma: float) -> None:
    model, given, seeds, passes, p = small_model(), case(), [11, 12], 4, 0.1
    gates, vae = model.field.gates, model.codec.vae
    assert gates is not None
    # The control as diffusers has it, with hooks that multiply by the masks: nothing of NamedDropout is used.
    control = controlnet_fresh(model.field.transformer, 2, seed=0)
    stir(control, 0)
    control.eval().requires_grad_(False)
    now = (0, 0)
    for name, module in control.named_modules():
        if isinstance(module, nn.Dropout):

            def drop(_: nn.Module, __: object, out: Tensor, name: str = name) -> Tensor:
                return out * mask_by_hand(*now, name, tuple(out.shape[1:]), p).to(out.dtype)

            module.register_forward_hook(drop)
    maps = []
    for i, seed in enumerate(seeds):
        one = {k: v[i : i + 1] for k, v in given.items()}
        images = []
        for t in range(passes):
            now = (seed, t)
            with torch.no_grad():
                residuals = control(
                    hidden_states=one["z"], controlnet_cond=one["x"], encoder_hidden_states=one["tokens"],
                    pooled_projections=one["pooled"], timestep=torch.tensor([1000 * sigma]), return_dict=False,
                )[0]  # fmt: skip
                # u is 0 in the passes, so the gates are p0 and the time term under its mask
                kept = mask_by_hand(seed, t, "gates.t", (2,), p)
                alpha = torch.sigmoid(gates.p0 + kept * gates.pt * sigma)
                v = model.field.transformer(
                    hidden_states=one["z"], encoder_hidden_states=one["tokens"], pooled_projections=one["pooled"],
                    timestep=torch.tensor([1000 * sigma]), return_dict=False,
                    block_controlnet_hidden_states=[2 * a * r for a, r in zip(alpha, residuals, strict=True)],
                )[0]  # fmt: skip
                x0 = one["z"] - sigma * v
                image = vae.decode(x0 / vae.config.scaling_factor + vae.config.shift_factor).sample
            images.append((unsquared(image[0].double().numpy()) + 1) / 2)
        maps.append(np.var(np.stack(images), axis=0, ddof=1).mean(axis=0))
    got = found(model, given, seeds, passes, sigma).double().numpy()
    assert got.shape == (2, 48, 60) and min(m.mean() for m in maps) > 1e-7
    np.testing.assert_allclose(got, np.stack(maps), rtol=2e-2, atol=1e-3 * np.mean(maps))
    np.testing.assert_allclose(got.mean(axis=(1, 2)), np.mean(maps, axis=(1, 2)), rtol=1e-3)


def test_only_control_and_gates_vary() -> None:
    model, given = small_model(), case()
    with_all = found(model, given, [1, 2], 4)
    assert float(with_all.mean()) > 1e-7
    layers = [m for part in (model.field.control, model.field.gates) for m in part.modules()
              if isinstance(m, NamedDropout)]  # fmt: skip
    for layer in layers:
        layer.p = 0.0
    model.field.transformer.train()  # its own dropout has p = 0: harmless
    model.codec.vae.train()
    assert float(found(model, given, [1, 2], 4).max()) < 1e-6 * float(with_all.mean())
    for layer in layers:  # each of them counts
        layer.p = 0.5
        only = float(found(model, given, [1, 2], 4).mean())
        layer.p = 0.0
        # u is 0 here, and the last block's text branch leads nowhere
        dead = layer.layer in ("gates.u", "transformer_blocks.1.ff_context.net.1")
        assert (only < 1e-6 * float(with_all.mean())) == dead, layer.layer


def test_v_is_of_its_own_sample_and_repeats() -> None:
    model, given = small_model(), case()
    whole = found(model, given, [1, 2], 3)
    for i, seed in enumerate((1, 2)):
        assert torch.equal(found(model, {k: v[i : i + 1] for k, v in given.items()}, [seed], 3)[0], whole[i])
    assert not torch.equal(found(model, given, [1, 3], 3)[1], whole[1])
    same = {k: v[:1].expand(2, *v.shape[1:]) for k, v in given.items()}
    pair = found(model, same, [1, 3], 3)
    assert not torch.equal(pair[0], pair[1])  # other masks


def test_more_passes_begin_with_the_same_ones() -> None:
    """Pass t is a function of (seed, t): of T passes the first ones stay when T grows."""
    model, given = small_model(), case(1)
    collected: list[Tensor] = []

    def decode(z: Tensor) -> Tensor:
        collected.append(z)
        return model.codec.decode(z)

    for passes in (2, 5):
        measure(model.field, model.masks, decode, sigma=1.0, seeds=[4], passes=passes, **given)
    torch.testing.assert_close(collected[1][:2], collected[0], rtol=1e-5, atol=1e-6)


def test_a_control_that_is_still_zero_has_no_uncertainty() -> None:
    model, given = small_model(), case()
    masks = Masks()
    control = controlnet_fresh(model.field.transformer, 2)
    name_dropout(control, masks, 0.1)
    model.field.control, model.masks = control, masks
    assert float(found(model, given, [1, 2], 4).max()) < 1e-12
    model.field.control = None
    assert float(found(model, given, [1, 2], 4).max()) < 1e-12


def test_v_at_two_levels_is_the_mean_of_both_over_the_square_of_the_level() -> None:
    model, given = small_model(), case()
    noise, x = given.pop("z"), given["x"]
    parts = (model.field, model.masks, model.codec.decode)
    common = dict(seeds=[1, 2], passes=3, **given)
    both = measure_levels(*parts, noise=noise, levels=(1.0, 0.5), **common)
    high = measure(*parts, z=noise, sigma=1.0, **common)
    low = measure(*parts, z=0.5 * x + 0.5 * noise, sigma=0.5, **common)
    torch.testing.assert_close(both, (high + 4 * low) / 2)
    assert torch.equal(measure_levels(*parts, noise=noise, levels=(1.0,), **common), high)
    assert float(low.mean()) > 1e-8


# --- eq. 4-6 ---------------------------------------------------------------------------------------------------------


TAU, KAPPA = 4e-4, 2e-4


def maps(count: int = 6) -> np.ndarray:
    """Maps whose pixels lie on both sides of tau and kappa, one of them all over, one all under, one all 0."""
    drawn = np.random.default_rng(3).gamma(0.5, 3e-4, (count, 4, 5))
    drawn[0], drawn[1], drawn[2] = 0.0, drawn[1] * 1e-3, drawn[2] + 1e-3
    return drawn


@pytest.mark.parametrize(("form", "limit"), [("clip", TAU), ("clip_kappa", KAPPA)])
def test_u_is_eq_4_pixel_by_pixel(form: str, limit: float) -> None:
    """u = clip(mean(clip(v, 0, limit)) / limit, 0, 1) with the tau of eq. 5, or the kappa of eq. 6."""
    v = maps()
    found = Scale(TAU, KAPPA, form).u(torch.from_numpy(v)).tolist()
    for one, u in zip(v, found, strict=True):
        total = 0.0
        for row in one:
            for pixel in row:
                total += min(max(float(pixel), 0.0), limit)
        assert u == pytest.approx(min(max(total / one.size / limit, 0.0), 1.0), rel=1e-12)
    assert found[0] == 0 and 0 < found[1] < 0.01 and found[2] == pytest.approx(1) and 0.1 < found[3] < 0.9


def test_the_paper_s_form_is_the_default() -> None:
    assert Scale(TAU, KAPPA).form == UncertaintyConfig().form == Scale.fit(torch.ones(3)).form == "clip"


def test_simpler_forms_read_the_mean_alone() -> None:
    v, mean_v = torch.from_numpy(maps()), maps().mean(axis=(1, 2))
    np.testing.assert_allclose(Scale(TAU, KAPPA, "ratio").u(v), np.minimum(1, mean_v / TAU), rtol=1e-12)
    np.testing.assert_allclose(Scale(TAU, KAPPA, "exp").u(v), 1 - np.exp(-mean_v / KAPPA), rtol=1e-12)


def test_one_wild_pixel_cannot_bring_u_to_1() -> None:
    v = torch.full((1, 10, 10), 1e-5)
    v[0, 0, 0] = 1.0
    assert float(Scale(TAU, KAPPA, "ratio").u(v)) == 1
    assert float(Scale(TAU, KAPPA).u(v)) == pytest.approx((99 * 1e-5 + TAU) / 100 / TAU, rel=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_the_scale_is_the_95th_percentile_and_the_median_of_the_bank(count: int) -> None:
    bank = np.random.default_rng(count).gamma(2.0, 1e-5, count).astype(np.float32)
    scale = Scale.fit(torch.from_numpy(bank), "exp")
    assert scale.tau == pytest.approx(float(np.percentile(bank.astype(np.float64), 95)), rel=1e-9)
    assert scale.kappa == pytest.approx(float(np.median(bank.astype(np.float64))), rel=1e-9)
    assert scale.form == "exp"


def test_u_of_the_bank_runs_up_to_1_and_saturates_for_a_twentieth() -> None:
    bank = torch.from_numpy(np.random.default_rng(0).gamma(2.0, 1e-5, 400))
    flat = bank[:, None, None]  # maps of one pixel: every form is then one of the mean
    for form in ("clip", "ratio"):
        u = Scale.fit(bank, form).u(flat)
        assert float(u.max()) == 1 and float((u == 1).double().mean()) == pytest.approx(0.05, abs=0.003)
    assert float(Scale.fit(bank, "exp").u(flat).median()) == pytest.approx(1 - math.exp(-1), abs=0.01)


def test_a_bank_that_does_not_vary_gives_u_0() -> None:
    scale = Scale.fit(torch.zeros(5))
    assert (scale.tau, scale.kappa) == (1.0, 1.0)
    assert not bool(scale.u(torch.zeros(5, 2, 2)).any())


def test_the_noise_of_a_measurement_is_that_of_draw_0() -> None:
    """What a training's bank and sampling share: the name under which noise is drawn."""
    model = small_model()
    assert torch.equal(model._noise([(9, 4)], None, (24, 36))[0, 0], normal([9], (4, 6, 9), "noise")[0])
