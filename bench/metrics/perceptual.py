"""Distances in the feature spaces of networks: LPIPS and DISTS."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.core.errors import Unavailable
from bench.core.image import Array
from bench.metrics.base import Estimate, Metric, Reference
from bench.metrics.networks import (
    as_tensor,
    fill,
    given_trunk,
    inference,
    load_state,
    quietly,
    ready,
    trunk,
)
from bench.metrics.software import DISTS, LPIPS

if TYPE_CHECKING:
    import torch


class LpipsAlex(Metric):
    """Learned perceptual image patch similarity with the AlexNet trunk, version 0.1; 0 is identical.

    The official package ``lpips``: features of five layers, normalised over channels, squared differences weighted
    by the published linear layers, averaged over space and summed. RGB in [0, 1] is brought to [-1, 1]. Lower is
    better; values above 1 do not occur in practice.

    Source: R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang, CVPR 2018, doi:10.1109/CVPR.2018.00068.

    Traps: the trunk is part of the metric (``lpips_vgg`` gives other numbers); version 0.0 is not comparable;
    images left in [0, 1] give a plausible wrong number.
    """

    name = "lpips_alex"
    title = "LPIPS"
    decimals = 3
    default: ClassVar[int | None] = 4
    direction = "down"
    group = "perceptual"
    min_side_px = 31
    package = "lpips"
    software = (LPIPS,)
    weights_files = ("alexnet-owt-7be5be79.pth", "LPIPS_v0.1_alex-df73285e.pth")
    parameters = ("v0.1", "alex")
    summary = "Learned perceptual distance, AlexNet"
    equation = "sum over layers of mean over space of w . (f(x) - f(y))^2, f of unit length over channels"
    bounds = (0.0, math.inf)
    perfect = 0.0
    symmetric = True
    citation = "zhang2018lpips krizhevsky2014alexnet"
    net: ClassVar[str] = "alex"
    constructor: ClassVar[str] = "alexnet"

    def setup(self) -> None:
        """Build the network from the two verified files."""
        trunk_file, linear_file = self.weights_files
        with quietly():
            import lpips

            with given_trunk(self.constructor, trunk(self.constructor, trunk_file, self.setting)):
                network = lpips.LPIPS(net=self.net, version="0.1", pretrained=False, verbose=False)
            linear = load_state(linear_file, self.setting)
            for i in range(network.L):
                layer = getattr(network, f"lin{i}")
                prefix = f"lin{i}."
                part = {k.removeprefix(prefix): v for k, v in linear.items() if k.startswith(prefix)}
                fill(layer, part, linear_file)
        self._network: Any = ready(network, self.setting)
        self._package = lpips

    def reference_state(self, reference: Reference) -> list[torch.Tensor]:
        """The reference's side of the distance."""
        assert reference.display is not None
        return self._directions(reference.display)

    def value(self, estimate: Estimate, reference: Reference, state: list[torch.Tensor]) -> float:
        """LPIPS of the displayed images: what the package does once it has both sides' features."""
        average = self._package.spatial_average
        layers = zip(self._network.lins, self._directions(estimate.display), state, strict=True)
        with inference():
            return float(sum(average(linear((ours - theirs) ** 2)) for linear, ours, theirs in layers))

    def _directions(self, display: Array) -> list[torch.Tensor]:
        """The features of each layer, of length one over the channels."""
        with inference():
            x = 2 * as_tensor(display, self.setting.device) - 1
            return [self._package.normalize_tensor(f) for f in self._network.net(self._network.scaling_layer(x))]


class LpipsVgg(LpipsAlex):
    """LPIPS with the VGG16 trunk, version 0.1, the choice of most papers for training losses.

    Everything else, and the traps, as ``lpips_alex``.
    """

    name = "lpips_vgg"
    title = "LPIPS-VGG"
    decimals = 3
    default = None
    min_side_px = 16
    weights_files = ("vgg16-397923af.pth", "LPIPS_v0.1_vgg-a78928a0.pth")
    parameters = ("v0.1", "vgg")
    summary = "Learned perceptual distance, VGG16"
    citation = "zhang2018lpips simonyan2015vgg"
    net = "vgg"
    constructor = "vgg16"


class Dists(Metric):
    """Deep image structure and texture similarity; 0 is identical, symmetric.

    The official package ``DISTS-pytorch``: means and covariances of the features of VGG16 with L2 pooling, weighted
    by the published alpha and beta. No resizing (the authors' demo makes the short side 256 when it is larger).
    Range about 0 to 1, lower is better.

    Source: K. Ding, K. Ma, S. Wang, E. P. Simoncelli, IEEE TPAMI 44(5), 2022, doi:10.1109/TPAMI.2020.3045810.

    Traps: identical images give about 1e-7, not exactly 0 (float32). The package reads its alpha and beta from
    ``sys.prefix``, wherever that points; here they are the listed file.
    """

    name = "dists"
    title = "DISTS"
    decimals = 3
    default = 5
    direction = "down"
    group = "perceptual"
    min_side_px = 16
    package = "DISTS_pytorch"
    software = (DISTS,)
    weights_files = ("vgg16-397923af.pth", "DISTS_weights-f5e65c96.pth")
    parameters = ("vgg", "noresize")
    summary = "Structure and texture distance, VGG16"
    equation = (
        "1 - sum over features of (alpha l + beta s), l = (2 m_x m_y + c) / (m_x^2 + m_y^2 + c), "
        "s = (2 c_xy + c) / (v_x + v_y + c), c = 1e-6"
    )
    bounds = (0.0, math.inf)
    perfect = 0.0
    symmetric = True
    citation = "ding2022dists simonyan2015vgg"

    def setup(self) -> None:
        """Build the network from the two verified files."""
        trunk_file, alpha_beta_file = self.weights_files
        with quietly():
            import DISTS_pytorch
            import torch

            with given_trunk("vgg16", trunk("vgg16", trunk_file, self.setting)):
                network = DISTS_pytorch.DISTS(load_weights=False)
            state = load_state(alpha_beta_file, self.setting)
            if {k: v.shape for k, v in state.items()} != {
                "alpha": network.alpha.shape,
                "beta": network.beta.shape,
            }:
                raise Unavailable(f"{alpha_beta_file} does not fit its network: found {', '.join(state)}")
            network.alpha.data, network.beta.data = state["alpha"].float(), state["beta"].float()
            weights = torch.cat([network.alpha.flatten(), network.beta.flatten()]).double()
            weights /= weights.sum()
        self._network: Any = ready(network, self.setting)
        self._weights = weights.to(self.setting.device)

    def reference_state(self, reference: Reference) -> _Side:
        """The reference's side of the distance."""
        assert reference.display is not None
        return self._side(reference.display)

    def value(self, estimate: Estimate, reference: Reference, state: _Side) -> float:
        """DISTS of the displayed images: the package's formula, once it has both sides' features."""
        import torch

        ours = self._side(estimate.display)
        with inference():
            products = zip(ours.centred, state.centred, strict=True)
            covariance = torch.cat([torch.linalg.vecdot(a, b) / a.shape[1] for a, b in products]).double()
            means = (2 * ours.mean * state.mean + _C) / (ours.mean**2 + state.mean**2 + _C)
            spreads = (2 * covariance + _C) / (ours.variance + state.variance + _C)
            return float(1 - self._weights @ torch.cat([means, spreads]))

    def _side(self, display: Array) -> _Side:
        import torch

        with inference():
            x = as_tensor(display, self.setting.device)
            image, *features = (f[0].flatten(1) for f in self._network.forward_once(x))
            features = [image.clone(), *features]  # centred in place, which must not reach the given image
            means = [f.mean(1, keepdim=True) for f in features]
            centred = [f.sub_(m) for f, m in zip(features, means, strict=True)]
            variances = [torch.linalg.vecdot(c, c) / c.shape[1] for c in centred]
            return _Side(centred, torch.cat(means)[:, 0].double(), torch.cat(variances).double())


_C = 1e-6  # the constants c1 and c2 of the paper


@dataclass(frozen=True)
class _Side:
    """What DISTS keeps of one image: of each layer the centred features (channels, pixels), of all channels together
    mean and variance in double precision."""

    centred: list[torch.Tensor]
    mean: torch.Tensor
    variance: torch.Tensor
