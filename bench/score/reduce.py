"""From the scores of all images to one number: the mean of a metric of images, the reduction of a metric of the set.

Images are taken in the order of their ids and sums are exact (``math.fsum``), so neither batches nor workers nor an
interruption can move a digit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.core.reason import Reason
from bench.metrics.base import Features, Metric, Score
from bench.records.types import Cell, ScoreRecord


@dataclass(frozen=True)
class OfTheSet:
    """What a metric of the set found: its cell, each image's share where it has one (in the order of the features), and
    the model that it fitted on the references."""

    cell: Cell
    shares: Sequence[float | None] | None = None
    fitted: dict[str, np.ndarray] = field(default_factory=dict)


def reduced(metric: Metric, features: Sequence[Features], others: Sequence[Features] = ()) -> OfTheSet:
    """A metric of the set from the features of its images.

    ``others`` are features of references alone, for a metric that fits them; the hash of the fit is in the identity of
    its value.
    """
    result = metric.combine(features, others)
    if isinstance(result, Score):
        assert result.reason is not None
        return OfTheSet(Cell(identity=metric.identity(), n=len(features), reason=result.reason))
    cell = Cell(
        identity=metric.identity(result.fit) if result.fit else metric.identity(),
        value=result.value,
        n=len(features),
        details=dict(result.details),
    )
    return OfTheSet(cell, result.per_image, dict(result.fitted))


def summarised(metric: Metric, scores: Sequence[ScoreRecord | None], of_set: OfTheSet | None = None) -> Cell:
    """One metric over all images: value, n, spread, why there is none or why some images have none.

    Parameters
    ----------
    scores : of each image its number or its reason; None where a metric of the set has only its features.
    of_set : what ``reduced`` found, for a metric of the set that some image had features for.
    """
    values = [s.value for s in scores if s is not None and s.value is not None]
    counted = Counter(s.reason for s in scores if s is not None and s.reason is not None)
    reasons = {str(why): count for why, count in sorted(counted.items(), key=lambda pair: str(pair[0]))}
    if of_set is not None:
        found = of_set.cell
        return Cell(identity=found.identity, value=found.value, n=found.n, reason=found.reason, reasons=reasons,
                    details=found.details)  # fmt: skip
    if values and metric.level == "image":
        mean = math.fsum(values) / len(values)
        spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else None
        return Cell(identity=metric.identity(), value=mean, n=len(values), std=spread, reasons=reasons)
    why = counted.most_common(1)[0][0] if counted else Reason("unfit", "no image was scored")
    return Cell(identity=metric.identity(), reason=why, reasons=reasons)
