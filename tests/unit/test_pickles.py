"""Pickles that are made to be slow, large or fatal are one line, soon; what people pickle is read."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.core import pickles
from bench.core.errors import RfbenchError
from bench.core.pickles import DryRun
from bench.data.pickled import load_arrays
from bench.models import read_state

DEEP = 200_000


def deep_key() -> bytes:
    """A dict with a tuple within a tuple within ... as its key."""
    return b"\x80\x02}" + b")" + b"\x85" * DEEP + b"K\x01s."


def colliding() -> bytes:
    """60,000 whole numbers of one hash as keys."""
    keys = b"".join(b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little") + b"N" for k in range(1, 60_001))
    return b"\x80\x02}(" + keys + b"u."


HOSTILE = {
    "a deep tuple as a key": deep_key(),
    "a deep tuple in a set": b"\x80\x04\x8f(" + b")" + b"\x85" * DEEP + b"\x90.",
    "a deep tuple in a frozen set": b"\x80\x04(" + b")" + b"\x85" * DEEP + b"\x91.",
    "a deep tuple in a dict of text form": b"(" + b")" + b"\x85" * DEEP + b"Nd.",
    "numbers that collide": colliding(),
    "small numbers as keys": b"\x80\x02}(" + b"".join(struct.pack("<ciB", b"J", k, 78) for k in range(20_000)) + b"u.",
    "open brackets": b"\x80\x02" + b"(" * 1_000_000,
    "operations": b"\x80\x02" + b"N0" * 2_000_000 + b".",
    "a memory of four billion places": b"\x80\x02}r\xff\xff\xff\xff(X\x01\0\0\0aK\x01u(.",
    "bytes that are not there": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.",
    "a text that is not there": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "a frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"x.",
    "a name that is none of ours": b"cos\nsystem\n.",
}  # fmt: skip


READ = """
import resource, sys, time
from pathlib import Path
from bench.core.errors import RfbenchError
from bench.data.pickled import load_arrays
read = load_arrays
if sys.argv[1] == "checkpoints":
    from bench.models import read_state as read
    import torch
else:
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
for path in map(Path, sys.argv[2:]):
    began = time.process_time()
    try:
        read(path)
    except RfbenchError as error:
        print(f"{time.process_time() - began:.1f} {error}", flush=True)
    else:
        print(f"{path} was read", flush=True)
"""


def told(kind: str, paths: list[Path]) -> list[str]:
    """What a process says of each file; each takes less than 10 s of it."""
    words = [sys.executable, "-c", READ, kind, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == len(paths), (done.returncode, lines, done.stderr[-2000:])
    assert all(float(line.partition(" ")[0]) < 10 for line in lines), lines
    return [line.partition(" ")[2] for line in lines]


def test_a_hostile_pickle_is_one_line_soon(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.pkl" for name in HOSTILE]
    for path, content in zip(paths, HOSTILE.values(), strict=True):
        path.write_bytes(content)
    for path, line in zip(paths, told("arrays", paths), strict=True):
        assert line.startswith(str(path)), line


def test_a_hostile_checkpoint_is_one_line_soon(tmp_path: Path) -> None:
    paths = []
    for name in ("a deep tuple as a key", "numbers that collide", "operations"):
        paths += [tmp_path / f"new {name}.pth", tmp_path / f"old {name}.pth"]
        with zipfile.ZipFile(paths[-2], "w") as archive:
            archive.writestr("x/data.pkl", HOSTILE[name])
            archive.writestr("x/version", "3")
        before = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {}))
        paths[-1].write_bytes(before + HOSTILE[name])
    for path, line in zip(paths, told("checkpoints", paths), strict=True):
        assert line.startswith(f"{path.name} is not opened: it has "), line


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_people_pickle_is_read(tmp_path: Path, protocol: int) -> None:
    document = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "meta": {("x", 1): [1, 2], 3: {4, 5}, None: frozenset("ab"), 2.5: (True, b"y")},
        "list": [[[[]]]],
    }
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(document, protocol))
    np.testing.assert_array_equal(load_arrays(tmp_path / "x.pkl")["a"], document["a"])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_network_s_checkpoint_stays_within_the_limits(tmp_path: Path, zipped: bool) -> None:
    layers = torch.nn.ModuleList(torch.nn.BatchNorm2d(4) for _ in range(300))
    state = collections.OrderedDict(layers.state_dict())
    optimizer = torch.optim.Adam(layers.parameters())
    torch.save(
        {"state_dict": state, "optimizer": optimizer.state_dict()},
        tmp_path / "x.pth",
        _use_new_zipfile_serialization=zipped,
    )
    assert read_state(tmp_path / "x.pth", "state_dict").keys() == state.keys()


def test_limits_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_STEPS", 10)
    with pytest.raises(RfbenchError, match="has more than 10 operations"):
        DryRun(io.BytesIO(pickle.dumps(list(range(20))))).load()
