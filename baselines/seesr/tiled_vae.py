"""Stable Diffusion's autoencoder in tiles whose group norms agree, so that no seam shows.

An image or latent too large for memory is cut into tiles with a margin. All tiles advance together from one group norm
to the next; there the statistics of all are averaged, weighted by their pixels, and every tile is normalised by the
same ones. The margin is wide enough for the convolutions, so the tiles agree where they meet. What remains different
from one pass over the whole is attention, which sees its tile alone, and the variance between tiles, which an average
of variances leaves out. This is the scheme of "multidiffusion-upscaler-for-automatic1111" (Tiled VAE) in its exact
mode, which SeeSR's published inference runs, and its numbers are kept: margins of 32 px and 11 latent cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

FACTOR = 8  # px of a cell of the latent
MARGIN_PX, MARGIN_CELLS = 32, 11

Moments = tuple[torch.Tensor, torch.Tensor]
Pass = Generator[tuple[torch.Tensor, torch.nn.GroupNorm], Moments, torch.Tensor]
"""One tile on its way: yields what comes before a norm, is sent variance and mean, returns the answer."""


@dataclass(frozen=True)
class Tile:
    """One tile along an axis: what it reads, [start, stop) of the input, and what it answers, of the output."""

    start: int
    stop: int
    out_start: int
    out_stop: int


def encode(vae: Any, image: torch.Tensor, tile_px: int) -> torch.Tensor:
    """The moments of an image, float (N, 3, H, W) in [-1, 1] to (N, 8, H/8, W/8); in tiles beyond ``tile_px``."""
    if max(image.shape[2:]) <= tile_px + 2 * MARGIN_PX:
        return vae.quant_conv(vae.encoder(image))
    return vae.quant_conv(_in_tiles(image, tile_px, MARGIN_PX, lambda x: _encoder(vae.encoder, x), shrinks=True))


def decode(vae: Any, latent: torch.Tensor, tile_cells: int) -> torch.Tensor:
    """The image of a latent, float (N, 4, h, w) to (N, 3, 8h, 8w); in tiles beyond ``tile_cells``."""
    latent = vae.post_quant_conv(latent)
    if max(latent.shape[2:]) <= tile_cells + 2 * MARGIN_CELLS:
        return vae.decoder(latent)
    return _in_tiles(latent, tile_cells, MARGIN_CELLS, lambda x: _decoder(vae.decoder, x), shrinks=False)


def split(length: int, tile: int, margin: int, *, shrinks: bool) -> list[Tile]:
    """Tiles of nearly equal length along an axis, none longer than ``tile`` without its margins."""
    count = max(1, math.ceil((length - 2 * margin) / tile))
    step = _round_up(math.ceil((length - 2 * margin) / count), tile)
    tiles = []
    for i in range(count):
        inner = margin + i * step, min(margin + (i + 1) * step, length)
        # The first and the last tile answer for the border, too.
        kept = (inner[0] if inner[0] > margin else 0, inner[1] if inner[1] < length - margin else length)
        out = (n // FACTOR if shrinks else n * FACTOR for n in kept)
        tiles.append(Tile(max(0, inner[0] - margin), min(length, inner[1] + margin), *out))
    return tiles


def _round_up(length: int, largest: int) -> int:
    """The next multiple of 32, or of 16, 8, ... where that would be more than ``largest``."""
    for divisor in (32, 16, 8, 4, 2):
        rounded = math.ceil(length / divisor) * divisor
        if rounded == length or rounded <= largest:
            return rounded
    return length


def _in_tiles(
    x: torch.Tensor, tile: int, margin: int, start: Callable[[torch.Tensor], Pass], *, shrinks: bool
) -> torch.Tensor:
    rows, columns = (split(n, tile, margin, shrinks=shrinks) for n in x.shape[2:])
    places = [(r, c) for r in rows for c in columns]
    passes = [start(x[:, :, r.start : r.stop, c.start : c.stop]) for r, c in places]
    answers: list[torch.Tensor] = []
    waiting = [next(p) for p in passes]
    while not answers:
        moments = _pooled(waiting)
        waiting = []
        for one in passes:  # all have the same norms, so all end in the same round
            try:
                waiting.append(one.send(moments))
            except StopIteration as end:
                answers.append(end.value)
    size = (n // FACTOR if shrinks else n * FACTOR for n in x.shape[2:])
    whole = answers[0].new_zeros(*answers[0].shape[:2], *size)
    for (r, c), answer in zip(places, answers, strict=True):
        top, left = (n.start // FACTOR if shrinks else n.start * FACTOR for n in (r, c))
        part = answer[:, :, r.out_start - top : r.out_stop - top, c.out_start - left : c.out_stop - left]
        whole[:, :, r.out_start : r.out_stop, c.out_start : c.out_stop] = part
    return whole


def _pooled(waiting: list[tuple[torch.Tensor, torch.nn.GroupNorm]]) -> Moments:
    """Variance and mean of each image's groups, (N, groups), averaged over tiles by their pixels."""
    pixels = torch.tensor([x.shape[2] * x.shape[3] for x, _ in waiting], dtype=torch.float64)
    weights = (pixels / pixels.sum()).tolist()
    moments = [torch.var_mean(_grouped(x, norm).float(), dim=2, unbiased=False) for x, norm in waiting]
    variance, mean = (sum(w * m[i] for w, m in zip(weights, moments, strict=True)) for i in (0, 1))
    assert isinstance(variance, torch.Tensor) and isinstance(mean, torch.Tensor)
    return variance, mean


def _grouped(x: torch.Tensor, norm: torch.nn.GroupNorm) -> torch.Tensor:
    return x.reshape(x.shape[0], norm.num_groups, -1)


def _normalise(x: torch.Tensor, norm: Any) -> Generator[tuple[torch.Tensor, Any], Moments, torch.Tensor]:
    variance, mean = yield x, norm
    flat = (_grouped(x, norm).float() - mean[:, :, None]) / (variance[:, :, None] + norm.eps).sqrt()
    return flat.reshape(x.shape).to(x.dtype) * norm.weight[:, None, None] + norm.bias[:, None, None]


def _residual(block: Any, x: torch.Tensor) -> Pass:
    shortcut = x if block.conv_shortcut is None else block.conv_shortcut(x)
    x = block.conv1(F.silu((yield from _normalise(x, block.norm1))))
    return block.conv2(F.silu((yield from _normalise(x, block.norm2)))) + shortcut


def _attention(block: Any, x: torch.Tensor) -> Pass:
    tokens = (yield from _normalise(x, block.group_norm)).flatten(2).transpose(1, 2)
    heads = (t.unflatten(2, (block.heads, -1)).transpose(1, 2) for t in _projected(block, tokens))
    attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    return block.to_out[0](attended).transpose(1, 2).reshape(x.shape) + x


def _projected(block: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return block.to_q(tokens), block.to_k(tokens), block.to_v(tokens)


def _middle(block: Any, x: torch.Tensor) -> Pass:
    x = yield from _residual(block.resnets[0], x)
    x = yield from _attention(block.attentions[0], x)
    return (yield from _residual(block.resnets[1], x))


def _encoder(net: Any, x: torch.Tensor) -> Pass:
    x = net.conv_in(x)
    for block in net.down_blocks:
        for resnet in block.resnets:
            x = yield from _residual(resnet, x)
        for down in block.downsamplers or ():
            x = down(x)
    x = yield from _middle(net.mid_block, x)
    return net.conv_out(F.silu((yield from _normalise(x, net.conv_norm_out))))


def _decoder(net: Any, x: torch.Tensor) -> Pass:
    x = yield from _middle(net.mid_block, net.conv_in(x))
    for block in net.up_blocks:
        for resnet in block.resnets:
            x = yield from _residual(resnet, x)
        for up in block.upsamplers or ():
            x = up(x)
    return net.conv_out(F.silu((yield from _normalise(x, net.conv_norm_out))))
