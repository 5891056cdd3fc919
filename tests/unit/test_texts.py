"""Small text formats: what would keep a parser busy, or a float from being one, is a line before it is parsed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.core import texts
from bench.core.errors import RfbenchError
from bench.core.texts import read_toml, read_yaml

TOML = {
    "a key of 100,000 parts": ".".join("a" * 100_000) + " = 1",
    "a key of 100 quoted parts": ".".join(['"a"'] * 100) + " = 1",
    "a table of 100 parts": "[" + " . ".join(["a"] * 100) + "]",
    "deep brackets": "a = " + "[" * 50_000,
    "deep tables": "a = " + "{a = " * 1000 + "1" + "}" * 1000,
    "many digits": "a = 1" + "0" * 400,
    "more digits than Python converts": "a = 1" + "0" * 10_000,
    "infinity": "a = inf",
    "no text": "\ufeff\x00",
    "too large": "#" * (texts.MAX_SETTINGS_BYTES + 1),
}
YAML = {
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "a number to the base of 60": "a: 1" + ":59" * 20_000,
    "deep brackets": "a: " + "[" * 50_000,
    "deep lines": "\n".join(" " * i + "a:" for i in range(500)),
    "an object of Python's": "a: !!python/object/apply:os.system [ls]",
    "many digits": "a: 1" + "0" * 5_000,
    "infinity": "a: .inf",
    "a recursive list": "&a [*a]",
    "too large": "#" * (texts.MAX_SETTINGS_BYTES + 1),
}  # fmt: skip


@pytest.mark.parametrize("text", TOML.values(), ids=TOML)
def test_hostile_toml_is_one_line_at_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    began = time.perf_counter()
    with pytest.raises(RfbenchError, match=r"x\.toml (is not readable TOML|holds [0-9]+ bytes)"):
        read_toml(tmp_path / "x.toml")
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
def test_hostile_yaml_is_one_line_at_once(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    began = time.perf_counter()
    with pytest.raises(RfbenchError, match=r"x\.yaml (is not readable YAML|holds [0-9]+ bytes)"):
        read_yaml(tmp_path / "x.yaml")
    assert time.perf_counter() - began < 5


def test_what_people_write_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(
        '[a.b]\nc = [1, 2.5, [3]]\n"d.e" = "1.2.3.4, and so on... or [not]"\n' + "# x. y. " * 40
    )
    assert read_toml(tmp_path / "x.toml") == {"a": {"b": {"c": [1, 2.5, [3]], "d.e": "1.2.3.4, and so on... or [not]"}}}
    (tmp_path / "x.yaml").write_text("train: [Banks, Peel]\nval:\n- 'Herschel'\ndate: 2020-01-02T10:11:12\n")
    assert read_yaml(tmp_path / "x.yaml")["train"] == ["Banks", "Peel"]
    with pytest.raises(RfbenchError, match="is missing"):
        read_toml(tmp_path / "absent.toml")
