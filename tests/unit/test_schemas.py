"""``docs/schemas`` says what run folders hold."""

from __future__ import annotations

import pytest

from tests.schemas import FOLDER, RECORDS, schema


@pytest.mark.parametrize("name", RECORDS)
def test_the_page_has_the_schema_of_the_code(name: str) -> None:
    assert (FOLDER / f"{name}.schema.json").read_text(encoding="utf-8") == schema(RECORDS[name])


def test_no_other_schema_is_kept() -> None:
    assert {p.name.removesuffix(".schema.json") for p in FOLDER.iterdir()} == {*RECORDS}
