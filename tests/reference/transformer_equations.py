"""DINOv2's and CLIP's image networks in float64, from their papers and the names of their tensors; what is computed
from their features."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch

from tests.reference.network_equations import tensorflow_resize

State = Mapping[str, torch.Tensor]
HEAD = 64
DINOV2_COLOURS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_COLOURS = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def seen(image: np.ndarray, side: int, colours: tuple[tuple[float, ...], tuple[float, ...]]) -> np.ndarray:
    """An image (H, W, 3) in [0, 1] as a network sees it: 8 bit, resized, less the mean over the deviation."""
    levels = tensorflow_resize(np.round(image.astype(np.float64) * 255), side)
    mean, deviation = colours
    return (levels - 255 * np.array(mean)) / (255 * np.array(deviation))


def dinov2(image: np.ndarray, state: State) -> np.ndarray:
    """The class token after the last norm, of an image of 224 px as ``seen`` gives it."""
    s = {name: tensor.double().numpy() for name, tensor in state.items()}
    tokens = _patches(image, s["patch_embed.proj.weight"], s["patch_embed.proj.bias"])
    tokens = np.concatenate([s["cls_token"][0], tokens])
    tokens = tokens + positions(s["pos_embed"][0], math.isqrt(len(tokens) - 1))
    for i in range(1 + max(int(name.split(".")[1]) for name in s if name.startswith("blocks."))):
        b = {name.removeprefix(f"blocks.{i}."): t for name, t in s.items() if name.startswith(f"blocks.{i}.")}
        normal = _norm(tokens, b["norm1.weight"], b["norm1.bias"], 1e-6)
        mixed = _attention(normal @ b["attn.qkv.weight"].T + b["attn.qkv.bias"])
        tokens = tokens + b["ls1.gamma"] * (mixed @ b["attn.proj.weight"].T + b["attn.proj.bias"])
        hidden = _norm(tokens, b["norm2.weight"], b["norm2.bias"], 1e-6) @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"]
        hidden = hidden * (1 + torch.erf(torch.from_numpy(hidden) / math.sqrt(2)).numpy()) / 2
        tokens = tokens + b["ls2.gamma"] * (hidden @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"])
    return _norm(tokens[:1], s["norm.weight"], s["norm.bias"], 1e-6)[0]


def positions(trained: np.ndarray, side: int) -> np.ndarray:
    """A square grid of trained positions (1 + n * n, width) read at ``side`` places an axis: cubic convolution of four
    neighbours (a = -0.75, edges repeated), place i at (i + 0.5) n / (side + 0.1) - 0.5."""
    n = math.isqrt(len(trained) - 1)
    if n == side:
        return trained
    at = (np.arange(side) + 0.5) * n / (side + 0.1) - 0.5
    weights = np.zeros((side, n))
    for i, where in enumerate(at):
        for neighbour in range(math.floor(where) - 1, math.floor(where) + 3):
            weights[i, min(max(neighbour, 0), n - 1)] += _cubic(abs(where - neighbour))
    grid = np.einsum("ia,jb,abw->ijw", weights, weights, trained[1:].reshape(n, n, -1))
    return np.concatenate([trained[:1], grid.reshape(side * side, -1)])


def _cubic(d: float, a: float = -0.75) -> float:
    """Keys 1981, eq. 15."""
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def clip(image: np.ndarray, state: State) -> np.ndarray:
    """The embedding of an image of 336 px as ``seen`` gives it, not of length one."""
    s = {n.removeprefix("visual."): t.double().numpy() for n, t in state.items() if n.startswith("visual.")}
    tokens = np.concatenate([s["class_embedding"][None], _patches(image, s["conv1.weight"], 0.0)])
    tokens = _norm(tokens + s["positional_embedding"], s["ln_pre.weight"], s["ln_pre.bias"], 1e-5)
    for i in range(1 + max(int(n.split(".")[2]) for n in s if n.startswith("transformer.resblocks."))):
        head = f"transformer.resblocks.{i}."
        b = {n.removeprefix(head): t for n, t in s.items() if n.startswith(head)}
        normal = _norm(tokens, b["ln_1.weight"], b["ln_1.bias"], 1e-5)
        mixed = _attention(normal @ b["attn.in_proj_weight"].T + b["attn.in_proj_bias"])
        tokens = tokens + mixed @ b["attn.out_proj.weight"].T + b["attn.out_proj.bias"]
        hidden = _norm(tokens, b["ln_2.weight"], b["ln_2.bias"], 1e-5) @ b["mlp.c_fc.weight"].T + b["mlp.c_fc.bias"]
        hidden = hidden / (1 + np.exp(-1.702 * hidden))
        tokens = tokens + hidden @ b["mlp.c_proj.weight"].T + b["mlp.c_proj.bias"]
    return (_norm(tokens[:1], s["ln_post.weight"], s["ln_post.bias"], 1e-5) @ s["proj"])[0]


def _patches(image: np.ndarray, weight: np.ndarray, bias: np.ndarray | float) -> np.ndarray:
    """Each patch times the convolution's weights (width, 3, p, p), row by row: (patches, width)."""
    p = weight.shape[-1]
    rows, columns = (side // p for side in image.shape[:2])
    patches = image.reshape(rows, p, columns, p, 3).transpose(0, 2, 4, 1, 3).reshape(rows * columns, -1)
    return patches @ weight.reshape(len(weight), -1).T + bias


def _norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + eps) * weight + bias


def _attention(qkv: np.ndarray) -> np.ndarray:
    """Softmax of q k' / sqrt(64), times v, head by head."""
    width = qkv.shape[1] // 3
    heads = []
    for start in range(0, width, HEAD):
        q, k, v = (qkv[:, part * width + start : part * width + start + HEAD] for part in range(3))
        logits = q @ k.T / math.sqrt(HEAD)
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ v)
    return np.concatenate(heads, axis=1)


def cmmd(first: np.ndarray, second: np.ndarray) -> float:
    """Jayasumana et al. 2024: 1000 times the unbiased squared MMD, kernel exp(-d^2 / 200) of unit vectors, pair by
    pair."""
    x, y = ([v / math.sqrt(math.fsum(v * v)) for v in side.astype(np.float64)] for side in (first, second))

    def kernel(p: np.ndarray, q: np.ndarray) -> float:
        return math.exp(-math.fsum((p - q) ** 2) / (2 * 10.0**2))

    n, m = len(x), len(y)
    xx = math.fsum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = math.fsum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return 1000 * (xx + yy - 2 * math.fsum(kernel(p, q) for p in x for q in y) / (n * m))


def biased_cmmd(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The estimate of the authors' code, in which an image is compared with itself too; and by how much it is larger
    than the unbiased one."""
    x, y = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (first, second))
    kernels = [np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / 200) for a, b in ((x, x), (y, y), (x, y))]
    excess = sum((1 - (k.sum() - len(k)) / (len(k) * (len(k) - 1))) / len(k) for k in kernels[:2])
    return 1000 * float(kernels[0].mean() + kernels[1].mean() - 2 * kernels[2].mean()), 1000 * float(excess)


def share_within(points: np.ndarray, support: np.ndarray, neighbours: int = 3) -> float:
    """Kynkäänniemi et al. 2019, eq. 1: the share of points in the ball of some vector of the support, one by one."""
    radii = []
    for i, centre in enumerate(support):
        others = sorted(math.dist(centre, other) for j, other in enumerate(support) if j != i)
        radii.append(others[neighbours - 1])
    inside = [any(math.dist(p, c) <= r for c, r in zip(support, radii, strict=True)) for p in points]
    return sum(inside) / len(inside)
