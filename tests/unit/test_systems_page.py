"""docs/systems.md says what the specs say."""

from __future__ import annotations

import dataclasses

import pytest

from bench.core.errors import RfbenchError
from bench.models.systems import BEGIN, END, page, renewed, systems
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "systems.md"


def test_the_page_is_what_the_specs_say() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert renewed(text, page(systems())) == text, "run: python -m bench.models.systems docs/systems.md"


def test_every_system_states_what_a_reader_must_know() -> None:
    found = systems()
    assert {"adcsr", "opensr", "rareflow"} <= {s.name for s in found}
    for spec in found:
        assert spec.licence and spec.status and spec.unverified, spec.name
        assert all("table" in name and set(row) >= {"PSNR", "FID"} for name, row in spec.paper.items()), spec.name
        if spec.name != "rareflow":
            assert spec.allows and spec.upstream.startswith("https://"), spec.name
            assert len(spec.commit) == 40 or any("==" in needed for needed in spec.requires), spec.name
            assert spec.environment is not None or spec.check_options, spec.name


def test_the_marks_must_be_there_and_anew_is_said() -> None:
    with pytest.raises(RfbenchError, match="found no part between"):
        renewed("a page", "x")
    assert renewed(f"a {BEGIN} old {END} b", "new") == f"a {BEGIN}\n\nnew\n\n{END} b"
    spec = dataclasses.replace(systems()[0], reimplementation="section 3 of Someone 2024")
    assert f"`{spec.name}-reimplemented`" in page([spec])
