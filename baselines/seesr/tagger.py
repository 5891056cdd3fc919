"""The tagger that SeeSR reads: RAM with SeeSR's low-rank updates (DAPE), on torchvision's Swin.

RAM ("Recognize Anything", Zhang et al., arXiv:2306.03514) is a Swin-L image encoder whose 12x12 places and their mean
become 145 tokens, and a decoder of two layers in which a query for each of 4585 tags attends to them; a tag is given
where its probability is above a threshold of its own. DAPE is a rank-8 update of the encoder's queries and values and
of the decoder's queries and keys, trained to find in a degraded image the tags of the clean one (SeeSR, section 3.2).
The decoder has no self-attention, so tags do not see each other. Sizes and names: the published code (``spec.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer

from baselines.seesr.network import TOKEN_WIDTH, TOKENS
from baselines.seesr.prompts import PromptProvider, Tags
from bench.models import RfbenchError

RANK = 8  # of the updates; their scale is 1 / RANK
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_INDEX = ".relative_position_index"  # computed, not learned


@dataclass(frozen=True)
class Size:
    """The widths of the tagger; the published ones unless given."""

    image_px: int = 384
    embed: int = 192
    depths: tuple[int, ...] = (2, 2, 18, 2)
    heads: tuple[int, ...] = (6, 12, 24, 48)
    window: int = 12
    hidden: int = 768
    inner: int = 3072
    tag_heads: int = 4
    tags: int = 4585


FULL = Size()
SMALL = Size(embed=12, depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), hidden=16, inner=32, tags=12)


class Attention(nn.Module):
    """Multi-head attention of tag queries to image tokens, then a residual layer norm (BERT's)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.tag_heads
        self.query = nn.Linear(size.hidden, size.hidden)
        self.key = nn.Linear(TOKEN_WIDTH, size.hidden)
        self.value = nn.Linear(TOKEN_WIDTH, size.hidden)
        self.dense = nn.Linear(size.hidden, size.hidden)
        self.norm = nn.LayerNorm(size.hidden, eps=1e-12)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            t.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for t in (self.query(x), self.key(tokens), self.value(tokens))
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.norm(self.dense(attended) + x)


class Layer(nn.Module):
    """A layer of the decoder: attention, then two linear layers with their residual norm."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.attention = Attention(size)
        self.up, self.down = nn.Linear(size.hidden, size.inner), nn.Linear(size.inner, size.hidden)
        self.norm = nn.LayerNorm(size.hidden, eps=1e-12)

    def forward(self, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        x = self.attention(x, tokens)
        return self.norm(self.down(F.gelu(self.up(x))) + x)


class RecognizeAnything(nn.Module):
    """Image tokens and the logits of all tags."""

    def __init__(self, size: Size = FULL) -> None:
        super().__init__()
        self.image_px = size.image_px
        self.encoder = SwinTransformer(
            [4, 4], size.embed, list(size.depths), list(size.heads), [size.window] * 2, stochastic_depth_prob=0.0
        )
        self.encoder.head = nn.Identity()
        self.project = nn.Linear(size.embed * 8, TOKEN_WIDTH)
        self.queries = nn.Parameter(torch.zeros(size.tags, TOKEN_WIDTH))
        self.query_project = nn.Linear(TOKEN_WIDTH, size.hidden)
        self.layers = nn.ModuleList(Layer(size) for _ in range(2))
        self.logit = nn.Linear(size.hidden, 1)

    def tokens(self, rgb: torch.Tensor) -> torch.Tensor:
        """float (N, 3, h, w) in [0, 1] to (N, 145, 512): the mean of all places, then the places."""
        # Not antialiased: so resized torchvision's tensors in the versions that the original fixes.
        rgb = F.interpolate(rgb, (self.image_px, self.image_px), mode="bilinear", align_corners=False)
        mean, deviation = (
            torch.tensor(v, device=rgb.device, dtype=rgb.dtype)[:, None, None] for v in (_MEAN, _DEVIATION)
        )
        places = self.encoder.norm(self.encoder.features((rgb - mean) / deviation)).flatten(1, 2)
        return self.project(torch.cat([places.mean(dim=1, keepdim=True), places], dim=1))

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """(N, 145, 512) to the logits (N, tags)."""
        x = F.relu(self.query_project(self.queries))[None].expand(len(tokens), -1, -1)
        for layer in self.layers:
            x = layer(x, tokens)
        return self.logit(x).squeeze(-1)


class Tagger(PromptProvider):
    """RAM as a provider of tags; images go through one by one."""

    def __init__(self, net: RecognizeAnything, words: list[str], thresholds: npt.NDArray[np.float32]) -> None:
        self.net, self.words = net, words
        self.thresholds = thresholds

    def tags(self, image_id: str, lr: npt.NDArray[np.uint8]) -> Tags:
        weight = self.net.project.weight
        rgb = torch.from_numpy(lr.copy()).permute(2, 0, 1)[None].to(weight.device, torch.float32) / 255
        with torch.no_grad():
            tokens = self.net.tokens(rgb.to(weight.dtype))
            probability = torch.sigmoid(self.net.logits(tokens).float())[0].cpu().numpy()
        found = [w for w, p, least in zip(self.words, probability, self.thresholds, strict=True) if p > least]
        return Tags(", ".join(found), tokens[0].float().cpu().numpy())


def read_words(words: Path, thresholds: Path, count: int = FULL.tags) -> tuple[list[str], npt.NDArray[np.float32]]:
    """The tags and their thresholds from the two published text files, one a line."""
    try:
        found = words.read_text(encoding="utf-8").splitlines()
        limits = np.array([float(line) for line in thresholds.read_text(encoding="utf-8").split()], np.float32)
    except ValueError as error:
        raise RfbenchError(
            f"{words.name}, {thresholds.name}: {error}; expected a tag and a number on each line"
        ) from None
    if len(found) != count or len(limits) != count:
        raise RfbenchError(
            f"{words.name}, {thresholds.name}: found {len(found)} tags and {len(limits)} thresholds, "
            f"expected {count} of each"
        )
    return found, limits


def from_published(
    net: nn.Module, ram: Mapping[str, torch.Tensor], dape: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """RAM's published tensors with DAPE's updates added in, under the names of ``net``, a ``RecognizeAnything``.

    RAM's file also holds a captioner and tables that are computed here, which are left out. Nothing else is: a name
    that is not known stays, so that a check against the network finds it.

    Raises
    ------
    RfbenchError
        For an update that is missing or fits no weight.
    """
    updated = _updated({k: v.float() for k, v in ram.items() if _is_tagger_s(k)}, dape)
    computed = {k: v for k, v in net.state_dict().items() if k.endswith(_INDEX)}
    return {_renamed(name): tensor for name, tensor in updated.items()} | computed


def _is_tagger_s(name: str) -> bool:
    captioner = name.startswith(("text_decoder.", "tag_encoder.", "tagging_head.embeddings."))
    computed = name.endswith(("relative_position_index", "attn_mask", "position_ids"))
    selves = ".attention." in name and name.startswith("tagging_head.")  # self-attention, which the tagger has not
    return not (captioner or computed or selves)


def _updated(ram: dict[str, torch.Tensor], dape: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    targets = [n for n in ram if re.search(r"\.attn\.qkv\.weight$|\.crossattention\.self\.(query|key)\.weight$", n)]
    for name in targets:
        base = name.removesuffix("weight")
        if f"{base}lora_A" not in dape:
            raise RfbenchError(f"DAPE: found no {base}lora_A, expected an update for {name}; get DAPE's file")
        # The original shares these weights with its captioner, whose own updates are added to them as well.
        for each in (base, base.replace("tagging_head.", "tag_encoder.")) if "tagging_head." in base else (base,):
            if f"{each}lora_A" in dape:
                ram[name] = ram[name] + _update(each, dape, ram[name].shape)
    return ram


def _update(base: str, dape: Mapping[str, torch.Tensor], shape: torch.Size) -> torch.Tensor:
    """What a pair of low-rank factors adds to a weight; of a merged query, key and value, to the first and the last."""
    down, up = (dape.get(base + k, torch.empty(0)).float() for k in ("lora_A", "lora_B"))
    groups = 2 if base.endswith(".qkv.") else 1
    inner, outer = shape[1], shape[0] // 3 * 2 if groups == 2 else shape[0]
    if down.shape != (RANK * groups, inner) or up.shape != (outer, RANK):
        found = " and ".join("x".join(map(str, t.shape)) for t in (down, up))
        raise RfbenchError(f"DAPE: found factors of {found} for {base}weight, expected rank {RANK}; get DAPE's file")
    parts = [b @ a / RANK for a, b in zip(down.chunk(groups), up.chunk(groups), strict=True)]
    return parts[0] if groups == 1 else torch.cat([parts[0], torch.zeros_like(parts[0]), parts[1]])


def _renamed(name: str) -> str:
    if name.startswith("visual_encoder."):
        for pattern, replacement in _ENCODER.items():
            name = re.sub(pattern, replacement, name)
        # torchvision counts stages and the steps between them in one list, behind the patches.
        name = re.sub(r"layers\.(\d+)\.blocks\.", lambda m: f"features.{2 * int(m[1]) + 1}.", name)
        return re.sub(r"layers\.(\d+)\.downsample\.", lambda m: f"features.{2 * int(m[1]) + 2}.", name)
    for theirs, mine in _DECODER.items():
        if name.startswith(theirs):
            return mine + name.removeprefix(theirs)
    return name


_ENCODER = {
    r"^visual_encoder\.": "encoder.", r"patch_embed\.proj\.": "features.0.0.", r"patch_embed\.norm\.": "features.0.2.",
    r"\.mlp\.fc1\.": ".mlp.0.", r"\.mlp\.fc2\.": ".mlp.3.",
}  # fmt: skip
_DECODER = {"image_proj.": "project.", "label_embed": "queries", "wordvec_proj.": "query_project.", "fc.": "logit."} | {
    f"tagging_head.encoder.layer.{i}.{theirs}": f"layers.{i}.{mine}"
    for i in range(2)
    for theirs, mine in {
        "crossattention.self.": "attention.", "crossattention.output.dense.": "attention.dense.",
        "crossattention.output.LayerNorm.": "attention.norm.", "intermediate.dense.": "up.", "output.dense.": "down.",
        "output.LayerNorm.": "norm.",
    }.items()
}  # fmt: skip

assert 1 + (FULL.image_px // 32) ** 2 == TOKENS
