"""A small model, a cache of chips and one small training, for all tests that only read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rareflow.model import RareFlow
    from rareflow.train.cache import Cache


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of ``train_small()``: each stage in four or five steps. To be read, not changed."""
    from tests.small_rareflow import train_small

    out = tmp_path_factory.mktemp("trained") / "small"
    train_small(out)
    return out


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch with one thread, since networks of this size only wait for a second one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> RareFlow:
    """Random weights; not to be trained."""
    from tests.small_rareflow import small_model

    return small_model()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, model: RareFlow) -> Cache:
    """Six chips of three sizes."""
    from tests.small_rareflow import SIZES, make_cache, small_data

    return make_cache(tmp_path_factory.mktemp("cache"), small_data(6, SIZES).train, model.codec)
