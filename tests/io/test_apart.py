"""Files that are decoded in another process: the same numbers, and a line where that process does not live."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.shutil

from bench.core.errors import RfbenchError
from bench.data import readers
from bench.data.readers import apart, containers, source
from tests.io.content import counts, scene, tif

DN = counts(scene(64))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One image in each kind of file that is decoded apart."""
    folder = tmp_path_factory.mktemp("apart")
    plain = tif(folder / "plain.tif", DN, nodata=0)
    made = {"lerc": tif(folder / "lerc.tif", DN, compress="lerc", nodata=0)}
    for ending, driver, more in (("jp2", "JP2OpenJPEG", {"QUALITY": 100, "REVERSIBLE": "YES"}), ("img", "ENVI", {}),
                                 ("nc", "netCDF", {})):  # fmt: skip
        made[ending] = folder / f"a.{ending}"
        rasterio.shutil.copy(plain, made[ending], driver=driver, **more)
    return made


@pytest.mark.parametrize("kind", ["lerc", "jp2", "img", "nc"])
def test_what_is_decoded_apart_is_what_is_decoded_here(files: dict[str, Path], kind: str) -> None:
    name = f"NETCDF:{files[kind]}:Band1" if kind == "nc" else str(files[kind])
    with containers.open_any(Path(name)) as opened:
        assert isinstance(opened, apart.Apart)
        count = opened.header.count
        np.testing.assert_array_equal(opened.stored(range(count)), DN[..., :count])
        part = (slice(3, 20), slice(5, 9))
        np.testing.assert_array_equal(opened.stored([0], part), DN[3:20, 5:9, :1])
        assert opened.stored([0], None, (8, 8)).shape == (8, 8, 1) and opened.mask() is None
        place = opened.place()
        assert place is not None and place.crs == "EPSG:32632" and place.size == (64, 64)
    if kind == "lerc":
        with source.open_raster(files[kind], here=True) as own:
            assert own.header == opened.header and own.place() == place


@pytest.mark.parametrize("when", ["open", "read"])
def test_a_decoder_that_dies_is_one_line_and_the_next_file_is_read(files: dict[str, Path], when: str) -> None:
    opened = readers.open_source(files["jp2"])
    process = apart._Process.of_this_one()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    assert process._running is not None
    process._running.wait()
    if when == "read":
        with pytest.raises(RfbenchError, match=r"a.jp2 cannot be read: decoding it took more than 30 s .* or ended"):
            opened.stored([0])
    assert readers.read(files["jp2"]).values.shape == (64, 64, 4)
    opened.close()  # of the one that died: nothing


@pytest.mark.parametrize("answer", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0x!", b"\x10\0\0\0\0\0\0\0"])
def test_an_answer_that_is_none_ends_the_process(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    import subprocess
    import sys

    process = apart._Process.of_this_one()
    process._end()
    script = f"import os, sys; sys.stdin.readline(); os.write(1, {answer!r})"
    real = subprocess.Popen
    monkeypatch.setattr(apart.subprocess, "Popen", lambda command, **more: real([sys.executable, "-c", script], **more))
    with pytest.raises(RfbenchError, match=r"a\.jp2 cannot be read: decoding it took more than"):
        readers.read(files["jp2"])
    assert process._running is None


def test_plain_files_stay_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*words: Any, **more: Any) -> None:
        raise AssertionError("no process is needed for it")

    monkeypatch.setattr(apart.subprocess, "Popen", none)
    apart._Process.of_this_one()._end()
    for compress in (None, "lzw", "deflate", "zstd", "packbits"):
        assert readers.read(tif(tmp_path / "a.tif", DN, compress=compress)).values.shape == (64, 64, 4)
