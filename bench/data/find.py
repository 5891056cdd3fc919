"""Datasets by name or folder."""

from __future__ import annotations

import os
from pathlib import Path

from bench.core import registry
from bench.core.contain import contained
from bench.core.errors import RfbenchError
from bench.data.dataset import Dataset, FolderDataset


def resolve_dataset(text: str) -> Dataset:
    """A registered name, or a dataset folder (``./scenes`` is a folder, ``scenes`` the embedded benchmark)."""
    registered = text in registry.points("datasets")
    if not registered and os.path.exists(text):  # noqa: PTH110 - False for a name that no file can have
        return FolderDataset(Path(text))
    if not registered and ("/" in text or "." in text):
        raise RfbenchError(f"--data: {text} does not exist; give a dataset folder or a name of 'rfbench ls datasets'")
    with contained(f"dataset {text}"):
        found = registry.load("datasets", text)()
    if not isinstance(found, Dataset):
        raise RfbenchError(
            f"the dataset '{text}' gives a {type(found).__name__}, expected a bench.data.dataset.Dataset"
        )
    return found
