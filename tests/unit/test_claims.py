"""Files that claim more than they hold are refused before a library reserves what they claim."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from bench.core.claims import look_at_tensors, read_frame
from bench.core.errors import RfbenchError
from bench.models import read_state


def tensors(path: Path, header: Any, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def one(shape: Any, start: Any = 0, end: Any = 0, kind: Any = "F32") -> dict[str, Any]:
    return {"a": {"dtype": kind, "shape": shape, "data_offsets": [start, end]}}


@pytest.mark.parametrize(
    "header",
    [
        one([60_000_000, 0]), one([0, 2**62]), one([1] * 9, 0, 4), one([2], 0, 4),
        one([1], 0, 4, "X7"), one([-1], 0, 4),
        one([True], 0, 4), one([1], 0, 10**30), one("12", 0, 4), {"a": 3}, {"a": {}}, [], 3, b"[" * 100_000, b"{",
        b"\xff\xff",
        {f"t{i}": one([0])["a"] for i in range(100_001)},
    ],
)  # fmt: skip
def test_tensors_that_cannot_be(tmp_path: Path, header: Any) -> None:
    path = tensors(tmp_path / "x.safetensors", header, b"\0" * 4)
    with pytest.raises(RfbenchError, match=r"is no readable safetensors file: .*; get or make it again"):
        look_at_tensors(path)
    with pytest.raises(RfbenchError, match="cut or no checkpoint"):
        read_state(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 8, b"\xff" * 100, b"\x02" + b"\0" * 7])
def test_what_is_no_header(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(RfbenchError, match="is no readable safetensors file"):
        look_at_tensors(tmp_path / "x.safetensors")


def test_tensors_that_are_there(tmp_path: Path) -> None:
    arrays = {"a": np.zeros((2, 3), np.float32), "b": np.zeros((0, 4), np.int64), "c": np.array(1, np.uint8)}
    save_file(arrays, tmp_path / "x.safetensors", {"rfbench": "{}"})
    found = look_at_tensors(tmp_path / "x.safetensors")
    assert found == {"a": ("F32", (2, 3)), "b": ("I64", (0, 4)), "c": ("U8", ())}


def test_a_table_of_ours_comes_back(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "id": ["a", "b", "a"],
            "psnr": [1.0, math.nan, 3.0],
            "n": [1, 2, 3],
            "why": [None, "no reference", None],
            "ok": [True, False, True],
        }
    )
    frame.to_parquet(tmp_path / "x.parquet")
    found = read_frame(tmp_path / "x.parquet")
    assert found["id"].tolist() == ["a", "b", "a"] and found["why"].tolist() == [None, "no reference", None]
    assert found["psnr"].tolist()[::2] == [1.0, 3.0] and math.isnan(found["psnr"][1])
    assert found["n"].tolist() == [1, 2, 3] and found["ok"].tolist() == [True, False, True]
    frame.iloc[:0].to_parquet(tmp_path / "x.parquet")
    assert len(read_frame(tmp_path / "x.parquet")) == 0


READ = """
import sys
from pathlib import Path
from bench.core.claims import read_frame
from bench.core.errors import RfbenchError
try:
    print(read_frame(Path(sys.argv[1])).shape)
except RfbenchError as error:
    print(error)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is Linux's to tell")
@pytest.mark.parametrize("what", ["one long text a million times", "very many rows", "lists", "bytes", "many columns"])
def test_a_small_table_takes_little_memory(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x.parquet"
    tables = {
        "one long text a million times": lambda: {
            "a": pa.DictionaryArray.from_arrays(np.zeros(10**6, np.int32), ["x" * 30_000])
        },
        "very many rows": lambda: {f"c{i}": pa.nulls(3 * 10**6, pa.float64()) for i in range(30)},
        "lists": lambda: {"a": pa.array([[1] * 10**6] * 5)},
        "bytes": lambda: {"a": pa.array([b"x"])},
        "many columns": lambda: {f"c{i}": pa.array([1]) for i in range(21_000)},
    }
    pq.write_table(pa.table(tables[what]()), path, store_schema=False)
    assert path.stat().st_size < 10**7
    done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
    line, peak_mb = done.stdout.splitlines()
    assert "cannot be read" in line and int(peak_mb) < 700, done.stdout


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_what_is_no_table_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(RfbenchError, match="cannot be read"):
        read_frame(tmp_path / "x.parquet")
    with pytest.raises(RfbenchError, match="it is no file"):
        read_frame(tmp_path)
