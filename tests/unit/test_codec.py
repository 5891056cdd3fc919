"""Images to latents and back: squares of pixels as channels, and the VAE that starts as the best linear code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from rareflow.config import load_config, with_changes
from rareflow.errors import RareflowError
from rareflow.networks import Codec, start_linear
from tests.small_rareflow import pixels, small_config, small_model, squares, unsquared

pytestmark = pytest.mark.usefixtures("one_thread")


def new_vae(**changes: object) -> AutoencoderKL:
    torch.manual_seed(0)
    config = load_config("tiny").vae | {"scaling_factor": 1.0, "shift_factor": 0.0} | changes
    return AutoencoderKL(**config).eval()


def images(count: int = 4, px: int = 96) -> Tensor:
    return torch.from_numpy(np.stack([pixels(i, px, px).transpose(2, 0, 1) for i in range(count)]))


def test_an_image_goes_through_the_vae_as_squares() -> None:
    codec = small_model().codec
    assert (codec.block_px, codec.factor) == (4, 4)
    image = images(1, 24)
    with torch.no_grad():
        stacked = torch.from_numpy(squares(image[0].numpy()))[None] * 2 - 1
        mode = codec.vae.encode(stacked).latent_dist.mode()
        latents = codec.encode(image)
        raw = codec.vae.decode(mode).sample[0].numpy()
        back = codec.decode(latents)
    assert latents.shape == (1, 4, 6, 6) and back.shape == image.shape
    shift, scale = codec.vae.config.shift_factor, codec.vae.config.scaling_factor
    np.testing.assert_allclose(latents.numpy(), (mode.numpy() - shift) * scale, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(back[0].numpy(), (unsquared(raw) + 1) / 2, rtol=1e-4, atol=1e-5)


def test_the_vae_of_sd3_reads_pixels() -> None:
    vae = new_vae(
        in_channels=3, out_channels=3, block_out_channels=[8] * 4, latent_channels=16,
        down_block_types=["DownEncoderBlock2D"] * 4, up_block_types=["UpDecoderBlock2D"] * 4,
    )  # fmt: skip
    codec, image = Codec(vae), images(1, 32)
    assert (codec.block_px, codec.factor) == (1, 8)
    with torch.no_grad():
        mode = vae.encode(image * 2 - 1).latent_dist.mode()
        assert torch.equal(codec.encode(image), mode)
        assert torch.equal(codec.decode(mode), (vae.decode(mode).sample + 1) / 2)


def test_a_new_vae_starts_as_the_principal_components_of_its_images() -> None:
    """Held against numpy's singular value decomposition: the same reconstruction, on images of its own too."""
    vae, known, new = new_vae(), images(6), images(8)[6:]
    assert start_linear(vae, known)
    rows = np.concatenate([squares(2 * i - 1).reshape(48, -1).T for i in known.double().numpy()])
    mean = rows.mean(axis=0)
    components = np.linalg.svd(rows - mean, full_matrices=False)[2][:8]
    codec = Codec(vae)
    with torch.no_grad():
        latents = codec.encode(new)
        found = codec.decode(latents).numpy()
        spread = codec.posterior(new).std
    for image, got in zip(new.double().numpy(), found, strict=True):
        of = squares(2 * image - 1).reshape(48, -1).T
        best = ((of - mean) @ components.T @ components + mean).T.reshape(48, 24, 24)
        np.testing.assert_allclose(got, (unsquared(best) + 1) / 2, atol=4e-3)
    # a component of deviation d becomes a latent of deviation sqrt(d)
    with torch.no_grad():
        deviations = codec.encode(known).double().numpy().transpose(1, 0, 2, 3).reshape(8, -1).std(axis=1)
    expected = np.sqrt((rows @ components.T).std(axis=0))
    np.testing.assert_allclose(deviations, expected, rtol=0.02)
    assert spread.mean().item() == pytest.approx(0.05, rel=0.01)


def test_a_linear_start_repeats_whatever_sign_a_solver_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    eigh = torch.linalg.eigh

    def turned(matrix: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = eigh(matrix)
        return values, -vectors

    first, second = new_vae(), new_vae()
    assert start_linear(first, images())
    monkeypatch.setattr(torch.linalg, "eigh", turned)
    assert start_linear(second, images())
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"block_out_channels": [8, 16], "down_block_types": ["DownEncoderBlock2D"] * 2,
         "up_block_types": ["UpDecoderBlock2D"] * 2},
        {"latent_channels": 9},
        {"block_out_channels": [24]},
        {"mid_block_add_attention": True},
        {"use_quant_conv": True},
        {"use_post_quant_conv": True},
    ],
    ids=["two levels", "fewer groups than latents", "groups of three", "attention", "quant", "post-quant"],
)  # fmt: skip
def test_a_vae_without_room_for_it_is_left_as_it_is(changes: dict[str, object]) -> None:
    vae = new_vae(**changes)
    before = {k: v.clone() for k, v in vae.state_dict().items()}
    assert not start_linear(vae, images())
    assert all(torch.equal(v, before[k]) for k, v in vae.state_dict().items())


@pytest.mark.parametrize("channels", [(48, 3), (5, 5), (0, 0), (-3, -3), ("48", "48")])
def test_channels_that_are_no_squares_of_rgb(channels: tuple[object, object]) -> None:
    vae = dict(zip(("in_channels", "out_channels"), channels, strict=True))
    with pytest.raises(RareflowError, match=r"expected vae\.in_channels and out_channels alike"):
        with_changes(small_config(), {"vae": vae})
