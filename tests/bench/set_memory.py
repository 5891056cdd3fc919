"""Peak resident memory of FID and KID over the stored features of N images: ``python -m tests.bench.set_memory N``."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.metrics.base import SetScore
from bench.metrics.realism import FidTf, KidTf
from bench.records.scores import ImageScores, Scores
from bench.score.kept import Kept


def main(n: int) -> None:
    """Store, reduce, and print megabytes."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        scores = Scores(Path(place))
        for i in range(n):
            sides = {side: random.random(2048, np.float32) for side in ("prediction", "reference")}
            kept = {
                f"{metric}/sample/{side}": array for metric in ("fid_tf", "kid_tf") for side, array in sides.items()
            }
            scores.commit(ImageScores(id=str(i), prediction_sha256=""), kept)
        for metric in (FidTf(), KidTf()):
            features = Kept(scores.image_features, [str(i) for i in range(n)], f"{metric.name}/sample/")
            assert isinstance(metric.combine(features), SetScore)
    print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000))


if __name__ == "__main__":
    main(int(sys.argv[1]))
