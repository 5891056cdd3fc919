"""A vision-language model of some thousand random weights, as a folder that transformers reads."""

from __future__ import annotations

from pathlib import Path

WORDS = (
    *("a", "pale", "brown", "thaw", "slump", "scar", "opens", "in", "green", "tundra", "above", "dark", "lake"),
    *("with", "mossy", "slope", "and", "grey", "debris", "tongue", "near", "stream"),
)
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %} {% endfor %}"
)


def write_vlm(folder: Path) -> Path:
    """A LLaVA of one layer that knows twenty words; what it says depends on the picture."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<image>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    pictures = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        pictures, tokenizer, patch_size=14, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )  # fmt: skip
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "initializer_range": 1.0}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**shape, num_hidden_layers=2, image_size=28, patch_size=14, projection_dim=16),
        text_config=LlamaConfig(**shape, vocab_size=len(vocabulary), num_hidden_layers=1, num_key_value_heads=2,
                                max_position_embeddings=2048, pad_token_id=0, eos_token_id=1, bos_token_id=1),
        image_token_index=2, vision_feature_layer=-1, image_seq_length=4,
    )  # fmt: skip
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
