"""Captions as embeddings for training and sampling: a word table that is part of the model, or SD3's stored ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from rareflow.text import CaptionStore, Encode, WordTable


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

    def get(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self.store.get(captions, self.encode)

    def prepare(self, captions: Iterable[str]) -> None:
        self.store.fill(captions, self.encode)
