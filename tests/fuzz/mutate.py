"""Seeded damage: to bytes, to JSON documents, to tables and to texts."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
from collections.abc import Sequence
from typing import Any

TEXTS = (
    "",
    " ",
    "a\nb",
    "a\r\nb",
    "\x00",
    "x\x00y",
    "../x",
    "../../../../etc/passwd",
    "/etc/passwd",
    ".",
    "..",
    "/",
    "a" * 300,
    "b/" * 700,
    "é" * 130,
    "\u202egnp.exe",
    "\u200b",
    "Ａ１",
    "а",
    "𝕏",
    "\ud800",
    "\udcff",
    "$(touch x)",
    "`id`",
    "<script>alert(1)</script>",
    "\\input{/etc/passwd}",
    "100 % & $x$ #1 _y_ ^ ~ {",
    "%s %n {0} {x!r}",
    "=1+1",
    "'",
    '"',
    "a,b;c",
    "nan",
    "inf",
    "-inf",
    "1e999",
    "-1",
    "0",
    "1e-400",
    "9" * 400,
    "9" * 5000,
    "٣",
    "1_0",
    "0x10",
    "null",
    "true",
    "[",
    "]",
    "[[",
    "percentile[2,98]",
    "percentile[98,2]",
    "fixed[0,0]",
    "fixed[0,1e999]",
    "fixed[nan,1]",
    "display",
    "reflectance",
    "relative",
    "R G B",
    "R R R",
    "B04 B03 B02",
    "R",
    "id",
    "lr",
    "hr",
    "lr/im0.npy",
    "train",
    "test",
    "2021-02-31",
    "2021-08-17",
    "0001-01-01",
    "\x1b[31mred",
    "\x07",
    "|",
    "**",
    "1 2",
    "COM1",
    "~",
    "-rf",
)
NUMBERS = (
    0,
    -1,
    1,
    2,
    255,
    65535,
    2**31,
    2**31 - 1,
    2**32,
    2**63,
    -(2**63),
    2**64,
    10**30,
    10**400,
    0.5,
    -0.0,
    1e-300,
    1e300,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
)


def text(rng: random.Random) -> str:
    """A text that somebody will one day meet in a file."""
    if rng.random() < 0.15:
        return "".join(
            chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x250)))) for _ in range(rng.randrange(40))
        )
    return rng.choice(TEXTS)


def anything(rng: random.Random, depth: int = 0) -> Any:
    """A JSON value of any kind."""
    kind = rng.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return text(rng)
    if kind < 4:
        return rng.choice(NUMBERS)
    if kind == 4:
        return rng.choice((None, True, False))
    if kind < 7:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {text(rng): anything(rng, depth + 1) for _ in range(rng.randrange(4))}


def document(rng: random.Random, data: bytes) -> bytes:
    """A JSON file with one to three of its values, keys or items changed; now and then its bytes."""
    if rng.random() < 0.12:
        return damaged(rng, data)
    if rng.random() < 0.02:
        deep = rng.choice((b"[", b'{"a":')) * rng.choice((50, 900, 100_000))
        return deep if rng.random() < 0.5 else data.replace(b":", b": " + b"[" * 990 + b"]" * 990 + b",", 1)
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = changed(rng, value)
    made = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")
    return (b"\xef\xbb\xbf" if rng.random() < 0.05 else b"") + made


def changed(rng: random.Random, value: Any) -> Any:
    """A JSON value with one thing in it changed, wherever it lies."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.06:
        return _other(rng, value)
    if isinstance(value, list):
        made = list(value)
        i = rng.randrange(len(made))
        match rng.randrange(8):
            case 0:
                del made[i]
            case 1:
                made.insert(i, rng.choice(made))
            case 2:
                made.append(anything(rng))
            case _:
                made[i] = changed(rng, made[i])
        return made
    made_dict = dict(value)
    key = rng.choice(list(made_dict))
    match rng.randrange(10):
        case 0:
            del made_dict[key]
        case 1:
            made_dict[text(rng)] = made_dict.pop(key)
        case 2:
            made_dict[rng.choice((text(rng), key + "x", key.upper()))] = anything(rng)
        case _:
            made_dict[key] = changed(rng, made_dict[key])
    return made_dict


def _other(rng: random.Random, value: Any) -> Any:
    """A value in the place of ``value``: often of its own type, else of any."""
    if isinstance(value, str) and rng.random() < 0.6:
        return rng.choice((text(rng), value + text(rng), text(rng) + value, value[: len(value) // 2]))
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.7:
        return rng.choice((*NUMBERS, value + 1, -value, value * 2, str(value)))
    return anything(rng)


def table(rng: random.Random, data: bytes) -> bytes:
    """A CSV file with cells, columns or rows changed; another delimiter, a byte-order mark, another encoding."""
    if rng.random() < 0.15:
        return damaged(rng, data)
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    for _ in range(rng.choice((1, 1, 2, 3))):
        i, j = rng.randrange(len(rows)), rng.randrange(len(rows[0]))
        row = rows[i]
        match rng.randrange(10):
            case 0:
                rows.insert(i, list(row))
            case 1 if len(rows) > 1:
                del rows[i]
            case 2:
                row.append(text(rng))
            case 3 if len(row) > 1:
                del row[j % len(row) :]
            case 4:
                rows[0][j % len(rows[0]) :][:1] = [text(rng)]
                rows[0] = [text(rng) if k == j else name for k, name in enumerate(rows[0])]
            case 5:
                new = rng.choice(
                    (
                        "hr_unit",
                        "lr_scale",
                        "lr_gsd_m",
                        "hr_bands",
                        "lr_offset",
                        "hr_normalisation",
                        "pan",
                        "mask",
                        "series",
                        "lr_date",
                        "lr_gamma",
                        "lr_nodata",
                        text(rng),
                    )
                )
                rows[0].append(new)
                for other in rows[1:]:
                    other.append(text(rng))
            case _ if row:
                row[j % len(row)] = rng.choice((text(rng), text(rng), rng.choice(rng.choice(rows) or [""])))
        if not rows or not rows[0]:
            return b"" if rng.random() < 0.5 else b"\n\n"
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=rng.choice(",,,,;\t|")).writerows(rows)
    made = buffer.getvalue().encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16")), "surrogatepass")
    return made


def damaged(rng: random.Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Bytes cut, flipped, overwritten with extreme numbers, doubled, dropped, or spliced with another file's."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        n = len(made)
        # Headers lie at the front (and, of parquet and zip, at the end): that is where damage matters.
        at = rng.choice(
            (rng.randrange(n or 1), rng.randrange(min(n, 64) or 1), max(0, n - 1 - rng.randrange(min(n, 64) or 1)))
        )
        match rng.randrange(10):
            case 0:
                del made[at:]
            case 1:
                for _ in range(rng.choice((1, 3, 30))):
                    if n:
                        made[rng.randrange(n)] ^= 1 << rng.randrange(8)
            case 2 | 3:
                form = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
                size = struct.calcsize(form)
                extreme = rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1, rng.randrange(2**16)))
                made[at : at + size] = struct.pack(form, extreme % 2 ** (8 * size))
            case 4:
                del made[at : at + rng.choice((1, 2, 16, 200))]
            case 5:
                piece = made[at : at + rng.choice((1, 8, 100))]
                made[at:at] = piece * rng.choice((1, 2, 50))
            case 6:
                made[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
            case 7 if others:
                other = rng.choice(others)
                made[at:] = other[rng.randrange(len(other) or 1) :]
            case 8:
                made[at : at + 8] = rng.choice((b"\0", b"\xff", b"\x7f")) * 8
            case _ if n:
                made[at % n] = rng.randrange(256)
    return bytes(made) if rng.random() > 0.01 else b""
