"""SEN2SR's large network: MambaIR, whose blocks read an image along four paths with a selective state space.

Guo et al., "MambaIR: A Simple Baseline for Image Restoration with State-Space Model", ECCV 2024; the scan is that of Gu
and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023. Upstream runs the scan in a compiled
extension for CUDA (mamba-ssm). Here it is plain torch, on any device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.sen2sr.network import BANDS

FULL, SMALL = (96, (8,) * 6), (32, (1,))
"""Width, and blocks of each group, of the published network and of a small one."""
_PATHS = 4  # along rows and along columns, each there and back
_STATES = 16
_EXPAND = 4
_WIDTH_PER_RANK = 16
_CHUNK = 128  # steps of a scan that follow one another; so many chunks go side by side


def selective_scan(u: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """y[t] = <c[t], h[t]> with h[t] = exp(delta[t] a) h[t-1] + delta[t] u[t] b[t] and h[-1] = 0, float32 (N, K, D, L).

    The sequence is cut into chunks that are walked side by side: once for what each adds to the state, then, with the
    state in which each begins, for the answer. It is the recurrence itself, so no exponential can overflow, and no
    state is kept but the current ones.

    Parameters
    ----------
    u, delta : (N, K, D, L), D channels of K paths. a : (K, D, S), negative. b, c : (N, K, S, L), shared by a path's
        channels.
    """
    length = u.shape[-1]
    chunks = math.ceil(length / _CHUNK)

    def steps(x: Tensor) -> Tensor:
        """(N, K, X, L) to (steps, N, K, X, chunks); steps beyond the end change nothing, as their delta is 0."""
        padded = F.pad(x, (0, chunks * _CHUNK - length))
        return padded.unflatten(-1, (chunks, _CHUNK)).permute(4, 0, 1, 2, 3).contiguous()

    added, kept = steps(delta * u), steps(delta)
    into, out = steps(b), steps(c)
    rate = a[..., None]  # (K, D, S, 1)

    def step(state: Tensor, t: int) -> Tensor:
        decay = torch.exp(kept[t][..., None, :] * rate)
        return decay.mul_(state).addcmul_(added[t][..., None, :], into[t][:, :, None])

    shape = (*u.shape[:3], a.shape[-1], chunks)
    state = u.new_zeros(shape)
    for t in range(_CHUNK):
        state = step(state, t)
    decay = torch.exp(kept.sum(0)[..., None, :] * rate)
    begin = torch.zeros_like(state)
    for i in range(1, chunks):
        begin[..., i] = begin[..., i - 1] * decay[..., i - 1] + state[..., i - 1]
    state, found = begin, []
    for t in range(_CHUNK):
        state = step(state, t)
        found.append(torch.einsum("nkdsi,nksi->nkdi", state, out[t]))
    return torch.stack(found, -1).flatten(-2)[..., :length]


class FourPaths(nn.Module):
    """(N, h, w, C) to the same: a selective scan along four paths, gated by what else each pixel says."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner, rank = _EXPAND * width, math.ceil(width / _WIDTH_PER_RANK)
        self.split = (rank, _STATES, _STATES)
        self.x_proj_weight = nn.Parameter(torch.empty(_PATHS, sum(self.split), inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(_PATHS, inner, rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(_PATHS, inner))
        self.A_logs = nn.Parameter(torch.empty(_PATHS * inner, _STATES))
        self.Ds = nn.Parameter(torch.empty(_PATHS * inner))
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.in_proj(x).chunk(2, -1)
        x = F.silu(self.conv2d(x.permute(0, 3, 1, 2)))
        rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
        paths = torch.stack([rows, columns, rows.flip(-1), columns.flip(-1)], 1)
        delta, b, c = torch.einsum("nkdl,kcd->nkcl", paths, self.x_proj_weight).split(self.split, 2)
        delta = torch.einsum("nkrl,kdr->nkdl", delta, self.dt_projs_weight) + self.dt_projs_bias[..., None]
        a = -torch.exp(self.A_logs).unflatten(0, (_PATHS, -1))
        y = selective_scan(paths, F.softplus(delta), a, b, c)
        y = y + self.Ds.unflatten(0, (_PATHS, -1))[..., None] * paths
        along_rows = (y[:, 0] + y[:, 2].flip(-1)).unflatten(-1, x.shape[2:])
        along_columns = (y[:, 1] + y[:, 3].flip(-1)).unflatten(-1, (x.shape[3], x.shape[2]))
        y = (along_rows + along_columns.transpose(2, 3)).permute(0, 2, 3, 1)
        return self.out_proj(self.out_norm(y) * F.silu(gate))


class ChannelAttention(nn.Module):
    """Weights channels by what the whole image says of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width // 30, 1), nn.ReLU(), nn.Conv2d(width // 30, width, 1),
            nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class Convolutions(nn.Module):
    """Two convolutions through a third of the width, and attention to channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cab = nn.Sequential(
            nn.Conv2d(width, width // 3, 3, padding=1), nn.GELU(), nn.Conv2d(width // 3, width, 3, padding=1),
            ChannelAttention(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.cab(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """(N, h, w, C) to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attention = FourPaths(width)
        self.conv_blk = Convolutions(width)
        self.skip_scale, self.skip_scale2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.skip_scale + self.self_attention(self.ln_1(x))
        return x * self.skip_scale2 + self.conv_blk(self.ln_2(x))


class Group(nn.Module):
    """Blocks and a convolution beside a shortcut."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(Block(width) for _ in range(blocks))})
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found = x
        for block in self.residual_group["blocks"].children():
            found = block(found)
        return self.conv(found.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) + x


class Network(nn.Module):
    """Reflectance (N, 4, h, w) in R G B NIR to (N, 4, 4h, 4w)."""

    def __init__(self, width: int = FULL[0], groups: tuple[int, ...] = FULL[1], features: int = 64) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(BANDS, width, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(width)})
        self.layers = nn.ModuleList(Group(width, blocks) for blocks in groups)
        self.norm = nn.LayerNorm(width)
        self.conv_after_body = nn.Conv2d(width, width, 3, padding=1)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(width, features, 3, padding=1), nn.LeakyReLU())
        self.upsample = nn.Sequential(
            nn.Conv2d(features, 4 * features, 3, padding=1), nn.PixelShuffle(2),
            nn.Conv2d(features, 4 * features, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip
        self.conv_last = nn.Conv2d(features, BANDS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_first(x)
        found = self.patch_embed["norm"](first.permute(0, 2, 3, 1))
        for group in self.layers:
            found = group(found)
        body = self.conv_after_body(self.norm(found).permute(0, 3, 1, 2)) + first
        return self.conv_last(self.upsample(self.conv_before_upsample(body)))
