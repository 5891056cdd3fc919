"""Every registered metric as a function of arrays: ``rfbench.metrics.psnr_rgb(pred, ref)``.

>>> import numpy as np
>>> from rfbench import metrics
>>> ref = np.full((32, 32, 3), 0.5)
>>> round(metrics.psnr_rgb(np.full((32, 32, 3), 0.6), ref), 2)
20.17
>>> metrics.psnr_rgb.identity
'psnr_rgb|rgb|peak1|cap100|q8|r2'
"""

from __future__ import annotations

from bench.api.arrays import MetricFunction, metric_function, metric_names
from bench.core.errors import RfbenchError


def __getattr__(name: str) -> MetricFunction:
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        return metric_function(name)
    except RfbenchError as error:
        raise AttributeError(str(error)) from None


def __dir__() -> list[str]:
    return metric_names()
