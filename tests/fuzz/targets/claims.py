"""What says more than it holds: tensors, tables, cards, a guest's answers, a study's answers."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError
from tests.fuzz import mutate, seeds
from tests.fuzz.case import Case


def make_claims(rng: random.Random) -> Case:
    if rng.random() < 0.5:
        shapes = ([8], [0], [6 * 10**7, 0], [2**62], [-1], [1.5], [1] * 200, [3, 2**31], "x", [[2]], [True], None)
        header: dict[str, Any] = {
            (mutate.text(rng) or "x")[:80].encode("utf-8", "replace").decode(): {
                "dtype": rng.choice(("F32", "F32", "U8", "BF16", "F8_E4M3", "X", 3)), "shape": rng.choice(shapes),
                "data_offsets": rng.choice(([0, 32], [0, 0], [32, 0], [0, 2**60], [-1, 31], [0], "x")),
            }
            for _ in range(rng.choice((0, 1, 1, 3, 3000)))
        }  # fmt: skip
        raw = json.dumps(header).encode()
        if rng.random() < 0.2:
            raw = b"[" * rng.choice((10, 100_000))
        length = len(raw) if rng.random() < 0.85 else rng.choice((0, 2**63, 2**64 - 1, 10**9))
        return Case(
            "claims",
            files={"x.safetensors": struct.pack("<Q", length) + raw + b"\0" * 32},
            args={"name": "x.safetensors"},
        )
    return Case("claims", files={"x.parquet": _table(rng)}, args={"name": "x.parquet"})


def _table(rng: random.Random) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = rng.choice((0, 1, 24, 10_000, 30_000))
    columns: dict[str, Any] = {}
    for i in range(rng.choice((1, 3, 3, 400))):
        m = n if i < 3 else min(n, 24)
        columns[f"c{i}" if i else "id"] = rng.choice((
            pa.array(["x" * rng.choice((1, 50))] * n), pa.array([1.0] * n), pa.array([[1]] * n), pa.array([None] * n),
            pa.array([b"x"] * n), pa.array(["y" * 10**5] * min(n, 24) + ["z"] * max(0, n - 24)),
        ))  # fmt: skip
        assert m >= 0
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, compression=rng.choice(("snappy", "zstd", "gzip", "none")))
    return mutate.damaged(rng, buffer.getvalue()) if rng.random() < 0.5 else buffer.getvalue()


def run_claims(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.core.claims import look_at_tensors, read_frame

    path = folder / args["name"]
    if path.suffix == ".parquet":
        read_frame(path)
        return ()
    from safetensors.numpy import load_file

    look_at_tensors(path)
    try:
        load_file(path)
    except Exception as error:  # its own refusals are refusals; what counts is time and memory
        raise RfbenchError(f"safetensors: {type(error).__name__}") from None
    return ()


def make_card(rng: random.Random) -> Case:
    """A checkpoint whose card is right but for a number, a list or a name of its configuration."""
    card = json.loads(seeds.tree("checkpoint")["card.json"])
    place: Any = card
    path = []
    while isinstance(place, dict) and place and (not path or rng.random() < 0.85):
        path.append(rng.choice(sorted(place)))
        parent, place = place, place[path[-1]]
    parent[path[-1]] = rng.choice((0, -1, 1, 7, 10**5, 10**9, 2**63, 10**400, 1e308, 0.5, "", "x", [], [1] * 1000, {},
                                   None, True, [10**5] * 3))  # fmt: skip
    return Case("card", "checkpoint", {"card.json": json.dumps(card).encode()}, {"rehash": False, "load": True})


def make_guest(rng: random.Random) -> Case:
    """What a guest answers: a line, and arrays in its folder."""
    array = np.zeros((1, 4, 4, 3), np.float32)
    buffer = io.BytesIO()
    np.save(buffer, array)
    entry: dict[str, Any] = {"file": "answer-1-0.npy", "shape": [1, 4, 4, 3], "dtype": "<f4"}
    reply: dict[str, Any] = {
        "type": "result",
        "id": 1,
        "seconds": 0.1,
        "peak_bytes": 5,
        "arrays": {"mean": entry},
        "facts": [],
    }
    for _ in range(rng.choice((1, 1, 2))):
        target = rng.choice((reply, entry))
        target[rng.choice((*target, mutate.text(rng)))] = rng.choice(
            (mutate.anything(rng), mutate.text(rng), 2**70, -1, [], {}, None)
        )
    line = json.dumps(reply).encode()
    if rng.random() < 0.3:
        line = mutate.damaged(rng, line).replace(b"\n", b" ")
    data = buffer.getvalue()
    if rng.random() < 0.5:
        data = mutate.damaged(rng, data)
    elif rng.random() < 0.3:
        data = data.replace(b"(1, 4, 4, 3)", rng.choice((b"(9999999999,)", b"(1, 4, 4, 9)", b"()          ")))
    return Case("guest", files={"answer-1-0.npy": data, "line": line})


def run_guest(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    """The host's side of the pipe, without a process on the other."""
    import os
    import shutil
    import time
    from types import SimpleNamespace

    from bench.models.guests.worker import Launch, Worker

    worker = Worker.__new__(Worker)
    worker.folder = out / "guest"
    shutil.copytree(folder, worker.folder)
    reading, writing = os.pipe()
    os.write(writing, (folder / "line").read_bytes()[:60_000] + b"\n")
    os.close(writing)
    worker._launch = Launch("x", Path("python"), Path("shim.py"), "X")
    worker._lines, worker._rest, worker._answers = [], bytearray(), reading
    worker._deadline, worker.peak_bytes, worker._count = time.monotonic() + 5, 0, 1
    worker._process = SimpleNamespace(poll=lambda: 0, wait=lambda limit: 0, pid=0)  # type: ignore[assignment]
    worker._finalizer = lambda: None  # type: ignore[assignment, method-assign]
    worker._keep_log = lambda: None  # type: ignore[method-assign]
    worker._write = lambda data: None  # type: ignore[method-assign]
    try:
        worker.upscale({}, {}, 5.0)
    finally:
        os.close(reading)
    return ()


def make_study(rng: random.Random) -> Case:
    """A closed study with a damaged plan, key or file of answers."""
    files = seeds.tree("study")
    name = rng.choice([n for n in sorted(files) if n.endswith((".json", ".sqlite"))])
    data = files[name]
    if name.endswith(".json"):
        return Case("study", "study", {name: mutate.document(rng, data)})
    if rng.random() < 0.4:
        return Case("study", "study", {name: mutate.damaged(rng, data)})
    return Case(
        "study", "study", {}, {"sql": rng.choice(_SQL), "text": mutate.text(rng).encode("utf-8", "replace").decode()}
    )


_SQL = (
    "INSERT INTO events (at, reviewer, kind, trial, body) SELECT at, reviewer, kind, trial, ? FROM events LIMIT 1",
    "INSERT INTO events (at, reviewer, kind, trial, body) SELECT at, reviewer, 'answer', trial, '{\"answers\": {}}' "
    "FROM events WHERE kind = 'answer' AND ? <> '' LIMIT 1",
    "INSERT INTO events (at, reviewer, kind, trial, body) SELECT at, ?, kind, trial, body FROM events "
    "WHERE kind = 'answer'",
    "INSERT INTO events (at, reviewer, kind, trial, body) SELECT ?, reviewer, kind, trial, body FROM events",
    "INSERT INTO events (at, reviewer, kind, trial, body) SELECT at, reviewer, 'profile', trial, "
    "'{\"answers\": {\"role\": 5}}' FROM events WHERE ? <> '' LIMIT 1",
    "INSERT INTO events (at, reviewer, kind, trial, body) SELECT at, reviewer, kind, trial, x'00ff' FROM events "
    "WHERE ? <> 'q'",
)  # fmt: skip


def run_study(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    import contextlib
    import shutil
    import sqlite3

    from bench.study.report import build, to_json, to_latex, to_markdown, to_methods

    place = out / "study"  # SQLite keeps files beside its own while it reads
    shutil.copytree(folder, place, symlinks=True)
    if args.get("sql"):
        with contextlib.closing(sqlite3.connect(place / "answers.sqlite")) as db, db:
            db.execute(args["sql"], (args["text"],))
    report = build(place)
    for write in (to_markdown, to_latex, to_json, to_methods):
        write(report).encode()
    return ()
