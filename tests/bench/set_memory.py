"""Peak resident memory of FID and KID over the stored features of N images: ``python -m tests.bench.set_memory N``."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.metrics.base import SetScore
from bench.metrics.realism import FidTf, KidTf
from bench.metrics.scorer import ItemScores
from bench.score.kept import Kept, Spill


def main(n: int) -> None:
    """Store, reduce, and print megabytes."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        spill = Spill(Path(name))
        for i in range(n):
            sides = {side: random.random(2048, np.float32) for side in ("prediction", "reference")}
            spill.take(str(i), ItemScores(features={"sample": {"fid_tf": sides, "kid_tf": sides}}))
        for metric in (FidTf(), KidTf()):
            kept = Kept(spill.load, [str(i) for i in range(n)], "sample", metric.name)
            assert isinstance(metric.combine(kept), SetScore)
    print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000))


if __name__ == "__main__":
    main(int(sys.argv[1]))
