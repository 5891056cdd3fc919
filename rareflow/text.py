"""Captions as vectors: the tiny model's word table, SD3's three encoders, and a store of what these computed."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import secrets
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from rareflow import base
from rareflow.errors import RareflowError

Embedding = tuple[Tensor, Tensor]  # tokens (n, joint_dim) and pooled (pooled_dim)
Encode = Callable[[list[str]], Iterable[Embedding]]

# Articles, conjunctions, prepositions, forms of "be": left out, so that the words that say more fit into the positions
_STOP_WORDS = (
    "a an the this that these those its it some there which where while and or but is are was were be been being has "
    "have had as with without of in into on onto at to from for by near beside between along above below over under up "
    "down"
)
_STOP = frozenset(_STOP_WORDS.split())
# One under which the words of the procedural scenes' and of the template captions share none of 512 rows
_SALT = b"342"
_ONE_A_LETTER = ("CJK", "HIRAGANA", "KATAKANA")  # scripts that put no space between words


def words(caption: str) -> list[str]:
    """The words of a caption in any script: lower case, NFKC, without stop words, each once, in order.

    A word is a run of letters, marks and digits, with hyphens inside it ("bowl-shaped" is one word). Chinese and
    Japanese, which are written without spaces, give a word a letter.
    """
    text = unicodedata.normalize("NFKC", caption).lower()
    pieces = []
    for c in text:
        if unicodedata.category(c)[0] not in "LMN":
            pieces.append("-" if c in "-\u2010\u2011" else " ")
        elif c > "\u2e7f" and unicodedata.name(c, "").startswith(_ONE_A_LETTER):
            pieces.append(f" {c} ")
        else:
            pieces.append(c)
    found = (word.strip("-") for word in "".join(pieces).split())
    return list(dict.fromkeys(word for word in found if word and word not in _STOP))


class WordTable(nn.Module):
    """Text for a small model: a learned row a word, words shared out over ``buckets`` rows by a hash.

    Row 0 is the padding, learned like the others, since SD3's attention has no mask. The first ``positions`` words
    of a caption are kept (see ``words``); two words of one bucket are one word to the model.
    """

    def __init__(self, buckets: int = 512, positions: int = 16, width: int = 64) -> None:
        super().__init__()
        self.buckets, self.positions, self.width = buckets, positions, width
        self.rows = nn.Parameter(torch.randn(buckets + 1, width))
        self.places = nn.Parameter(0.1 * torch.randn(positions, width))

    def ids(self, captions: Sequence[str]) -> Tensor:
        """Row numbers, int64 (B, positions) on the table's device: 1 to ``buckets``, then 0 for padding."""
        table = torch.zeros(len(captions), self.positions, dtype=torch.long)
        for row, caption in zip(table, captions, strict=True):
            for i, word in enumerate(words(caption)[: self.positions]):
                # not Python's hash(), which differs from one process to the next
                digest = hashlib.blake2b(word.encode(), digest_size=8, salt=_SALT).digest()
                row[i] = 1 + int.from_bytes(digest, "little") % self.buckets
        return table.to(self.rows.device)

    def forward(self, ids: Tensor) -> Embedding:
        """Tokens (B, positions, width) with positions added, and pooled (B, width), of ``ids`` (B, positions).

        Pooled is the mean of the words' rows, without positions; the padding row for a caption without words.
        """
        found = nn.functional.embedding(ids, self.rows)
        there = (ids > 0).to(found.dtype)[..., None]
        count = there.sum(1)
        pooled = torch.where(count > 0, (found * there).sum(1) / count.clamp(min=1), self.rows[0])
        return found + self.places, pooled


class Sd3Text:
    """The text encoders of a diffusers SD3 folder: two CLIP towers and, where the folder has it, T5.

    ``encode`` gives what diffusers' ``StableDiffusion3Pipeline.encode_prompt`` gives for the same caption three times.
    """

    def __init__(self, towers: list[tuple[Any, Any]], joint_dim: int, device: torch.device) -> None:
        self._towers: list[tuple[Any, Any]] | None = towers
        self._joint_dim, self._device = joint_dim, device

    @classmethod
    def open(
        cls, folder: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> Sd3Text:
        """Load the encoders and tokenizers; RareflowError naming the part that is missing or damaged."""
        folder = Path(folder)
        towers = []
        for part in (p for p in base.text_parts(folder) if p.startswith("text_encoder")):
            tokenizer = _tokenizer(folder / part.replace("text_encoder", "tokenizer"))
            encoder = _encoder(folder / part, dtype)
            if len(tokenizer) > encoder.config.vocab_size:
                raise RareflowError(
                    f"{folder / part}: found {encoder.config.vocab_size} rows for the {len(tokenizer)} words of its "
                    "tokenizer, expected one each; get the folder whole"
                )
            towers.append((tokenizer, encoder.to(device)))
        transformer = base.read_json(folder / "transformer" / "config.json")
        joint_dim, pooled_dim = transformer.get("joint_attention_dim"), transformer.get("pooled_projection_dim")
        configs = [encoder.config for _, encoder in towers]
        pooled = sum(config.projection_dim for config in configs[:2])
        if (
            pooled != pooled_dim
            or not isinstance(joint_dim, int)
            or sum(config.hidden_size for config in configs[:2]) > joint_dim
            or any(config.d_model != joint_dim for config in configs[2:])
        ):
            raise RareflowError(
                f"{folder}: found text encoders of other widths than its transformer's joint_attention_dim {joint_dim} "
                f"and pooled_projection_dim {pooled_dim}; get the folder whole"
            )
        return cls(towers, joint_dim, torch.device(device))

    @torch.no_grad()
    def encode(self, captions: Sequence[str], max_t5_tokens: int = 256) -> Iterator[Embedding]:
        """One (tokens (n, joint_dim), pooled (pooled_dim)) a caption, on the CPU, in the encoders' dtype.

        n is CLIP's 77 and ``max_t5_tokens``. Captions are encoded one by one, so that an embedding does not depend on
        its neighbours in a batch. Longer captions are cut, each encoder at its own length. Without T5 its part is zero.
        """
        if self._towers is None:
            raise RuntimeError("these text encoders were closed")
        for caption in captions:
            # a lone surrogate, as a damaged command line or JSON may hold, is no text to a tokenizer
            clean = caption.encode("utf-8", "replace").decode()
            yield self._encode(clean, max_t5_tokens)

    def close(self) -> None:
        """Free the encoders' memory; ``encode`` is then over. Closing again does nothing."""
        if self._towers is None:
            return
        self._towers = None
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def __enter__(self) -> Sd3Text:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _encode(self, caption: str, max_t5_tokens: int) -> Embedding:
        assert self._towers is not None
        clip, t5 = self._towers[:2], self._towers[2:]
        length = min([clip[0][0].model_max_length, *(encoder.config.max_position_embeddings for _, encoder in clip)])
        hidden, pooled = [], []
        for tokenizer, encoder in clip:
            out = encoder(self._ids(tokenizer, caption, length), output_hidden_states=True)
            pooled.append(out[0])  # the projection
            hidden.append(out.hidden_states[-2].to(encoder.dtype))
        tokens = torch.cat(hidden, dim=-1)
        tokens = nn.functional.pad(tokens, (0, self._joint_dim - tokens.shape[-1]))
        for tokenizer, encoder in t5:
            long = encoder(self._ids(tokenizer, caption, max_t5_tokens))[0].to(encoder.dtype)
        if not t5:
            long = tokens.new_zeros(1, max_t5_tokens, self._joint_dim)
        return torch.cat([tokens, long], dim=-2)[0].cpu(), torch.cat(pooled, dim=-1)[0].cpu()

    def _ids(self, tokenizer: Any, caption: str, length: int) -> Tensor:
        found = tokenizer([caption], padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return found.input_ids.to(self._device)


def sd3_encoder(
    folder: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    max_t5_tokens: int = 256,
) -> Encode:
    """What ``CaptionStore`` calls for captions it lacks: opens the encoders, encodes, and frees them."""

    def encode(captions: list[str]) -> Iterator[Embedding]:
        with Sd3Text.open(folder, device, dtype) as text:
            yield from text.encode(captions, max_t5_tokens)

    return encode


class CaptionStore:
    """Embeddings of captions on disk, one safetensors file a caption, computed once.

    A file's name is the SHA-256 of (``identity`` of the encoders, ``max_tokens``, caption), so a store may be shared
    by several bases and processes: files appear whole, and a second process writes the same again. All token rows are
    kept, 2.7 MB a caption with SD3's 333: the encoders run without a mask, so that the rows of padding differ from
    one caption to the next. Values are float16, rounded before they are first used: the first run sees what later
    ones see.
    """

    def __init__(self, folder: str | Path, identity: str, max_tokens: int = 256) -> None:
        self.folder, self.identity, self.max_tokens = Path(folder), identity, max_tokens

    def get(self, captions: Sequence[str], encode: Encode) -> Embedding:
        """Tokens (B, n, joint_dim) and pooled (B, pooled_dim), float16 on the CPU, of B captions, at least one.

        ``encode`` is called only if something is missing, once, with all missing captions, and may yield as it goes.
        """
        found = dict(self._each(captions, encode))
        tokens, pooled = zip(*(found[caption] for caption in captions), strict=True)
        with torch.autocast("cpu", enabled=False):  # which refuses float16 where its own dtype is bfloat16
            return torch.stack(tokens), torch.stack(pooled)

    def fill(self, captions: Iterable[str], encode: Encode) -> None:
        """Compute what is missing, holding one embedding in memory at a time."""
        for _ in self._each(captions, encode):
            pass

    def _each(self, captions: Iterable[str], encode: Encode) -> Iterator[tuple[str, Embedding]]:
        """Every distinct caption once: those at hand, then those that had to be computed, stored as they come."""
        missing = []
        for caption in dict.fromkeys(captions):
            value = self._read(self._path(caption))
            if value is None:
                missing.append(caption)
            else:
                yield caption, value
        if missing:
            for caption, value in zip(missing, encode(missing), strict=True):
                yield caption, self._write(caption, value)

    def _path(self, caption: str) -> Path:
        text = json.dumps([self.identity, self.max_tokens, caption])
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"

    def _read(self, path: Path) -> Embedding | None:
        """A stored embedding; None where it is missing or damaged, whatever the damage."""
        try:
            with safe_open(path, "pt") as file:
                value = file.get_tensor("tokens"), file.get_tensor("pooled")
                return value if file.metadata()["sha256"] == _checksum(value) else None
        except Exception:  # no file, or a damaged one, which may fail anywhere in its parser
            return None

    def _write(self, caption: str, value: Embedding) -> Embedding:
        tokens, pooled = (x.to(torch.float16).contiguous() for x in value)
        if not (tokens.isfinite().all() and pooled.isfinite().all()):
            raise RareflowError(
                f"caption {caption[:60]!r}: its embedding is not finite or beyond float16; run the encoders in "
                "bfloat16 or float32, and check their weights"
            )
        path = self._path(caption)
        content = serialise({"tokens": tokens, "pooled": pooled}, {"sha256": _checksum((tokens, pooled))})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
            try:
                temporary.write_bytes(content)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise RareflowError(
                f"{self.folder}: cannot keep captions there ({base.one_line(error)}); give a folder that can be written"
            ) from None
        return tokens, pooled


def _checksum(value: Embedding) -> str:
    return hashlib.sha256(b"".join(x.numpy().tobytes() for x in value)).hexdigest()


def _tokenizer(part: Path) -> Any:
    import transformers

    kind = "T5TokenizerFast" if part.name == "tokenizer_3" else "CLIPTokenizer"
    try:
        return getattr(transformers, kind).from_pretrained(part, local_files_only=True)
    except Exception as error:  # every tokenizer has errors of its own for a damaged vocabulary
        raise RareflowError(f"{part}: no {kind} ({base.one_line(error)}); get the folder again") from None


def _encoder(part: Path, dtype: torch.dtype) -> Any:
    import transformers

    kind = "T5EncoderModel" if part.name == "text_encoder_3" else "CLIPTextModelWithProjection"
    try:
        model, info = getattr(transformers, kind).from_pretrained(
            part,
            torch_dtype=dtype,
            variant=base.weight_files(part)[0],
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except RareflowError:
        raise
    except Exception as error:  # transformers, safetensors and torch each have errors of their own
        raise RareflowError(f"{part}: the weights do not load ({base.one_line(error)}); get the folder again") from None
    base.check_loaded(part, info)
    return model.eval().requires_grad_(False)
