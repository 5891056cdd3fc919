"""Small texts that keep a parser busy: TOML of rules and configurations, YAML."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.fuzz import mutate
from tests.fuzz.case import Case


def make_toml(rng: random.Random) -> Case:
    text = rng.choice((_RULES, 'extends = "tiny"\n[control]\ngates = false\n', "a = 1\n"))
    lines = text.splitlines()
    for _ in range(rng.choice((0, 1, 1, 2))):
        n = rng.choice((3, 40, 2000, 60_000))
        lines.insert(rng.randrange(len(lines) + 1), rng.choice((
            ".".join("a" * n) + " = 1", "x = " + "[" * n, "x = " + "[" * n + "]" * n, "x = " + "9" * n,
            f'x = "{mutate.text(rng)[:n]}"', "[" + ".".join("b" * n) + "]", "x = 1e" + "9" * min(n, 300),
            "".join(f"k{i} = {i}\n" for i in range(n // 4)), "x = " + '{a = ' * n, "[[a]]\n" * (n // 4), "x = nan",
            "x = 1979-05-27T07:32:00Z", f"'{mutate.text(rng)[:60]}' = 1", '"a"."b" = ' + "0x" + "f" * n,
        )))  # fmt: skip
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    if rng.random() < 0.3:
        data = mutate.damaged(rng, data)
    return Case("toml", files={"x.toml": data}, args={"as": rng.choice(("rules", "config", "plain"))})


_RULES = """format = 1
[[rule]]
metrics = ["psnr_rgb", "*"]
absolute = 0.01
sides = "one"
why = "a tolerance"
[[rule]]
metrics = ["*"]
statistical = { alpha = 0.05, effect = 0.1 }
"""


def run_toml(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.core.texts import read_toml
    from bench.reports.gate.rules import read_rules
    from rareflow.config import load_config

    path = folder / "x.toml"
    if args["as"] == "rules":
        read_rules(path)
    elif args["as"] == "config":
        load_config(str(path))
    else:
        read_toml(path)
    return ()


def make_yaml(rng: random.Random) -> Case:
    n = rng.choice((3, 40, 2000, 60_000))
    text = rng.choice((
        "train: [Banks, Peel]\ntest: [Herschel]\n", "a: &a [1]\nb: [*a, *a]\n",
        "x: 1:" + ":".join("59" * 3 for _ in range(n)),
        "- " * n + "x", "[" * n, "{a: " * n, "x: !!python/object/apply:os.system ['true']\n", "x: " + "9" * n, "? " * n,
        "".join(f"k{i}: {i}\n" for i in range(n // 4)), "x: .inf\n", "x: 2001-99-99\n", f"x: {mutate.text(rng)}\n",
        "%TAG ! x\n",
        "x: |\n " + "é" * n, "x: !!binary " + "A" * n, "<<: {a: 1}\n", "!!set {a, b}\n", "x: 0b" + "1" * n,
    ))  # fmt: skip
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.4:
        data = mutate.damaged(rng, data)
    return Case("yaml", files={"x.yaml": data})


def run_yaml(folder: Path, out: Path, args: dict[str, Any]) -> Iterable[str]:
    from bench.core.texts import read_yaml

    read_yaml(folder / "x.yaml")
    return ()
