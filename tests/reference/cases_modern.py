"""FD-DINOv2, CMMD, precision and recall: from features, and of random networks of the released layouts."""

from __future__ import annotations

import contextlib
import io
import re
from functools import cache

import numpy as np

from bench.metrics.distances import covered, gaussian_distance
from bench.metrics.networks import quietly
from tests.reference import equations, pictures, random_weights, transformer_equations
from tests.reference.cases import Case, Values, score_set
from tests.reference.pictures import need, noisy_pair
from tests.reference.random_weights import CLIP, DINOV2, accepted

N = 5


def _set() -> list[pictures.Pair]:
    return [noisy_pair(48, 64, seed, noise=0.1) for seed in range(N)]


@cache
def _ours(name: str, file: str) -> float:
    with accepted(file) as setting:
        return score_set(name, _set(), setting)


def _both(of: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions' and references' features."""
    return of["prediction"], of["reference"]


# --- the networks -----------------------------------------------------------------------------------------------------


def _side(pair: pictures.Pair, side: str) -> np.ndarray:
    return pair[1 if side == "prediction" else 0]


@cache
def _dinov2_equation() -> dict[str, np.ndarray]:
    state, equation = random_weights.state(DINOV2), transformer_equations
    return {
        side: np.stack(
            [equation.dinov2(equation.seen(_side(p, side), 224, equation.DINOV2_COLOURS), state) for p in _set()]
        )
        for side in ("prediction", "reference")
    }


@cache
def _clip_equation() -> dict[str, np.ndarray]:
    state, equation = random_weights.state(CLIP), transformer_equations
    return {
        side: np.stack(
            [equation.clip(equation.seen(_side(p, side), 336, equation.CLIP_COLOURS), state) for p in _set()]
        )
        for side in ("prediction", "reference")
    }


@cache
def _dinov2_transformers() -> dict[str, np.ndarray]:
    """By the network of transformers, whose tensors have other names. It scales positions otherwise than the released
    code, so it is given those of the equation."""
    need("transformers")
    import torch
    from transformers import Dinov2Config, Dinov2Model

    s = random_weights.state(DINOV2)
    width, depth = s["cls_token"].shape[-1], random_weights.DEPTH
    given = {
        "embeddings.cls_token": s["cls_token"],
        "embeddings.mask_token": s["mask_token"],
        "embeddings.position_embeddings": torch.from_numpy(
            transformer_equations.positions(s["pos_embed"][0].double().numpy(), 16)
        )[None],
        "embeddings.patch_embeddings.projection.weight": s["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": s["patch_embed.proj.bias"],
        "layernorm.weight": s["norm.weight"],
        "layernorm.bias": s["norm.bias"],
    }
    theirs = {"norm1": "norm1", "norm2": "norm2", "attention.o_proj": "attn.proj", "mlp.fc1": "mlp.fc1",
              "mlp.fc2": "mlp.fc2"}  # fmt: skip
    for i in range(depth):
        for kind in ("weight", "bias"):
            for name, ours in theirs.items():
                given[f"encoder.layer.{i}.{name}.{kind}"] = s[f"blocks.{i}.{ours}.{kind}"]
            parts = s[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
            for name, part in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                given[f"encoder.layer.{i}.attention.{name}.{kind}"] = part
        for k in (1, 2):
            given[f"encoder.layer.{i}.layer_scale{k}.lambda1"] = s[f"blocks.{i}.ls{k}.gamma"]
    with quietly():
        config = Dinov2Config(hidden_size=width, num_hidden_layers=depth, num_attention_heads=width // 64,
                              image_size=224, patch_size=14, layer_norm_eps=1e-6)  # fmt: skip
        network = Dinov2Model(config).eval().double()
        if not any(name.endswith(".q_proj.weight") for name in network.state_dict()):  # before version 5
            older = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value",
                     "o_proj": "output.dense"}  # fmt: skip
            given = {re.sub(r"(?<=attention\.)([qkvo]_proj)", lambda m: older[m[1]], n): t for n, t in given.items()}
        network.load_state_dict(given)
    return _through(lambda x: network(pixel_values=x).pooler_output, 224, transformer_equations.DINOV2_COLOURS)


@cache
def _clip_transformers() -> dict[str, np.ndarray]:
    need("transformers")
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    s = {n.removeprefix("visual."): t for n, t in random_weights.state(CLIP).items() if n.startswith("visual.")}
    (width, embedding), depth = s["proj"].shape, random_weights.DEPTH
    given = {
        "vision_model.embeddings.class_embedding": s["class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": s["conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": s["positional_embedding"],
        "visual_projection.weight": s["proj"].T.contiguous(),
    }
    for kind in ("weight", "bias"):
        given[f"vision_model.pre_layrnorm.{kind}"] = s[f"ln_pre.{kind}"]
        given[f"vision_model.post_layernorm.{kind}"] = s[f"ln_post.{kind}"]
        for i in range(depth):
            ours, theirs = f"transformer.resblocks.{i}.", f"vision_model.encoder.layers.{i}."
            named = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
                     "self_attn.out_proj": "attn.out_proj"}  # fmt: skip
            given |= {f"{theirs}{name}.{kind}": s[f"{ours}{own}.{kind}"] for name, own in named.items()}
            parts = s[f"{ours}attn.in_proj_{kind}"].chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                given[f"{theirs}self_attn.{name}_proj.{kind}"] = part
    with quietly():
        config = CLIPVisionConfig(hidden_size=width, intermediate_size=4 * width, projection_dim=embedding,
                                  num_hidden_layers=depth, num_attention_heads=width // 64, image_size=336,
                                  patch_size=14, hidden_act="quick_gelu")  # fmt: skip
        network = CLIPVisionModelWithProjection(config).eval().double()
        network.load_state_dict(given, strict=False)
        missing = network.state_dict().keys() - given.keys()
        assert not {name for name in missing if not name.endswith("position_ids")}, missing
    return _through(lambda x: network(pixel_values=x).image_embeds, 336, transformer_equations.CLIP_COLOURS)


def _through(network: object, side: int, colours: tuple) -> dict[str, np.ndarray]:
    import torch

    assert callable(network)
    found = {}
    with torch.inference_mode():
        for of in ("prediction", "reference"):
            images = [transformer_equations.seen(_side(p, of), side, colours) for p in _set()]
            tensors = [torch.from_numpy(np.moveaxis(x, 2, 0)[None].copy()) for x in images]
            found[of] = np.concatenate([network(x).numpy() for x in tensors])
    return found


# --- what is made of features -----------------------------------------------------------------------------------------


def _clouds(n: int, m: int, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(n * m)
    return random.normal(0, 1, (n, width)), random.normal(0.4, 1.2, (m, width))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _cmmd_pairs() -> Values:
    first, second = _clouds(20, 25)
    return 1000 * gaussian_distance(_unit(first), _unit(second), 10.0), transformer_equations.cmmd(first, second)


def _cmmd_torch_fidelity() -> Values:
    need("torch_fidelity")
    import torch
    from torch_fidelity import metric_kid

    first, second = (_unit(x) for x in _clouds(30, 30))
    with contextlib.redirect_stderr(io.StringIO()):
        theirs = metric_kid.kid_features_to_metric(
            torch.from_numpy(first), torch.from_numpy(second), kid_subsets=1, kid_subset_size=30, kid_kernel="rbf",
            kid_kernel_rbf_sigma=10.0, verbose=False,
        )  # fmt: skip
    return 1000 * gaussian_distance(first, second, 10.0), 1000 * float(theirs["kernel_inception_distance_mean"])


def _cmmd_biased() -> Values:
    first, second = _clouds(40, 40)
    value, excess = transformer_equations.biased_cmmd(first, second)
    return 1000 * gaussian_distance(_unit(first), _unit(second), 10.0) + excess, value


def _covered_pairs(*, swapped: bool) -> Values:
    first, second = _clouds(30, 24, 4)
    first, second = (second, first) if swapped else (first, second)
    return covered(first, second, 3), transformer_equations.share_within(first, second)


def _covered_torch_fidelity(key: str) -> Values:
    need("torch_fidelity")
    import torch
    from torch_fidelity import metric_prc

    generated, real = _clouds(60, 50, 5)
    theirs = metric_prc.prc_features_to_metric(
        torch.from_numpy(generated), torch.from_numpy(real), prc_neighborhood=3, prc_batch_size=100,
        save_cpu_ram=False, verbose=False,
    )[key]  # fmt: skip
    ours = covered(generated, real, 3) if key == "precision" else covered(real, generated, 3)
    return ours, float(theirs)


def _covers_itself() -> Values:
    cloud = _clouds(40, 10)[0]
    return covered(cloud, cloud, 3), 1.0


_RANDOM = "in float64, random weights in both, resized by TensorFlow's equation"
_FLOAT32 = f"ours computes in float32; {N} pairs of 48x64 px, two blocks of 128 features"

CASES = [
    Case("fd_dinov2", "equation", f"its transformer {_RANDOM}; eq. 26 of the features",
         lambda: (_ours("fd_dinov2", DINOV2), equations.frechet(*_both(_dinov2_equation()))), 1e-4, relative=True,
         note=_FLOAT32),
    Case("fd_dinov2", "library", f"transformers' DINOv2 {_RANDOM}; eq. 26 of the features",
         lambda: (_ours("fd_dinov2", DINOV2), equations.frechet(*_both(_dinov2_transformers()))), 1e-4, relative=True,
         note="given the released code's positions; it scales them otherwise"),
    Case("cmmd", "equation", f"its transformer {_RANDOM}; the paper's estimate, pair by pair",
         lambda: (_ours("cmmd", CLIP), transformer_equations.cmmd(*_both(_clip_equation()))), 1e-4, relative=True,
         note=_FLOAT32),
    Case("cmmd", "library", f"transformers' CLIP {_RANDOM}; the paper's estimate",
         lambda: (_ours("cmmd", CLIP), transformer_equations.cmmd(*_both(_clip_transformers()))), 1e-4,
         relative=True),
    Case("cmmd", "equation", "the paper's estimate pair by pair, 20 against 25 features of 16", _cmmd_pairs, 1e-9),
    Case("cmmd", "library", "torch-fidelity's KID with its Gaussian kernel, one subset of all", _cmmd_torch_fidelity,
         1e-9),
    Case("cmmd", "closed form", "the biased estimate of the authors' code, less its bias", _cmmd_biased, 1e-9),
    Case("precision_dinov2", "equation", "eq. 1 distance by distance, 30 against 24 features of 4",
         lambda: _covered_pairs(swapped=False), 1e-12),
    Case("precision_dinov2", "equation", f"its transformer {_RANDOM}; eq. 1",
         lambda: (_ours("precision_dinov2", DINOV2), transformer_equations.share_within(*_both(_dinov2_equation()))),
         1e-12),
    Case("precision_dinov2", "library", "torch-fidelity's, 60 against 50 features of 5",
         lambda: _covered_torch_fidelity("precision"), 1e-6),
    Case("precision_dinov2", "closed form", "1 of a set and itself", _covers_itself, 1e-12),
    Case("recall_dinov2", "equation", "eq. 1 distance by distance, 24 against 30 features of 4",
         lambda: _covered_pairs(swapped=True), 1e-12),
    Case("recall_dinov2", "equation", f"its transformer {_RANDOM}; eq. 1",
         lambda: (_ours("recall_dinov2", DINOV2), transformer_equations.share_within(*_both(_dinov2_equation())[::-1])),
         1e-12),
    Case("recall_dinov2", "library", "torch-fidelity's, 60 against 50 features of 5",
         lambda: _covered_torch_fidelity("recall"), 1e-6),
]  # fmt: skip
