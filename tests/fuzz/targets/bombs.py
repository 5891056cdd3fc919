"""Small images that ask for much: blocks, tags and scans; and the containers that ``upscale`` opens."""

from __future__ import annotations

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError
from tests.fuzz import formats, mutate
from tests.fuzz.case import Case

_ODD = (0, 1, 2, 3, 5, 6, 7, 8, 16, 255, 256, 32768, 65535, 2**20, 2**27, 2**31 - 1, 2**31, 2**32 - 1)

# --- images ----------------------------------------------------------------------------------------------


def make_blocks(rng: random.Random) -> Case:
    """A TIFF whose sizes of image, strips and tiles are anybody's."""
    tiled = rng.random() < 0.6
    tags = {256: rng.choice((16, 64, *_ODD)), 257: rng.choice((16, 64, *_ODD)), 258: rng.choice((1, 8, 16, 32, 64)),
            259: rng.choice((1, 5, 7, 8, 32773, 34887, 34925, 50000, 50001)), 262: rng.choice((0, 1, 2, 3, 5, 6, 8)),
            277: rng.choice((1, 3, 4, 5, 1024, 65535)), 284: rng.choice((1, 2)),
            274: rng.choice((1, 1, 3, 6, 9)), 339: rng.choice((1, 2, 3))}  # fmt: skip
    if tiled:
        tags |= {322: rng.choice((16, 256, *_ODD)), 323: rng.choice((16, 256, *_ODD)), 324: 8, 325: rng.choice(_ODD)}
    else:
        tags |= {273: 8, 278: rng.choice((1, 16, *_ODD)), 279: rng.choice(_ODD)}
    for _ in range(rng.choice((0, 0, 1, 2))):
        tags[rng.choice((*tags, 338, 530, 347, 42112, 42113, 33550, 33922, 34735))] = rng.choice(_ODD)
    body = rng.randbytes(rng.choice((0, 64, 4096)))
    return Case("blocks", files={"x.tif": tiff(rng, tags, body)}, args={"name": "x.tif"})


def tiff(rng: random.Random, tags: dict[int, int], body: bytes) -> bytes:
    """A little-endian TIFF of one directory; some counts of values are odd too."""
    counts = {n: rng.choice((1, 1, 1, 1, 1, 2, 3, rng.choice(_ODD))) if rng.random() < 0.1 else 1 for n in tags}
    entries = b"".join(struct.pack("<HHII", n, 4, counts[n], v & 0xFFFFFFFF) for n, v in sorted(tags.items()))
    following = rng.choice((0, 0, 0, 0, 8 + len(body), 8, 2**31))
    place = 8 + len(body)
    return (
        struct.pack("<2sHI", b"II", 42, place)
        + body
        + struct.pack("<H", len(tags))
        + entries
        + struct.pack("<I", following)
    )


def make_tags(rng: random.Random) -> Case:
    """A valid TIFF with metadata of very many items, or deep XML, or long names."""
    import rasterio

    values = np.zeros((3, 16, 16), np.uint16)
    with rasterio.io.MemoryFile() as memory:
        with memory.open(driver="GTiff", width=16, height=16, count=3, dtype="uint16") as file:
            file.write(values)
            kind = rng.choice(("items", "long", "names", "nodata"))
            n = rng.choice((1, 100, 3000, 20_000))
            if kind == "items":
                file.update_tags(**{f"K{i}": _whole(mutate.text(rng)[:50]) for i in range(n // 4)})
            elif kind == "long":
                file.update_tags(X=("<a>" if rng.random() < 0.5 else "x") * n * 10)
            elif kind == "names":
                file.set_band_description(1, "é" * n)
        data = bytearray(memory.getbuffer())
    for _ in range(rng.choice((0, 1, 4))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    files: dict[str, Any] = {"x.tif": bytes(data)}
    if rng.random() < 0.3:
        depth = rng.choice((10, 1000, 50_000))
        band = "".join(f'<PAMRasterBand band="{rng.choice(_ODD)}"><NoDataValue>{mutate.text(rng)[:20]}</NoDataValue>'
                       "</PAMRasterBand>" for _ in range(rng.choice((1, 500))))  # fmt: skip
        files["x.tif.aux.xml"] = f"<PAMDataset>{'<a>' * depth}{band}{'</a>' * depth}</PAMDataset>".encode(
            "utf-8", "replace"
        )
    if rng.random() < 0.2:
        files["x.tif.msk"] = formats.image(rng, ".tif")[1]
    return Case("tags", files=files, args={"name": "x.tif"})


def _whole(text: str) -> str:
    """A text that GDAL takes."""
    return text.replace("\0", "").encode("utf-8", "replace").decode() or "x"


def make_scans(rng: random.Random) -> Case:
    """A JPEG or PNG with more to decode than it shows."""
    if rng.random() < 0.5:
        data = formats.seeds()[".jpg"][2]
        place = data.rindex(b"\xff\xda")
        scan = data[place:-2]
        return Case("scans", files={"x.jpg": data[:place] + scan * rng.choice((1, 50, 99, 101, 2000)) + data[-2:]},
                    args={"name": "x.jpg"})  # fmt: skip
    width, height = rng.choice(_ODD), rng.choice(_ODD)
    head = struct.pack(">IIBBBBB", width & 0x7FFFFFFF, height & 0x7FFFFFFF, rng.choice((1, 8, 16)),
                       rng.choice((0, 2, 3, 4, 6)), 0, 0, rng.choice((0, 1)))  # fmt: skip
    pixels = zlib.compress(b"\0" * rng.choice((10, 10**6, 3 * 10**7)))
    kinds = [(b"IHDR", head), *[(b"IDAT", pixels)] * rng.choice((1, 1, 20)), (b"IEND", b"")]
    for _ in range(rng.choice((0, 1, 2))):
        extra = rng.choice(((b"eXIf", rng.randbytes(40)), (b"tRNS", b"\0" * 6), (b"iTXt", b"x\0\1\0\0\0" + pixels),
                            (b"zTXt", b"x\0\0" + pixels), (b"iCCP", b"x\0\0" + pixels),
                            (b"PLTE", b"\1" * 9)))  # fmt: skip
        kinds.insert(1, extra)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in kinds
    )
    return Case("scans", files={"x.png": data}, args={"name": "x.png"})


def make_containers(rng: random.Random) -> Case:
    """A zip, a VRT, or a raster of two files, as ``upscale`` takes them."""
    kind = rng.choice(("zip", "vrt", "img"))
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
            for i in range(rng.choice((0, 1, 1, 2))):
                ending, data = formats.image(rng)
                archive.writestr(rng.choice((f"{i}{ending}", f"../{i}{ending}", f"/tmp/{i}{ending}")), data)
        data = buffer.getvalue()
        if rng.random() < 0.6:
            data = mutate.damaged(rng, data)
        return Case("containers", files={"x.zip": data}, args={"name": "x.zip"})
    if kind == "img":
        lines = ["ENVI", f"samples = {rng.choice(_ODD)}", f"lines = {rng.choice(_ODD)}", f"bands = {rng.choice(_ODD)}",
                 f"data type = {rng.choice((1, 2, 4, 6, 12, 99))}", f"interleave = {rng.choice(('bsq', 'bil', 'x'))}",
                 f"header offset = {rng.choice(_ODD)}", "byte order = 0",
                 f"band names = {{{mutate.text(rng)[:60]}}}"]  # fmt: skip
        head = "\n".join(lines).encode("utf-8", "replace")
        head = mutate.damaged(rng, head) if rng.random() < 0.4 else head
        return Case("containers", files={"x.img": rng.randbytes(3000), "x.hdr": head},
                    args={"name": "x.img"})  # fmt: skip
    source = rng.choice(
        ("a.tif", "../a.tif", "/etc/passwd", "/vsicurl/http://127.0.0.1:9/a.tif", "a.vrt", mutate.text(rng)[:80])
    )
    band = (
        f'<VRTRasterBand dataType="{rng.choice(("UInt16", "Byte", "CFloat64", "x"))}" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="{rng.choice((1, 1, 0))}">{source}</SourceFilename><SourceBand>'
        f'{rng.choice(_ODD)}</SourceBand><DstRect xOff="0" yOff="0" xSize="{rng.choice(_ODD)}" ySize="9"/>'
        "</SimpleSource></VRTRasterBand>"
    )
    size = f'rasterXSize="{rng.choice(_ODD)}" rasterYSize="{rng.choice(_ODD)}"'
    vrt = f"<VRTDataset {size}>{band * rng.choice((1, 1, 300))}</VRTDataset>"
    data = vrt.encode("utf-8", "replace")
    files: dict[str, Any] = {"x.vrt": mutate.damaged(rng, data) if rng.random() < 0.3 else data,
                             "a.tif": formats.seeds()[".tif"][0]}  # fmt: skip
    return Case("containers", files=files, args={"name": "x.vrt"})


def run_image(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    """A file through the reader of datasets and that of ``upscale``."""
    from bench.data import readers
    from bench.data.meaning import Side
    from bench.data.readers import limits
    from bench.upscale.source import Raster

    path, said = folder / args["name"], []
    calls: tuple[Callable[[], object], ...] = (
        lambda: readers.georeference(path),
        lambda: readers.read(path),
        lambda: _upscaled(Raster, path, Side(unit="relative")),
    )
    assert limits.MAX_SAMPLES
    for call in calls:
        try:
            call()
        except RfbenchError as error:
            said.append(str(error))
    if len(said) == len(calls):
        raise RfbenchError(said[-1])
    return said


def _upscaled(opener: Any, path: Path, side: Any) -> None:
    with opener(path, side) as raster:
        raster.select(raster.names)
        raster.warn_of_odd_values()
        raster.read(0, 0, min(64, raster.size[0]), min(64, raster.size[1]))
