"""Every comparison of ``cases.py``: our number against an equation, another library, or a published value."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.core import registry
from tests.reference.cases import Case, cases, difference
from tests.reference.pictures import Lacking

pytest.importorskip("torch")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks of this size only wait for a second thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_agrees(case: Case) -> None:
    try:
        values = case.measure()
    except Lacking as lacking:
        pytest.skip(f"needs {lacking}")
    found = difference(case, values)
    assert found <= case.tolerance, f"ours {values[0]!r}, theirs {values[1]!r}: {found:.2g}, allowed {case.tolerance}"


@pytest.mark.parametrize("name", list(registry.names("metrics")))
def test_every_metric_is_held_to_an_equation_and_to_something_else(name: str) -> None:
    """MANIQA has no equation but its authors' code, and logspec_l1 no implementation but ours."""
    kinds = {case.kind for case in cases() if case.metric == name}
    assert kinds & {"library", "published", "closed form"} or name == "niqe_ref"
    assert "equation" in kinds or name.startswith("maniqa_")
