"""The training objective of RareFlow (eq. 8-12 of the paper): differentiable functions, one number per sample.

Every loss returns (B,). They compute in float32 even where their inputs are half precision or autocast is on, and in
float64 where the inputs are. A ``mask`` is (B, 1, H, W), true or 1 where there is content and false or 0 where a
sample was padded: what lies under it, even NaN, changes neither a loss nor its gradient.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import math
import typing
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rareflow.errors import RareflowError

Omega = Literal["inv_sigma", "one", "cosmap"]
Compare = Literal["magnitude_l1", "magnitude", "complex"]
ColourOrder = Literal["lab_then_blur", "blur_then_lab"]
P = ParamSpec("P")


@dataclass(frozen=True)
class LossConfig:
    """Weights and choices of eq. 12; the paper gives no values, so these are this implementation's.

    ``omega``: weight of eq. 8, see ``velocity_loss``. ``lambda_*``: weight of each further term; one with weight 0 is
    not computed. ``gamma``, ``fft_compare``: see ``frequency_loss``; ``fft_domain``: whether it compares latents or
    decoded images. ``blur_px``, ``color_order``: see ``colour_loss``, in pixels of the decoded image.
    ``high_noise_power``: the further terms are weighted by (1 - sigma) ** high_noise_power, because x0_hat at high
    noise is an average over many images and must not be made to look like one.
    """

    omega: Omega = "inv_sigma"
    lambda_fft: float = 2.0
    lambda_color: float = 25.0
    lambda_lpips: float = 0.5
    gamma: float = 1.0
    blur_px: float = 3.0
    fft_domain: Literal["latent", "pixel"] = "latent"
    fft_compare: Compare = "magnitude_l1"
    color_order: ColourOrder = "lab_then_blur"
    high_noise_power: int = 2

    def __post_init__(self) -> None:
        for name in ("lambda_fft", "lambda_color", "lambda_lpips", "gamma", "blur_px", "high_noise_power"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise RareflowError(f"loss.{name}: found {value}, expected a finite number of 0 or more; correct it")
        for name, known in (
            ("omega", ("inv_sigma", "one", "cosmap")),
            ("fft_domain", ("latent", "pixel")),
            ("fft_compare", typing.get_args(Compare)),
            ("color_order", typing.get_args(ColourOrder)),
        ):
            if getattr(self, name) not in known:
                raise RareflowError(f"loss.{name}: found {getattr(self, name)!r}, expected one of {', '.join(known)}")


def _full(value: Any) -> Any:
    """Half-precision tensors as float32; anything else as it is."""
    return value.float() if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16) else value


def _full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run ``function`` with autocast off and its half-precision tensors as float32."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        given = [*args, *kwargs.values()]
        device = next(value.device.type for value in given if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            full: Any = function
            return full(*map(_full, args), **{name: _full(value) for name, value in kwargs.items()})

    return run


def _keep(values: Tensor, mask: Tensor | None) -> Tensor:
    """``values`` with exact zeros, and no gradient, under the mask; before any operation that could meet a NaN."""
    return values if mask is None else torch.where(mask > 0, values, values.new_zeros(()))


def _mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of (B, C, H, W) over channels and content, (B,); 0 where a sample has no content."""
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    content = (mask > 0).sum(dim=(1, 2, 3)).clamp(min=1)
    return _keep(values, mask).sum(dim=(1, 2, 3)) / (values.shape[1] * content)


def _like_images(per_sample: Tensor) -> Tensor:
    """(B,) as (B, 1, 1, 1)."""
    return per_sample.view(-1, 1, 1, 1)


@_full_precision
def velocity_loss(
    v_hat: Tensor, z0: Tensor, eps: Tensor, sigma: Tensor, omega: Omega = "inv_sigma", mask: Tensor | None = None
) -> Tensor:
    """Eq. 8, omega(sigma)^2 |x0_hat - z0|^2 with x0_hat = z_t - sigma v_hat, as a mean over channels and positions.

    Since z_t = (1 - sigma) z0 + sigma eps, the error of x0_hat is -sigma times that of the velocity, so the loss is
    computed as (omega(sigma) sigma)^2 |v_hat - (eps - z0)|^2: nothing is divided by a sigma near 0.

    Parameters
    ----------
    v_hat, z0, eps : (B, C, h, w), the predicted velocity, the clean latents, the noise.
    sigma : (B,), noise level in [0, 1].
    omega : ``inv_sigma``: omega = 1/sigma, the plain velocity loss; ``one``: omega = 1, the plain error of x0_hat;
        ``cosmap``: omega^2 = 2 / (pi (1 - 2 sigma + 2 sigma^2)), as diffusers weights preconditioned outputs.
    """
    error = _keep(v_hat - (eps - z0), mask)
    if omega == "inv_sigma":
        weight = torch.ones_like(sigma)
    elif omega == "one":
        weight = sigma.square()
    elif omega == "cosmap":
        weight = sigma.square() * 2 / (math.pi * (1 - 2 * sigma + 2 * sigma.square()))
    else:
        raise RareflowError(f"omega: found {omega!r}, expected one of inv_sigma, one, cosmap")
    return weight * _mean(error.square(), mask)


@_full_precision
def frequency_loss(
    x0_hat: Tensor, z0: Tensor, gamma: float = 1.0, mask: Tensor | None = None, compare: Compare = "magnitude_l1"
) -> Tensor:
    """Eq. 9, |W (|F(x0_hat)| - |F(z0)|)|_1 as a mean over channels and frequencies; latents or images (B, C, H, W).

    F is the orthonormal 2-D DFT and W(rho) is proportional to rho^gamma, scaled to mean 1, with rho the radial
    frequency sqrt(fy^2 + fx^2) in cycles per sample on the full grid: with gamma > 0 the mean is left to the other
    terms.

    ``magnitude_l1``, the paper's, and ``magnitude``, its square, compare |F| and leave the phases free: they reward
    texture of the right strength in whatever place, and so act against over-smoothing, at the price that their
    minimiser is sharper than the conditional mean, so that the velocity is biased.
    ``complex`` is the square of |F(x0_hat) - F(z0)|. The prediction that minimises it is the conditional mean, which
    eq. 8 asks for too, so it moves effort to fine detail and leaves the flow that is learned the same; with gamma 0 it
    is the mean squared error (Parseval).

    Masked samples are compared with zeros in place of the padding; since that takes energy from both, the squares are
    divided by the share of content, and the L1 form by its root.
    """
    height, width = z0.shape[-2:]
    fy = torch.fft.fftfreq(height, device=z0.device, dtype=z0.dtype)
    fx = torch.fft.fftfreq(width, device=z0.device, dtype=z0.dtype)
    weight = torch.hypot(fy[:, None], fx[None, :]).pow(gamma)
    weight = weight / weight.mean().clamp(min=torch.finfo(weight.dtype).tiny)  # one pixel has no frequency but 0
    predicted, wanted = _keep(x0_hat, mask), _keep(z0, mask)
    if compare == "complex":
        error = torch.fft.fft2(predicted - wanted, norm="ortho").abs()
    elif compare in ("magnitude", "magnitude_l1"):
        error = torch.fft.fft2(predicted, norm="ortho").abs() - torch.fft.fft2(wanted, norm="ortho").abs()
    else:
        raise RareflowError(f"fft_compare: found {compare!r}, expected one of {', '.join(typing.get_args(Compare))}")
    weighted = weight * error
    loss = _mean(weighted.abs() if compare == "magnitude_l1" else weighted.square(), None)
    if mask is None:
        return loss
    share = (mask > 0).sum(dim=(1, 2, 3)).clamp(min=1) / (height * width)
    return loss / (share.sqrt() if compare == "magnitude_l1" else share)


_XYZ_OF_RGB = (  # IEC 61966-2-1 primaries, D65
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)


@_full_precision
def srgb_to_lab(rgb: Tensor) -> Tensor:
    """CIELAB of sRGB (IEC 61966-2-1, D65, 2 degrees): (B, 3, H, W) in [0, 1] to (L/100, a/100, b/100).

    Values outside [0, 1] are clamped, and get no gradient; 0 and 1 themselves do. Greys have a = b = 0 up to rounding.
    The gradient is finite everywhere: each power sees only arguments on its own branch.
    """
    # Not clamp: at 0 and 1 themselves its gradient is 1 in some versions of torch and 0 in others.
    rgb = torch.where(rgb < 0, 0.0, torch.where(rgb > 1, 1.0, rgb))
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).pow(2.4), rgb / 12.92)
    matrix = torch.tensor(_XYZ_OF_RGB, dtype=torch.float64)
    matrix = (matrix / matrix.sum(dim=1, keepdim=True)).to(rgb)  # relative to white, which is (1, 1, 1)
    xyz = torch.einsum("ij,bjhw->bihw", matrix, linear)
    bend = (6 / 29) ** 3
    f = torch.where(xyz > bend, xyz.clamp(min=bend).pow(1 / 3), xyz * ((29 / 6) ** 2 / 3) + 4 / 29)
    x, y, z = f.unbind(dim=1)
    return torch.stack((1.16 * y - 0.16, 5 * (x - y), 2 * (y - z)), dim=1)


def _blur_matrix(size: int, sigma_px: float) -> Tensor:
    """The Gaussian blur of a line of ``size`` samples as a matrix, float64 (size, size); reflection at any distance."""
    reach = int(3 * sigma_px + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    taps = torch.exp(-0.5 * (offsets.double() / sigma_px).square())
    period = max(2 * (size - 1), 1)
    source = (torch.arange(size)[:, None] + offsets) % period
    source = torch.minimum(source, period - source)  # d c b | a b c d | c b a: the edge sample is not repeated
    blank = torch.zeros(size, size, dtype=torch.float64)
    return blank.scatter_add_(1, source, (taps / taps.sum()).expand(size, -1))


@_full_precision
def gaussian_blur(image: Tensor, sigma_px: float) -> Tensor:
    """(B, C, H, W) blurred by a Gaussian cut at 3 sigma (19 taps for 3 px), reflected about its edge samples.

    The same as scipy's ``gaussian_filter(mode="mirror", truncate=3)``, for images smaller than the kernel too, which
    are reflected again and again. 0 leaves the image as it is.
    """
    if sigma_px <= 0:
        return image
    rows, columns = (_blur_matrix(size, sigma_px).to(image) for size in image.shape[-2:])
    return rows @ image @ columns.T


def _blur_content(image: Tensor, blur_px: float, mask: Tensor | None) -> Tensor:
    """Blurred; under a mask each pixel is the weighted mean of the content around it, which always has weight of its
    own."""
    if mask is None:
        return gaussian_blur(image, blur_px)
    share = gaussian_blur((mask > 0).to(image.dtype), blur_px).clamp(min=1e-12)
    return gaussian_blur(_keep(image, mask), blur_px) / share


def _coarse_lab(image: Tensor, blur_px: float, mask: Tensor | None, order: ColourOrder) -> Tensor:
    if order == "blur_then_lab":
        return srgb_to_lab(_blur_content(image, blur_px, mask))
    return _blur_content(srgb_to_lab(_keep(image, mask)), blur_px, mask)


@_full_precision
def colour_loss(
    prediction: Tensor, target: Tensor, blur_px: float = 3.0, mask: Tensor | None = None,
    order: ColourOrder = "lab_then_blur",
) -> Tensor:  # fmt: skip
    """Eq. 10-11, radiometric consistency: coarse colour in CIELAB, its mean and its spread.

    With p = G * Lab(prediction) and q = G * Lab(target), G a Gaussian of ``blur_px``, Lab as ``srgb_to_lab``, and
    mu_c, s_c the mean and the population standard deviation of channel c over the image,

        L = mean_{c,y,x} |p - q|  +  mean_c |mu_c(p) - mu_c(q)|  +  mean_c |s_c(p) - s_c(q)|.

    All three are in units of 100 CIELAB steps. The second counts a cast over the whole image once more, the third
    answers coarse contrast that is too weak or too strong wherever it lies. The paper blurs after Lab
    (``lab_then_blur``). ``blur_then_lab`` does it before, as a coarse sensor averages before anything else; the two
    differ by Lab's curvature over a few pixels.

    Parameters
    ----------
    prediction, target : (B, 3, H, W), sRGB in [0, 1]; values outside are clamped, and get no gradient, where Lab comes
        first; else they count in the blur and are clamped after it.
    mask : (B, 1, H, W); blur and statistics see content only.
    """
    p, q = (_coarse_lab(image, blur_px, mask, order) for image in (prediction, target))
    difference = _mean((p - q).abs(), mask)
    for statistic in (_channel_means, _channel_spreads):
        difference = difference + (statistic(p, mask) - statistic(q, mask)).abs().mean(dim=1)
    return difference


def _channel_means(lab: Tensor, mask: Tensor | None) -> Tensor:
    """(B, C), over content."""
    return torch.stack([_mean(channel, mask) for channel in lab.split(1, dim=1)], dim=1)


def _channel_spreads(lab: Tensor, mask: Tensor | None) -> Tensor:
    """Population standard deviations (B, C), over content."""
    variance = _channel_means((lab - _channel_means(lab, mask)[:, :, None, None]).square(), mask)
    return (variance + 1e-10).sqrt()  # a floor of 0.001 CIELAB steps keeps the gradient of a flat image finite


_TRUNK_FILE, _TRUNK_SHA256 = "alexnet-owt-7be5be79.pth", "7be5be79"  # torchvision publishes these digits only
_HEADS_FILE, _HEADS_SHA256 = "alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"


class Lpips(nn.Module):
    """LPIPS 0.1 with AlexNet (Zhang et al., CVPR 2018, doi:10.1109/CVPR.2018.00068) as a loss; frozen.

    The network and its linear heads are those of the package ``lpips``; the trunk is torchvision's
    alexnet-owt-7be5be79.pth in the folder ``weights``. Both files are used only if their SHA-256 is the expected one,
    tensors are all that is read from them, and nothing is ever downloaded. The values are the package's; computed here
    because a loss wants masks, and no root of 0 in the backward pass (the package's gives NaN at positions without
    features, which the ReLU before it hides from all but anomaly detection).

    Raises
    ------
    RareflowError
        If something is missing; ``missing`` says so beforehand.
    """

    min_side_px = 31

    def __init__(self, weights: Path | None) -> None:
        super().__init__()
        reason = self.missing(weights)
        if reason is not None:
            raise RareflowError(f"LPIPS: {reason}; give the folder that holds it, or set loss.lambda_lpips to 0")
        heads_file = _heads_path()
        assert weights is not None and heads_file is not None
        import lpips

        with torch.device("meta"), warnings.catch_warnings():  # no memory, no random numbers for what is replaced
            warnings.simplefilter("ignore")  # the package calls torchvision by an old name
            network = lpips.LPIPS(net="alex", version="0.1", pretrained=False, pnet_rand=True, verbose=False)
        trunk = torch.load(Path(weights) / _TRUNK_FILE, map_location="cpu", weights_only=True)
        # "slice2.3.weight" of the package is "features.3.weight" of torchvision.
        features = {name: trunk[f"features.{name.partition('.')[2]}"].float() for name in network.net.state_dict()}
        network.net.load_state_dict(features, assign=True)
        heads = torch.load(heads_file, map_location="cpu", weights_only=True)
        for i, head in enumerate(network.lins):
            head.load_state_dict({"model.1.weight": heads[f"lin{i}.model.1.weight"]}, assign=True)
        self.scaling: nn.Module = network.scaling_layer
        self.features: nn.Module = network.net
        self.heads = nn.ModuleList(head.model[-1] for head in network.lins)  # without the dropout before them
        self.requires_grad_(False)

    @staticmethod
    def missing(folder: Path | None) -> str | None:
        """What keeps LPIPS from being computed with the weights in ``folder``, by file name; None if nothing does."""
        heads = _heads_path()
        if heads is None:
            return "the package lpips is not installed"
        trunk = None if folder is None else Path(folder) / _TRUNK_FILE
        for path, name, expected in (
            (trunk, f"{_TRUNK_FILE} (244 MB, torchvision's AlexNet)", _TRUNK_SHA256),
            (heads, f"{_HEADS_FILE} of the package lpips", _HEADS_SHA256),
        ):
            if path is None or not path.is_file():
                return f"{name} is missing"
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if not found.startswith(expected):
                return f"{name} has the sha256 {found[:8]}..., expected {expected[:8]}..."
        return None

    @_full_precision
    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """LPIPS (B,) of images (B, 3, H, W) in [0, 1], not clamped, with sides of 31 px or more.

        Under the mask both images are grey, and each layer's mean counts its positions by their share of content.
        """
        if min(target.shape[-2:]) < self.min_side_px:
            raise RareflowError(
                f"LPIPS: found images of {target.shape[-2]}x{target.shape[-1]} px, expected sides of 31 px or more; "
                "train on larger crops or set loss.lambda_lpips to 0"
            )
        if mask is not None:
            prediction, target = (_keep(image - 0.5, mask) + 0.5 for image in (prediction, target))
        layers = zip(*(self.features(self.scaling(2 * image - 1)) for image in (prediction, target)), strict=True)
        total = prediction.new_zeros(len(prediction))
        for head, (p, q) in zip(self.heads, layers, strict=True):
            distance = head((_unit(p) - _unit(q)).square())
            if mask is None:
                total = total + distance.mean(dim=(1, 2, 3))
            else:
                share = F.adaptive_avg_pool2d((mask > 0).to(distance.dtype), distance.shape[-2:])
                total = total + (share * distance).sum(dim=(1, 2, 3)) / share.sum(dim=(1, 2, 3)).clamp(min=1e-6)
        return total


def _unit(features: Tensor) -> Tensor:
    """Features of length 1 over channels; the small number is inside the root, where it bounds the gradient."""
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-10).sqrt()


def _heads_path() -> Path | None:
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "weights" / "v0.1" / _HEADS_FILE


def objective(
    config: LossConfig,
    *,
    v_hat: Tensor,
    z_t: Tensor,
    z0: Tensor,
    eps: Tensor,
    sigma: Tensor,
    decode: Callable[[Tensor], Tensor],
    target: Tensor,
    lpips: Lpips | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 12: what one training step minimises, and its terms for the log.

    total = mean over the batch of
    L_base + (1 - sigma)^p (lambda_fft L_fft + lambda_color L_color + lambda_lpips L_lpips), p = high_noise_power.

    Parameters
    ----------
    v_hat, z_t, z0, eps : (B, C, h, w), predicted velocity, noisy latents, clean latents, noise; any precision.
    sigma : (B,), noise level in [0, 1]; z_t = (1 - sigma) z0 + sigma eps.
    decode : latents (B, C, h, w), float32, to images (B, 3, H, W) in [0, 1], not clamped, with gradients. Called once,
        and only if a term compares images.
    target : (B, 3, H, W) in [0, 1], H and W multiples of h and w.
    lpips : without it a non-zero lambda_lpips has no effect; a warning says so.
    mask : (B, 1, h, w), content of padded latents; images are masked by the same, enlarged. Under it x0_hat is
        replaced by z0 before decoding, so that errors in the padding do not reach the content through the decoder.

    Returns
    -------
    The total, a scalar, and the detached batch means of its summands, weights included, under ``base``, ``fft``,
    ``color``, ``lpips``: they add up to the total, and a term that is left out has no entry.
    """
    v_hat, z_t, z0, eps, sigma, target = map(_full, (v_hat, z_t, z0, eps, sigma, target))
    if not v_hat.shape == z_t.shape == z0.shape == eps.shape or sigma.shape != v_hat.shape[:1]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (v_hat, z_t, z0, eps, sigma))
        raise ValueError(f"v_hat, z_t, z0, eps, sigma have the shapes {shapes}; expected four of (B, C, h, w) and (B,)")
    if config.lambda_lpips and lpips is None:
        warnings.warn(
            f"LPIPS is left out of the objective: lambda_lpips is {config.lambda_lpips:g}, but no network was given",
            RuntimeWarning,
            stacklevel=2,
        )
    x0_hat = z_t - _like_images(sigma) * v_hat
    if mask is not None:
        x0_hat = torch.where(mask > 0, x0_hat, z0)
    further: dict[str, Tensor] = {}
    if config.lambda_fft and config.fft_domain == "latent":
        further["fft"] = config.lambda_fft * frequency_loss(x0_hat, z0, config.gamma, mask, config.fft_compare)
    pixel_fft = bool(config.lambda_fft) and config.fft_domain == "pixel"
    use_lpips = bool(config.lambda_lpips) and lpips is not None
    if pixel_fft or config.lambda_color or use_lpips:
        image = decode(x0_hat)
        if image.shape != target.shape:
            raise ValueError(f"decode gave {tuple(image.shape)} for a target of {tuple(target.shape)}")
        content = None if mask is None else F.interpolate((mask > 0).float(), size=image.shape[-2:])
        if pixel_fft:
            further["fft"] = config.lambda_fft * frequency_loss(
                image, target, config.gamma, content, config.fft_compare
            )
        if config.lambda_color:
            further["color"] = config.lambda_color * colour_loss(
                image, target, config.blur_px, content, config.color_order
            )
        if use_lpips:
            assert lpips is not None
            further["lpips"] = config.lambda_lpips * lpips(image, target, content)
    late = (1 - sigma).pow(config.high_noise_power)
    terms = {"base": velocity_loss(v_hat, z0, eps, sigma, config.omega, mask).mean()}
    terms |= {name: (late * value).mean() for name, value in further.items()}
    return torch.stack(list(terms.values())).sum(), {name: value.detach() for name, value in terms.items()}
