"""Randomness by name: a stream belongs to a seed and what it is for, never to a batch or a counter."""

from __future__ import annotations

import hashlib

import torch


def stream(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """The generator that belongs to (seed, names): the same numbers whatever else was drawn before.

    A GPU's numbers are others than a processor's; what is to be the same on both is drawn on the processor.
    """
    text = "\x1f".join(map(str, (seed, *names))).encode()
    value = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1
    return torch.Generator(device).manual_seed(value)


def normal(seeds: list[int], shape: tuple[int, ...], *names: object) -> torch.Tensor:
    """Standard normal noise, float32 (len(seeds), *shape), each row from its own seed's stream."""
    return torch.stack([torch.randn(shape, generator=stream(s, *names)) for s in seeds])
