"""SAMSR's and MISR-S2's own code with random weights, through the worker: what a user's run does, but for the files.

    git clone https://github.com/Liu-Zihang/SAMSR
    python -m tests.upstream.guests samsr:weights=random SAMSR
    git clone https://github.com/aimiokab/MISR-S2
    python -m tests.upstream.guests misr-s2:weights=random,variant=regressor MISR-S2

The environment is made by uv, which fetches some GB, unless ``--python`` names an interpreter that has the packages of
``requirements.txt``. Upstream's code runs in a process of its own: read it first.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from bench.check.models import check_task
from bench.core import registry
from bench.models.call import Answer, Model
from bench.models.guests import checkout, environment
from tests.guests import fake_environment


@click.command("python -m tests.upstream.guests")
@click.argument("text", metavar="NAME[:KEY=VALUE,...]")
@click.argument("clone", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--python", metavar="FILE", help="An interpreter that has the packages; no environment is made.")
@click.option("--size", default=40, show_default=True, metavar="PX", help="The side of the LR.")
def command(text: str, clone: Path, python: str | None, size: int) -> None:
    """Answer an image twice with one seed and once with another; exit code 1 where that is not as it should be."""
    spec = registry.load("models", text.partition(":")[0])
    with tempfile.TemporaryDirectory() as folder:
        if python is not None:
            os.environ[environment.ENVIRONMENT_VARIABLE] = folder
            fake_environment(spec.environment, python)
        else:
            environment.build(spec.name, spec.environment)
        checkout.make(spec.name, spec.upstream, spec.commit, clone)
        model = Model(text)
        model.check_ready()
        model.load()
        print(f"{model.label}: loaded; {model.adapter.session()['guest']}")
        task, samples = check_task("a", (size, size), (4 * size, 4 * size), model.spec), []
        for seed in (0, 0, 1):
            started = time.monotonic()
            (answer,) = model.predict([task], run_seed=seed, draws=1)
            if not isinstance(answer, Answer):
                raise SystemExit(f"seed {seed}: {answer}")
            values = answer.arrays.get("samples", answer.arrays.get("mean"))
            assert values is not None
            samples.append(values)
            shape = "x".join(map(str, values.shape))
            print(f"seed {seed}: {shape} {answer.unit}, mean {values.mean():.4f}, deviation {values.std():.4f}, "
                  f"{time.monotonic() - started:.1f} s")  # fmt: skip
        model.adapter.close()
    differ = float(np.abs(samples[0] - samples[2]).max())
    print(
        f"one seed twice: {'the same' if np.array_equal(*samples[:2]) else 'NOT the same'}; another: {differ:.2g} apart"
    )
    if not np.array_equal(samples[0], samples[1]) or (differ > 0) != model.spec.stochastic:
        raise SystemExit(1)


if __name__ == "__main__":
    command()
