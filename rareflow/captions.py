"""Captions as embeddings for training and sampling: a word table that is part of the model, or SD3's stored ones."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rareflow.base import CheckedBase
from rareflow.errors import RareflowError
from rareflow.text import CaptionStore, Encode, WordTable, sd3_encoder


class Captions(ABC):
    """What turns captions into (tokens (B, n, d), pooled (B, p))."""

    @abstractmethod
    def get(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The embeddings of some captions."""

    def prepare(self, captions: Iterable[str]) -> None:
        """Compute what will be asked for, at once, and free what computed it."""


class TableCaptions(Captions):
    """The small model's table; any caption costs nothing."""

    def __init__(self, table: WordTable) -> None:
        self.table = table

    def get(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            tokens, pooled = self.table(self.table.ids(captions))
        return tokens, pooled


class StoredCaptions(Captions):
    """SD3's embeddings: computed once by its three encoders, then read from a folder; the encoders are freed."""

    def __init__(self, store: CaptionStore, encode: Encode) -> None:
        self.store, self.encode = store, encode

    @classmethod
    def of(
        cls, base: CheckedBase, max_t5_tokens: int, device: torch.device, folder: str | Path | None = None
    ) -> StoredCaptions:
        """The captions of a base that was checked with its text encoders, kept in ``folder`` (see ``caption_folder``).

        The encoders run in bfloat16 whatever the arithmetic of the model: what is kept must not depend on who came
        first, and T5 then fits beside the transformer.
        """
        assert base.text_folder is not None
        encode = sd3_encoder(base.text_folder, device, torch.bfloat16, max_t5_tokens)
        return cls(CaptionStore(caption_folder(folder), base.identity["text"], max_t5_tokens), encode)

    def get(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self.store.get(captions, self.encode)

    def prepare(self, captions: Iterable[str]) -> None:
        self.store.fill(captions, self.encode)


def caption_folder(given: str | Path | None = None) -> Path:
    """Where SD3's embeddings are kept: the folder given, that of RFBENCH_CAPTIONS, or ~/.cache/rfbench/captions.

    RareflowError on a machine that knows of no home folder (a container's user without HOME).
    """
    named = given or os.environ.get("RFBENCH_CAPTIONS")
    if named:
        return Path(named)
    with contextlib.suppress(RuntimeError, KeyError):
        home = Path.home()
        if home.is_absolute():
            return home / ".cache" / "rfbench" / "captions"
    raise RareflowError("there is no home folder to keep captions in; set RFBENCH_CAPTIONS to a folder, or HOME")
