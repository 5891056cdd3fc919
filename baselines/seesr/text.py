"""Stable Diffusion 2's text encoder: CLIP's ViT-H text tower up to its last but one layer, and its tokens."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

LENGTH = 77  # tokens of a text, padded or cut
WORDS = 49408  # of CLIP's vocabulary
BYTES = 258  # and of that which random weights have: the bytes, a start and an end
_PAD, _START, _END = "!", "<|startoftext|>", "<|endoftext|>"

Tokenize = Callable[[str], list[int]]


def build_text_encoder(width: int = 1024, words: int = WORDS) -> Any:
    """The encoder of the published ``width`` and number of tokens ``words``; of another width, one of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel

    full = width == 1024
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=words, hidden_size=width, intermediate_size=4 * width,
            num_hidden_layers=23 if full else 2, num_attention_heads=16 if full else 2, hidden_act="gelu",
            max_position_embeddings=LENGTH, projection_dim=512, bos_token_id=0, eos_token_id=2, pad_token_id=1,
        )
    )  # fmt: skip


def from_published(net: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Published tensors under the names of this version of transformers, which come with and without a prefix.

    Older files also hold the numbers of the positions, which are no weights.
    """
    prefix = "text_model."
    keeps = next(iter(net.state_dict())).startswith(prefix)
    bare = {k.removeprefix(prefix): v for k, v in tensors.items() if not k.endswith("embeddings.position_ids")}
    return {prefix + k if keeps else k: v for k, v in bare.items()}


def clip_tokenizer(vocabulary: Path, merges: Path) -> Tokenize:
    """CLIP's tokenizer from its two files. Stable Diffusion 2 fills up with "!", not with the end token."""
    from transformers import CLIPTokenizer

    with tempfile.TemporaryDirectory() as name:
        shutil.copy(vocabulary, Path(name) / "vocab.json")
        shutil.copy(merges, Path(name) / "merges.txt")
        tokenizer = CLIPTokenizer.from_pretrained(
            name, pad_token=_PAD, bos_token=_START, eos_token=_END, unk_token=_END, model_max_length=LENGTH
        )
    return lambda text: tokenizer(text, padding="max_length", max_length=LENGTH, truncation=True).input_ids


def byte_tokenizer(text: str) -> list[int]:
    """Tokens for random weights, which have no vocabulary: the text's bytes between a start and an end."""
    tokens = [256, *text.encode()[: LENGTH - 2], 257]
    return tokens + [0] * (LENGTH - len(tokens))


def embed(net: Any, tokenize: Tokenize, text: str) -> torch.Tensor:
    """The embedding of a text, float (1, 77, width), of the text alone (no padding of a batch)."""
    ids = torch.tensor([tokenize(text)], device=net.device)
    with torch.no_grad():
        return net(ids).last_hidden_state
