"""What is printed of systems on opensr-test, for their specs."""

from __future__ import annotations

from bench.models import Claim


def on_opensr_test(
    improvement: float, omission: float, hallucination: float, detail: float, rmse: float, spectral: float,
    reflectance: float,
) -> Claim:  # fmt: skip
    """A row of the table that synapse-sr prints of seven systems."""
    return Claim(
        source="opensr-test",
        citation="README of synapse-sr 0.4.1 (PyPI, 2026), by that system's author",
        setting="opensr-test's defaults, mean over NAIP, SPOT, Spain urban, Spain crops and Venus (178 scenes), each "
        "model at its native scale, HR harmonised",
        numbers={
            "opensr_improvement": improvement, "opensr_omission": omission, "opensr_hallucination": hallucination,
            "detail correlation": detail, "RMSE": rmse, "opensr_spectral": spectral, "opensr_reflectance": reflectance,
        },
    )  # fmt: skip
