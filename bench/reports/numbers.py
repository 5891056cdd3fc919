"""How numbers are shown: the decimals of a metric, and texts of values, differences and p-values."""

from __future__ import annotations

from contextlib import suppress

from bench.core.errors import RfbenchError, one_line
from bench.metrics.scorer import metric_class
from bench.records.types import MetricRecord


def decimals_of(metric: MetricRecord) -> int | None:
    """The decimals that are shown of a metric: as its run recorded them, else as the metric that is installed says;
    None stands for four significant digits. A metric after registration is shown as the metric itself."""
    if metric.decimals is not None:
        return metric.decimals
    with suppress(RfbenchError):  # of a plugin that is not installed here
        return metric_class(metric.name).decimals
    return None


def meaning_of(metric: str) -> str:
    """A metric's definition in a line; empty for one that is not installed here."""
    with suppress(RfbenchError):
        return one_line(metric_class(metric).summary, 200)
    return ""


def shown(value: float, decimals: int | None, more: int = 0) -> str:
    """The text of a value: its decimals, or four significant digits where these are not fixed and for giants.

    ``more`` adds decimals where they are fixed, for differences.
    """
    text = f"{value:#.4g}".rstrip(".") if decimals is None or abs(value) >= 1e6 else f"{value:.{decimals + more}f}"
    return text.lstrip("-") if float(text) == 0 else text


def signed(value: float, decimals: int | None) -> str:
    """A difference with its sign, at a decimal more than values."""
    text = shown(value, decimals, more=1)
    return text if text.startswith("-") or float(text) == 0 else f"+{text}"


def resolution(decimals: int | None) -> float:
    """One unit of the last decimal that is shown; 0 where the decimals depend on the value."""
    return 0.0 if decimals is None else 10.0**-decimals


def p_text(p: float | None) -> str:
    """A p-value at two significant digits; empty for none."""
    return "" if p is None else f"{p:.1e}" if p < 1e-3 else f"{p:.2g}" if p < 0.0995 else f"{p:.2f}"
