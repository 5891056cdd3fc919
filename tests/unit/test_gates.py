"""Eq. 2-3: the gates' values, gradients, range and monotony, and what they multiply."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import SD3ControlNetModel, SD3Transformer2DModel
from torch import Tensor

from rareflow.flow import Field
from rareflow.networks import Gates, Masks, new_transformer, start_jointly
from tests.small_rareflow import small_config, small_model

pytestmark = pytest.mark.usefixtures("one_thread")
LAYERS = 3


def gates(*, pu_min: float | None = None, seed: int = 0) -> Gates:
    made = Gates(LAYERS, Masks(), 0.1, pu_min=pu_min).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(generator=generator)
    return made


def by_hand(p0: np.ndarray, pt: np.ndarray, pu: np.ndarray, sigma: np.ndarray, u: np.ndarray) -> np.ndarray:
    """alpha[b, l] from its definition, one number at a time."""
    alpha = np.empty((len(sigma), len(p0)))
    for b in range(len(sigma)):
        for layer in range(len(p0)):
            alpha[b, layer] = 1 / (1 + np.exp(-(p0[layer] + pt[layer] * sigma[b] + pu[layer] * u[b])))
    return alpha


def square(count: int = 7) -> tuple[Tensor, Tensor]:
    """Noise levels and uncertainties all over [0, 1] x [0, 1]."""
    line = torch.linspace(0, 1, count, dtype=torch.float64)
    sigma, u = torch.meshgrid(line, line, indexing="ij")
    return sigma.reshape(-1), u.reshape(-1)


@pytest.mark.parametrize("pu_min", [None, 0.0, -0.5])
def test_alpha_is_the_logistic_of_eq_2_for_every_sample_and_layer(pu_min: float | None) -> None:
    g = gates(pu_min=pu_min)
    p0, pt, pu = (p.detach().numpy() for p in (g.p0, g.pt, g.pu))
    slope = pu if pu_min is None else pu_min + np.log1p(np.exp(pu))
    sigma, u = square()
    np.testing.assert_allclose(g(sigma, u).detach(), by_hand(p0, pt, slope, sigma.numpy(), u.numpy()), rtol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    g, (sigma, u) = gates(), square(4)
    weight = torch.linspace(-1, 2, 16 * LAYERS, dtype=torch.float64).reshape(16, LAYERS)
    sigma.requires_grad_(True)
    u.requires_grad_(True)
    (g(sigma, u) * weight).sum().backward()
    inputs = [p.detach().numpy().copy() for p in (g.p0, g.pt, g.pu, sigma, u)]
    step = 1e-6
    for which, tensor in enumerate((g.p0, g.pt, g.pu, sigma, u)):
        assert tensor.grad is not None and bool((tensor.grad != 0).all())
        for i in range(len(inputs[which])):
            ends = []
            for sign in (1, -1):
                moved = [a.copy() for a in inputs]
                moved[which][i] += sign * step
                ends.append((by_hand(*moved) * weight.numpy()).sum())
            assert tensor.grad[i].item() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-9)


def test_alpha_stays_within_0_and_1_and_follows_the_sign_of_pu() -> None:
    sigma, u = square()
    for seed in range(5):
        g = gates(seed=seed)
        alpha = g(sigma, u).detach()
        assert float(alpha.min()) > 0 and float(alpha.max()) < 1
        along_u = alpha.reshape(7, 7, LAYERS).diff(dim=1)
        along_sigma = alpha.reshape(7, 7, LAYERS).diff(dim=0)
        assert torch.equal(along_u.sign(), g.pu.detach().sign().expand_as(along_u))
        assert torch.equal(along_sigma.sign(), g.pt.detach().sign().expand_as(along_sigma))


def test_bounded_gates_start_half_open_too() -> None:
    sigma, u = square()
    alpha = Gates(LAYERS, Masks(), 0.1, pu_min=0.0).double()(sigma.flatten(), u.flatten())
    assert (alpha - 0.5).abs().max() < 2e-3


def test_pu_min_0_never_lowers_control_with_uncertainty() -> None:
    sigma, u = square()
    for seed in range(5):
        alpha = gates(pu_min=0.0, seed=seed)(sigma, u).detach().reshape(7, 7, LAYERS)
        assert bool((alpha.diff(dim=1) > 0).all())


def test_new_gates_are_half_open_whatever_t_and_u() -> None:
    sigma, u = square()
    alpha = Gates(LAYERS, Masks(), 0.1)(sigma.float(), u.float())
    assert torch.equal(alpha, torch.full_like(alpha, 0.5))


def test_a_sample_has_its_own_gates() -> None:
    g = gates()
    sigma, u = torch.tensor([1.0, 1.0, 0.3]).double(), torch.tensor([0.1, 0.9, 0.9]).double()
    whole = g(sigma, u)
    assert len({tuple(row) for row in whole.tolist()}) == 3
    for i in range(3):
        torch.testing.assert_close(g(sigma[i : i + 1], u[i : i + 1])[0], whole[i], rtol=1e-15, atol=0)


def test_dropout_acts_on_the_two_modulating_terms_and_never_on_p0() -> None:
    g = gates()
    g.drop_t.p = g.drop_u.p = 0.5
    sigma, u = (torch.full((400,), value, dtype=torch.float64) for value in (0.7, 0.6))
    with g.drop_t.masks.use([(1, t) for t in range(400)]):
        alpha = g(sigma, u).detach()
    logit = torch.log(alpha / (1 - alpha)) - g.p0.detach()
    t_term, u_term = 0.7 * g.pt.detach() / 0.5, 0.6 * g.pu.detach() / 0.5
    for layer in range(LAYERS):
        expected = np.array([0.0, float(t_term[layer]), float(u_term[layer]), float((t_term + u_term)[layer])])
        distance = np.abs(logit[:, layer].numpy()[:, None] - expected)
        assert distance.min(axis=1).max() < 1e-7  # each pass is one of the four, p0 always kept
        counts = np.bincount(distance.argmin(axis=1), minlength=4)
        assert counts.min() > 60 and counts.max() < 140  # 100 of each are expected, standard deviation 9


def test_corners_are_alpha_where_the_card_says() -> None:
    g = gates()
    p0, pt, pu = (p.detach().numpy() for p in (g.p0, g.pt, g.pu))
    corners = g.float().corners()
    assert list(corners) == ["sigma=0,u=0", "sigma=0,u=1", "sigma=1,u=0", "sigma=1,u=1"]
    for name, row in corners.items():
        sigma, u = (float(part.split("=")[1]) for part in name.split(","))
        np.testing.assert_allclose(row, by_hand(p0, pt, pu, np.array([sigma]), np.array([u]))[0], atol=6e-5)


# --- what the gates multiply -----------------------------------------------------------------------------------------


def inputs(count: int = 3) -> dict[str, Tensor]:
    config = small_config().transformer
    generator = torch.Generator().manual_seed(5)

    def draw(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    return {
        "z": draw(4, 12, 15), "x": draw(4, 12, 15), "tokens": draw(6, config["joint_attention_dim"]),
        "pooled": draw(config["pooled_projection_dim"]), "sigma": torch.tensor([1.0, 0.6, 0.05])[:count],
        "u": torch.tensor([0.0, 0.4, 1.0])[:count],
    }  # fmt: skip


def residuals(control: SD3ControlNetModel, given: dict[str, Tensor], scale: float = 1.0) -> list[Tensor]:
    return control(
        hidden_states=given["z"], controlnet_cond=given["x"], conditioning_scale=scale,
        encoder_hidden_states=given["tokens"], pooled_projections=given["pooled"],
        timestep=given["sigma"] * 1000, return_dict=False,
    )[0]  # fmt: skip


def transformed(transformer: SD3Transformer2DModel, given: dict[str, Tensor], listed: list[Tensor] | None) -> Tensor:
    return transformer(
        hidden_states=given["z"], encoder_hidden_states=given["tokens"], pooled_projections=given["pooled"],
        timestep=given["sigma"] * 1000, block_controlnet_hidden_states=listed, return_dict=False,
    )[0]  # fmt: skip


@pytest.mark.parametrize("s_ctrl", [2.0, 0.7])
def test_velocity_is_the_transformer_with_residuals_times_s_ctrl_alpha(s_ctrl: float) -> None:
    field = small_model().field
    field.s_ctrl = s_ctrl
    given = inputs()
    assert field.control is not None and field.gates is not None
    p0, pt, pu = (p.numpy() for p in (field.gates.p0, field.gates.pt, field.gates.pu))
    alpha = by_hand(p0, pt, pu, given["sigma"].numpy(), given["u"].numpy())
    with torch.no_grad():
        listed = residuals(field.control, given)
        assert len(listed) == 2 and all(float(r.abs().max()) > 0.01 for r in listed)
        scaled = [
            torch.stack([r[b] * float(s_ctrl * alpha[b, layer]) for b in range(3)]) for layer, r in enumerate(listed)
        ]
        expected = transformed(field.transformer, given, scaled)
        got = field.velocity(**given)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        # The agreement means something: other gates, and a gate of each single layer, give something else.
        for layer in range(2):
            other = [r if i != layer else 1.05 * r for i, r in enumerate(scaled)]
            assert not torch.allclose(transformed(field.transformer, given, other), expected, rtol=1e-4, atol=1e-5)


def test_without_gates_it_is_diffusers_own_conditioning_scale_of_half_s_ctrl() -> None:
    field = small_model(small_config({"control": {"gates": False}})).field
    assert field.gates is None and field.control is not None
    given = inputs()
    with torch.no_grad():
        for s_ctrl in (2.0, 0.6):
            field.s_ctrl = s_ctrl
            expected = transformed(field.transformer, given, residuals(field.control, given, s_ctrl / 2))
            torch.testing.assert_close(field.velocity(**given), expected, rtol=1e-5, atol=1e-6)


def test_u_0_is_the_ungated_formula_where_p0_and_pt_are_0() -> None:
    field, given = small_model().field, inputs()
    assert field.gates is not None
    field.gates.p0.zero_()
    field.gates.pt.zero_()
    nothing = torch.zeros(3)
    with torch.no_grad():
        gated = field.velocity(**(given | {"u": nothing}))
        ungated = Field(field.transformer, field.control, None, field.s_ctrl).velocity(**given)
        assert torch.equal(gated, ungated)
        assert not torch.equal(field.velocity(**given)[1:], ungated[1:])  # and u matters otherwise


def test_no_control_is_the_transformer_alone() -> None:
    field, given = small_model().field, inputs()
    with torch.no_grad():
        alone = transformed(field.transformer, given, None)
        assert torch.equal(Field(field.transformer, None, field.gates).velocity(**given), alone)
        assert torch.equal(Field(field.transformer, field.control, field.gates, 0.0).velocity(**given), alone)
        some = field.velocity(**given, on=torch.tensor([1.0, 0.0, 1.0]))
        torch.testing.assert_close(some[1], alone[1], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(some[[0, 2]], field.velocity(**given)[[0, 2]], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(some[0], alone[0], rtol=1e-3, atol=1e-3)


def test_a_velocity_does_not_depend_on_its_neighbours() -> None:
    field, given = small_model().field, inputs()
    with torch.no_grad():
        whole = field.velocity(**given)
        for i in range(3):
            single = field.velocity(**{k: v[i : i + 1] for k, v in given.items()})
            torch.testing.assert_close(single[0], whole[i], rtol=1e-5, atol=1e-6)


def test_every_gate_has_an_effect_and_a_gradient() -> None:
    field, given = small_model().field, inputs()
    assert field.gates is not None
    field.gates.requires_grad_(True)
    field.velocity(**given).square().sum().backward()
    for name, p in field.gates.named_parameters():
        assert p.grad is not None and bool((p.grad != 0).all()), name


def test_a_new_transformer_starts_at_zero_and_a_joint_control_sees_the_condition() -> None:
    config = small_config()
    torch.manual_seed(0)
    transformer = new_transformer(config.transformer)
    given = inputs()
    with torch.no_grad():
        assert not bool(transformed(transformer, given, None).any())
    control = small_model(config).field.control
    assert control is not None
    torch.nn.init.zeros_(control.pos_embed_input.proj.weight)
    with torch.no_grad():
        blind = residuals(control, given)
        assert torch.equal(blind[0], residuals(control, given | {"x": -given["x"]})[0])
        start_jointly(control)
        seeing = residuals(control, given)
        assert not torch.equal(seeing[0], residuals(control, given | {"x": -given["x"]})[0])
    assert float(control.pos_embed_input.proj.weight.std()) == pytest.approx(0.05, rel=0.2)
