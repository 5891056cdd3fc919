"""Files of a seed damaged, each as its kind asks for."""

from __future__ import annotations

import pickle
import random
import struct
from pathlib import Path

from tests.fuzz import formats, mutate, seeds
from tests.fuzz.case import Link


def damage(rng: random.Random, seed: str, *, least: int = 1) -> dict[str, bytes | Link | None]:
    """One to three files of a seed damaged, each as its kind asks for."""
    files = seeds.tree(seed)
    changed: dict[str, bytes | Link | None] = {}
    for _ in range(rng.choice((least, 1, 1, 2, 3))):
        name = rng.choice(sorted(files))
        before = changed.get(name)
        again = isinstance(before, bytes) and not name.endswith(".pkl")  # only a pickle of our own is ever opened
        changed[name] = damaged_file(rng, name, before if again and isinstance(before, bytes) else files[name])
    return changed


def damaged_file(rng: random.Random, name: str, data: bytes) -> bytes | Link | None:
    roll = rng.random()
    if roll < 0.02:
        return None
    if roll < 0.05:
        return Link(
            rng.choice(
                (
                    "/etc/passwd",
                    "/dev/zero",
                    "/dev/stdin",
                    "..",
                    name.rpartition("/")[2],
                    "../../../../tmp",
                    "missing",
                    "/proc/self/mem",
                )
            )
        )
    ending = Path(name).suffix
    try:
        if ending == ".json":
            return mutate.document(rng, data)
        if ending == ".csv":
            return mutate.table(rng, data)
        if ending == ".pkl":
            return _pickled(rng, data)
        if ending == ".safetensors":
            return _safetensors(rng, data)
    except (ValueError, RecursionError, IndexError):  # damaged before: no document any more
        return mutate.damaged(rng, data)
    if ending in formats.seeds() and rng.random() < 0.5:
        return formats.image(rng, ending)[1]
    return mutate.damaged(rng, data)


_HOSTILE_PICKLES = (
    b"cos\nsystem\n(S'touch fuzzed'\ntR.",
    b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    b"cbuiltins\neval\n(S'1'\ntR.",
    b"\x80\x04}r\xff\xff\xff\xff.",
    b"\x80\x04\x8d" + struct.pack("<Q", 2**62),
    b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1),
    b"(" * 100_000 + b".",
    b"]" * 1000 + b"a" * 999 + b".",
    b"\x80\x04.",
    b"\x80\x04P0\n.",
    b"\x80\x05\x96" + struct.pack("<Q", 2**40),
    b"\x80\x04\x95" + struct.pack("<Q", 2**50),
    b"cnumpy\ndtype\n(S'O8'\ntR.",
    b"c__builtin__\nbytearray\n(I9999999999\ntR.",
    b"\x80\x02c__builtin__\nobject\n.",
    b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93)R.",
    b"I" + b"9" * 5000 + b"\n.",
    b"}(]]u.",
    b"\x80\x04](h\0e.",
)


def _pickled(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.3:
        return rng.choice(_HOSTILE_PICKLES)
    if rng.random() < 0.3:
        content = pickle.loads(data)  # our own seed
        key = rng.choice(sorted(content))
        content[rng.choice((key, mutate.text(rng)))] = rng.choice(
            (None, {}, content[key], mutate.anything(rng), b"x" * 9)
        )
        return pickle.dumps(content, protocol=rng.choice((0, 2, 4, 5)))
    return mutate.damaged(rng, data)


def _safetensors(rng: random.Random, data: bytes) -> bytes:
    """A safetensors file with its header changed (its length right or wrong), or its bytes."""
    size = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else 0
    if rng.random() < 0.4 or not 0 < size < len(data):
        return mutate.damaged(rng, data)
    head = mutate.document(rng, data[8 : 8 + size].rstrip())
    length = len(head) if rng.random() < 0.9 else rng.choice((0, 2**63, 2**64 - 1, 10**9))
    return struct.pack("<Q", length) + head + data[8 + size :]
