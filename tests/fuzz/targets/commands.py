"""Plans of runs, and whole command lines."""

from __future__ import annotations

import contextlib
import errno
import io
import random
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError
from tests.fuzz import mutate
from tests.fuzz.case import Case
from tests.fuzz.targets.damage import damage


def _spec(rng: random.Random, names: tuple[str, ...], options: dict[str, tuple[str, ...]]) -> str:
    name = rng.choice(names) if rng.random() < 0.9 else mutate.text(rng)
    given = []
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
        key = rng.choice(list(options)) if options and rng.random() < 0.9 else mutate.text(rng)
        value = rng.choice(options.get(key, ("1",))) if rng.random() < 0.6 else mutate.text(rng)
        given.append(rng.choice((f"{key}={value}",) * 9 + (key, f"{key}={value},", f"={value}")))
    return name + (":" if given else "") + ",".join(given)


_MODELS: dict[str, dict[str, tuple[str, ...]]] = {
    "bicubic": {},
    "nearest": {},
    "bicubic-affine": {},
    "files": {
        "folder": (".", "../in/hr", "/", "missing"),
        "unit": ("reflectance", "display"),
        "bands": ("R G B", "R G B NIR", "R"),
        "scale": ("255", "10000", "0", "-1"),
        "label": ("x", ""),
    },
    "rareflow": {
        "checkpoint": ("", "/", "missing"),
        "base": ("a/b", "."),
        "steps": ("1", "0", "1e3"),
        "guidance": ("2", "-1"),
        "u": ("0.5", "measured"),
    },
}
_PROTOCOLS = {
    "normalisation": ("percentile[2,98]", "fixed[0,3000]", "declared", "display"),
    "quantise": ("8", "none", "7"),
    "border_px": ("1", "9999999", "-1"),
    "captions": ("none", "template", "dataset"),
    "policy": ("pre", "post"),
    "scale": ("5", "4.0", "0.5", "1e9", "nan"),
}


def _model(rng: random.Random) -> str:
    name = rng.choice(list(_MODELS))
    given = _spec(rng, (name,), _MODELS[name])
    # Without a folder ``files`` says so and nothing more.
    return f"files:folder=../in/hr,{given[6:]}".rstrip(",") if given.startswith("files:") else given


def make_plan(rng: random.Random) -> Case:
    args: dict[str, Any] = {
        "models": [_model(rng) for _ in range(rng.choice((1, 2, 0)) if rng.random() < 0.2 else 1)],
        "protocol": _spec(rng, ("paired", "paired", "bicubic-4x"), _PROTOCOLS),
        "metrics": rng.choice(
            (None, ["psnr_rgb"], ["default"], [mutate.text(rng)], ["psnr_rgb", "nll", "psnr_rgb"], [])
        ),
    }
    numbers = {"draws": (0, -1, 10**30), "seed": (-1, 2**70), "limit": (0, 1, 10**9), "batch_size": (0, 10**9)}
    texts = {
        "split": ("train",),
        "device": ("cpu", "cuda:99", "tpu"),
        "dtype": ("float16", "float8"),
        "data": ("scenes",),
    }
    for key, values in {**numbers, **texts}.items():
        if rng.random() < 0.08:
            args[key] = rng.choice(values) if key in numbers or rng.random() < 0.5 else mutate.text(rng)
    return Case("plan", "dataset", args=args)


def run_plan(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.core.errors import ItemError
    from bench.metrics.base import Setting
    from bench.predict.plan import Request, make_plan
    from bench.predict.unit import prepare_task
    from bench.score.choice import choose_metrics

    metrics = None if args["metrics"] is None else tuple(args["metrics"])
    given = {k: v for k, v in args.items() if k != "metrics"} | {"models": tuple(args["models"])}
    try:
        plan = make_plan(Request(**({"data": str(folder), "device": "cpu", "out": out / "runs"} | given)))
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise RfbenchError(f"{error.strerror}, as bench.cli.main says it") from None
    tasks = [prepare_task(plan.protocol, plan.dataset, record) for record in plan.records[:2]]
    choice = choose_metrics(metrics, Setting("cpu"), strict=bool(args.get("strict")))
    return [*(str(t) for t in tasks if isinstance(t, ItemError)), *map(str, choice.skipped.values())]


_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("validate", "IN"),
    ("validate", "IN", "--json"),
    ("table", "IN"),
    ("table", "IN", "--format", "latex", "--width", "TEXT"),
    ("table", "IN", "--metrics", "TEXT", "--out", "OUT/t.tex"),
    ("cite", "IN", "--format", "TEXT"),
    ("cite", "IN", "TEXT"),
    ("export", "IN", "--out", "OUT/pictures"),
    ("score", "--pred", "IN", "--ref", "TEXT"),
    ("score", "--pred", "TEXT", "--data", "IN"),
    ("score", "--pred", "IN", "--ref", "IN", "--scale", "TEXT", "--workers", "0", "--metrics", "psnr_rgb"),
    ("data", "import", "TEXT", "IN", "OUT/d"),
    ("data", "import", "folder", "IN", "OUT/d", "--unit", "TEXT", "--scale", "TEXT"),
    ("data", "scenes", "OUT/s", "--count", "TEXT", "--size", "TEXT", "--workers", "0"),
    ("ls", "TEXT"),
    ("weights", "fetch", "TEXT"),
    ("weights", "verify", "--weights-dir", "IN"),
    ("weights", "ls", "--weights-dir", "TEXT"),
    ("run", "--model", "TEXT"),
    ("run", "--model", "bicubic", "--data", "IN", "--split", "TEXT", "--out", "OUT/r", "--metrics", "TEXT"),
    ("TEXT",),
    ("check", "TEXT", "TEXT"),
    ("run", "--model", "bicubic", "--draws", "TEXT", "--seed", "TEXT", "--limit", "TEXT", "--metrics", ""),
    ("plot", "TEXT"),
    ("check", "dataset", "IN", "--split", "TEXT"),
    ("upscale", "IN", "OUT/u", "--model", "TEXT"),
    ("train", "TEXT"),
)


def _word(rng: random.Random) -> str:
    """A text that a shell can pass on: no zero byte, and of half characters those that stand for odd bytes."""
    return re.sub("[\ud800-\udc7f]", "\udcff", mutate.text(rng).replace("\x00", "0"))


def make_command(rng: random.Random) -> Case:
    words = list(rng.choice(_COMMANDS))
    words = [_word(rng) if w == "TEXT" else w for w in words]
    if rng.random() < 0.1:
        words.insert(
            rng.randrange(len(words) + 1), rng.choice(("--out", "--format", "--strict", "--", "--json", "-h", "--x"))
        )
    seed = rng.choice(("dataset", "run", "pictures", "layout:pair folders"))
    return Case("command", seed, damage(rng, seed) if rng.random() < 0.3 else {}, {"words": words})


def run_command(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    """The ``rfbench`` command from its words to its exit code, in this process."""
    from unittest import mock

    from bench.cli import main

    places = {"IN": folder, "OUT": out}
    words = [re.sub("^(IN|OUT)(?=/|$)", lambda m: str(places[m[1]]), word) for word in args["words"]]
    stdout = io.TextIOWrapper(io.BytesIO(), "utf-8")
    stderr = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    code: object = None
    with (
        mock.patch.object(sys, "argv", ["rfbench", *words]),
        mock.patch.object(warnings, "showwarning"),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code
    assert code in (0, 1, 2, 3), f"exit code {code}"
    stderr.seek(0)
    last = stderr.read().rstrip("\n").rpartition("\n")[2]
    if code in (2, 3):
        # A thousand characters, and what the command says around them
        assert last.startswith("error: ") and last.isprintable() and len(last) < 1200, f"exit code {code}: {last!r}"
        raise RfbenchError(last.removeprefix("error: "))  # a refusal, as of the functions' targets
    return ()
