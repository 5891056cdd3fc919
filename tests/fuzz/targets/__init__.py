"""What is fuzzed: how an input of each kind is made, and the functions of the commands that it is given to.

A target's ``run`` gets the folder of the input, an empty folder for output and the arguments. It may return texts that
a user would be shown besides an error's message; each must be one printable line.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.case import Case
from tests.fuzz.targets import bombs, claims, commands, data, models, runs, texts

Run = Callable[[Path, Path, dict[str, Any]], Iterable[str]]


@dataclass(frozen=True)
class Target:
    """``share`` is how many inputs of some hundred are of this target, ``make`` makes one of them from a generator."""

    share: float
    make: Callable[[random.Random], Case]
    run: Run


TARGETS: dict[str, Target] = {
    "image": Target(22, data.make_image, data.run_image),
    "series": Target(4, data.make_series, data.run_series),
    "dataset": Target(12, data.make_dataset("dataset"), data.run_dataset),
    "validate": Target(10, data.make_dataset("validate"), data.run_validate),
    "import": Target(14, data.make_import, data.run_import),
    "table": Target(7, runs.make_run("table"), runs.run_table),
    "cite": Target(5, runs.make_run("cite"), runs.run_cite),
    "files": Target(5, runs.make_run("files"), runs.run_files_of_runs),
    "score": Target(6, runs.make_score, runs.run_score),
    "plan": Target(6, commands.make_plan, commands.run_plan),
    "checkpoint": Target(3, models.make_checkpoint, models.run_checkpoint),
    "base": Target(1, models.make_base, models.run_base),
    "weights": Target(2, models.make_weights, models.run_weights),
    "command": Target(3, commands.make_command, commands.run_command),
    "blocks": Target(12, bombs.make_blocks, bombs.run_image),
    "tags": Target(4, bombs.make_tags, bombs.run_image),
    "scans": Target(4, bombs.make_scans, bombs.run_image),
    "containers": Target(6, bombs.make_containers, bombs.run_image),
    "toml": Target(6, texts.make_toml, texts.run_toml),
    "yaml": Target(5, texts.make_yaml, texts.run_yaml),
    "claims": Target(5, claims.make_claims, claims.run_claims),
    "card": Target(3, claims.make_card, models.run_checkpoint),
    "guest": Target(5, claims.make_guest, claims.run_guest),
    "study": Target(3, claims.make_study, claims.run_study),
}


def make(target: str, seed: int, number: int) -> Case:
    """Input ``number`` of a target: the same for the same seed, whatever was made before."""
    return TARGETS[target].make(random.Random(f"{seed}/{target}/{number}"))
