"""Builds a folder of SD3-medium's very layout, tiny and random, so that its code paths run without its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

WORDS = ("thaw", "slump", "tundra", "lake", "green", "a", "the", "pale", "snow", "ice")
START, END = "<|startoftext|>", "<|endoftext|>"


def make_sd3_folder(path: Path, *, seed: int = 0, layers: int = 2, qk_norm: str | None = None, t5: bool = True) -> Path:
    """Write ``path`` as ``StableDiffusion3Pipeline.save_pretrained`` would, under 1 MB; the same bytes for one seed.

    ``qk_norm`` ("rms_norm") and dual attention in block 0 make it an SD3.5; ``t5`` False leaves T5 out, as the
    pipeline's optional ``text_encoder_3=None`` does.
    """
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
        T5Config,
        T5EncoderModel,
        T5TokenizerFast,
    )

    path.mkdir(parents=True, exist_ok=True)
    clip_words = _clip_tokenizer(path / "tokenizer", pad=END)
    _clip_tokenizer(path / "tokenizer_2", pad="!")
    t5_words = _t5_tokenizer(path / "tokenizer_3") if t5 else 0

    def clip(hidden: int) -> CLIPTextModelWithProjection:
        # eos_token_id 2 is what SD3's configurations say: the pooled row is then that of the highest id
        config = CLIPTextConfig(
            vocab_size=clip_words, hidden_size=hidden, intermediate_size=2 * hidden, projection_dim=32,
            num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=77, bos_token_id=0, eos_token_id=2,
            pad_token_id=1,
        )  # fmt: skip
        return CLIPTextModelWithProjection(config)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules: dict[str, Any] = {
            "transformer": SD3Transformer2DModel(
                sample_size=32, patch_size=2, in_channels=16, out_channels=16, num_layers=layers,
                attention_head_dim=16, num_attention_heads=2, joint_attention_dim=64, caption_projection_dim=32,
                pooled_projection_dim=64, pos_embed_max_size=32, qk_norm=qk_norm,
                dual_attention_layers=(0,) if qk_norm else (),
            ),
            "vae": AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=(8, 8, 16, 16), layers_per_block=1, latent_channels=16, norm_num_groups=4,
                sample_size=64, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False,
                use_post_quant_conv=False,
            ),
            "text_encoder": clip(24),
            "text_encoder_2": clip(32),
            "text_encoder_3": T5EncoderModel(
                T5Config(vocab_size=t5_words, d_model=64, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
                         feed_forward_proj="gated-gelu")
            ) if t5 else None,
        }  # fmt: skip
    tokenizers = {
        "tokenizer": CLIPTokenizer.from_pretrained(path / "tokenizer"),
        "tokenizer_2": CLIPTokenizer.from_pretrained(path / "tokenizer_2"),
        "tokenizer_3": T5TokenizerFast.from_pretrained(path / "tokenizer_3") if t5 else None,
    }
    halves = {name: module.half() if module is not None else None for name, module in modules.items()}
    pipeline = StableDiffusion3Pipeline(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **halves, **tokenizers)
    pipeline.save_pretrained(path)
    # SD3's folders hold the tokenizers' older files, without the tokenizer.json that new versions write for CLIP
    for name, pad in (("tokenizer", END), ("tokenizer_2", "!")):
        shutil.rmtree(path / name)
        _clip_tokenizer(path / name, pad=pad)
    if t5:
        shutil.rmtree(path / "tokenizer_3")
        _t5_tokenizer(path / "tokenizer_3")
    return path


def _clip_tokenizer(folder: Path, *, pad: str) -> int:
    """Byte-level BPE with a few merges, in the files of SD3's ``tokenizer``; the size of the vocabulary."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    vocabulary = [*letters, *(f"{c}</w>" for c in letters)]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.append("".join(pair))
            pieces[:2] = ["".join(pair)]
    vocabulary = [*dict.fromkeys(vocabulary), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "vocab.json", {token: i for i, token in enumerate(vocabulary)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "pad_token": pad, "unk_token": END}
    _write(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "add_prefix_space": False}
    _write(folder / "tokenizer_config.json", special | settings)
    return len(vocabulary)


def _t5_tokenizer(folder: Path) -> int:
    """A unigram model of letters and a few words, in the files of SD3's ``tokenizer_3``; its vocabulary's size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,-'"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(c, -5.0) for c in letters] + [(f"▁{word}", -3.0) for word in WORDS]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    _write(folder / "special_tokens_map.json", special)
    settings = {"tokenizer_class": "T5Tokenizer", "model_max_length": 512, "extra_ids": 0,
                "additional_special_tokens": []}  # fmt: skip
    _write(folder / "tokenizer_config.json", special | settings)
    return len(pieces)


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
