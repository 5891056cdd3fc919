"""Which frames of a time series a model sees, for the models that take a fixed number of dates."""

from __future__ import annotations

import datetime

import numpy as np

from bench.models import Array, RfbenchError


def days_from(dates: tuple[str, ...], target: str) -> Array:
    """The days of each ISO date after ``target``, float32 (T,), negative before it.

    Raises
    ------
    RfbenchError
        Without a date of the target (the HR's, else the LR's), or for one that is no date.
    """
    if not target:
        raise RfbenchError(
            "the model needs the days of each date from the target; give hr_date or lr_date in pairs.csv"
        )
    try:
        day = datetime.date.fromisoformat(target[:10])
        return np.array([(datetime.date.fromisoformat(d[:10]) - day).days for d in dates], np.float32)
    except ValueError as error:
        raise RfbenchError(f"a date of the series or its target is none ({error}); expected YYYY-MM-DD") from None


def nearest(days: Array, count: int) -> tuple[np.ndarray, int]:
    """Indices of the ``count`` frames nearest to the target, in the order of the series; where there are fewer, the
    last again. Of two as near, the earlier in the series is taken.

    Returns the indices, int64 (count,), and how many are not repeats.
    """
    kept = np.sort(np.argsort(np.abs(days), kind="stable")[:count])
    return np.concatenate([kept, np.repeat(kept[-1:], count - len(kept))]), len(kept)
