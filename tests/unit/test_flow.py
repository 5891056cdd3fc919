"""Eq. 1, noise levels, Euler's steps: against numpy, diffusers' scheduler and solutions known beforehand."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from rareflow.flow import add_noise, clean, euler, noise_levels, training_levels
from rareflow.noise import normal, stream


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_add_noise_is_eq_1_for_every_sample() -> None:
    z0, eps = numbers(0, 4, 3, 5, 6), numbers(1, 4, 3, 5, 6)
    sigma = torch.tensor([0.0, 0.25, 0.9, 1.0]).double()
    got = add_noise(z0, eps, sigma).numpy()
    for b, s in enumerate(sigma.numpy()):
        np.testing.assert_allclose(got[b], (1 - s) * z0[b].numpy() + s * eps[b].numpy(), rtol=1e-15)
    assert np.array_equal(got[0], z0[0].numpy()) and np.array_equal(got[3], eps[3].numpy())


def test_clean_undoes_the_noise_of_the_true_velocity() -> None:
    z0, eps, sigma = numbers(0, 4, 3, 5, 6), numbers(1, 4, 3, 5, 6), torch.tensor([0.0, 0.25, 0.9, 1.0]).double()
    torch.testing.assert_close(clean(add_noise(z0, eps, sigma), eps - z0, sigma), z0, rtol=1e-12, atol=1e-12)
    v = numbers(2, 4, 3, 5, 6)
    got = clean(z0, v, sigma).numpy()
    for b, s in enumerate(sigma.numpy()):
        np.testing.assert_allclose(got[b], z0[b].numpy() - s * v[b].numpy(), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 2, 16, 28])
def test_noise_levels_are_the_schedulers_and_its_formula(steps: int, shift: float) -> None:
    got = noise_levels(steps, shift)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    np.testing.assert_allclose(got, scheduler.sigmas.numpy(), rtol=1e-7)

    def shifted(s: np.ndarray) -> np.ndarray:
        return shift * s / (1 + (shift - 1) * s)

    # diffusers shifts the lower end twice; it is kept, since SD3 is sampled so.
    line = np.linspace(1.0, shifted(np.array(1 / 1000)), steps)
    np.testing.assert_allclose(got, [*shifted(line), 0.0], rtol=1e-5)
    assert got[0] == 1.0 and got[-1] == 0.0 and all(a > b for a, b in itertools.pairwise(got))


def test_euler_takes_the_steps_of_diffusers_scheduler() -> None:
    matrix = numbers(3, 4, 4).float() * 0.3

    def velocity(z: Tensor, sigma: Tensor) -> Tensor:
        return torch.einsum("ij,bjhw->bihw", matrix, z) + sigma[:, None, None, None].cos()

    z = start = numbers(0, 2, 4, 3, 5).float()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(11)
    for t in scheduler.timesteps:
        sigma = (t / 1000).expand(2)
        z = scheduler.step(velocity(z, sigma), t, z, return_dict=False)[0]
    seen: list[tuple[int, float]] = []

    def watched(step: int, now: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (2,) and now.dtype == torch.float32
        seen.append((step, float(sigma[0])))
        return velocity(now, sigma)

    got = euler(start, noise_levels(11, 3.0), watched)
    torch.testing.assert_close(got, z, rtol=1e-5, atol=1e-5)
    assert [s for s, _ in seen] == list(range(11))
    np.testing.assert_allclose([1000 * s for _, s in seen], scheduler.timesteps.numpy(), rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_euler_is_exact_on_the_straight_path_of_eq_1(steps: int) -> None:
    z0, eps = numbers(0, 2, 3, 4, 4).float(), numbers(1, 2, 3, 4, 4).float()
    torch.testing.assert_close(euler(eps, noise_levels(steps, 3.0), lambda *_: eps - z0), z0, rtol=1e-5, atol=1e-5)


def test_euler_converges_to_the_solution_of_a_linear_equation() -> None:
    z = torch.tensor([[[[1.0]]]])
    exact = np.exp(-1.0)  # dz/dsigma = z, from sigma 1 down to 0
    errors = [abs(float(euler(z, list(np.linspace(1, 0, n + 1)), lambda _, now, __: now)) - exact) for n in (16, 32)]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)  # first order


def test_euler_keeps_float32_whatever_the_network_computes_in() -> None:
    z = numbers(0, 1, 2, 3, 3).float()
    v = torch.tensor(0.3379).bfloat16()
    got = euler(z, noise_levels(40, 3.0), lambda _, now, __: v.expand_as(now))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, z - v.float(), rtol=0, atol=2e-6)  # steps in bfloat16 would be off by 1e-3


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1.0])
def test_training_levels_have_the_density_that_they_are_said_to_have(uniform: float) -> None:
    from scipy.stats import kstest, norm

    shift, count = 3.0, 4000
    got = training_levels(count, shift, torch.Generator().manual_seed(3), uniform).double().numpy()
    assert got.shape == (count,) and got.min() >= 1e-3 * (1 - 1e-6) and got.max() <= 1
    s = got / (shift - (shift - 1) * got)  # the shift undone

    def cumulative(x: np.ndarray) -> np.ndarray:
        x = np.clip(x, 1e-9, 1 - 1e-9)
        return uniform * x + (1 - uniform) * norm.cdf(np.log(x / (1 - x)))

    assert kstest(s, cumulative).pvalue > 0.01
    assert kstest(s, "uniform" if uniform < 1 else "norm").pvalue < 1e-6
    again = training_levels(count, shift, torch.Generator().manual_seed(3), uniform).double().numpy()
    assert np.array_equal(got, again)


def test_a_stream_belongs_to_its_seed_and_names_alone() -> None:
    def first(seed: int, *names: object) -> int:
        return int(torch.randint(2**62, (), generator=stream(seed, *names)))

    keys: list[tuple] = [(0,), (1,), (0, "noise"), (0, "noise", 1), (0, "noise1"), (1, "noise"), (2**62, "noise")]
    values = {key: first(*key) for key in keys}
    assert len(set(values.values())) == len(keys)
    torch.manual_seed(1)
    assert values == {key: first(*key) for key in reversed(keys)}
    # The same on every machine and in every process: the generator's seed is written down here once more.
    digest = hashlib.blake2b(b"7\x1fdropout\x1f3", digest_size=8).digest()
    expected = torch.Generator().manual_seed(int.from_bytes(digest, "little") // 2)
    assert first(7, "dropout", 3) == int(torch.randint(2**62, (), generator=expected))


def test_noise_rows_are_of_their_seeds() -> None:
    rows = normal([4, 5, 4], (3, 20, 20), "noise")
    assert rows.shape == (3, 3, 20, 20) and torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])
    assert torch.equal(normal([5], (3, 20, 20), "noise")[0], rows[1])
    assert abs(float(rows[:2].mean())) < 0.1 and abs(float(rows[:2].std()) - 1) < 0.1
