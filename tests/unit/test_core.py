"""Options, seeds, files, names and the registry."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from bench.core import files, registry, texts
from bench.core.errors import RfbenchError, one_line, unknown
from bench.core.files import atomic_path, read_json, safe_name, sweep_temporary, write_json
from bench.core.image import row_blocks
from bench.core.options import build, split_spec
from bench.core.seeds import noise_field, seed_for


def test_options_keep_commas_inside_brackets() -> None:
    assert split_spec("paired:normalisation=percentile[2,98],border_px=4") == (
        "paired",
        {"normalisation": "percentile[2,98]", "border_px": "4"},
    )
    assert split_spec("bicubic") == ("bicubic", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [("paired:x", "key=value was expected"), ("paired:a=1,a=2", "is given twice"), ("p:=1", "key=value")],
)
def test_malformed_options_are_refused(text: str, message: str) -> None:
    with pytest.raises(RfbenchError, match=message):
        split_spec(text)


@dataclass(frozen=True)
class Spec:
    count: int = 1
    scale: float | None = None
    mode: Literal["a", "b"] = "a"
    flag: bool = False


def test_options_become_typed_fields() -> None:
    assert build(Spec, {"count": "3", "scale": "2.5", "mode": "b", "flag": "yes"}, what="x") == Spec(3, 2.5, "b", True)
    assert build(Spec, {"scale": "none"}, what="x") == Spec()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cuont": "1"}, "did you mean count"),
        ({"count": "1.5"}, "expected a whole number"),
        ({"scale": "x"}, "expected a number"),
        ({"mode": "c"}, "expected one of a, b"),
        ({"flag": "perhaps"}, "expected true or false"),
    ],
)
def test_wrong_options_say_what_was_expected(options: dict[str, str], message: str) -> None:
    with pytest.raises(RfbenchError, match=message):
        build(Spec, options, what="x")


def test_seeds_depend_on_every_name() -> None:
    seeds = {seed_for(r, i, d) for r in (0, 1) for i in ("a", "b", "a1") for d in (0, 1, 11)}
    assert len(seeds) == 18
    assert seed_for(1, "1", 1) != seed_for(11, "", 1)
    assert all(0 <= s < 2**63 for s in seeds)


def test_a_tile_of_the_noise_is_the_noise_of_the_whole() -> None:
    whole = noise_field(5, 0, 0, 150, 200, 3)
    np.testing.assert_array_equal(noise_field(5, 37, 61, 90, 100, 3), whole[37:127, 61:161])
    assert abs(whole.mean()) < 0.02 and abs(whole.std() - 1) < 0.02
    # Blocks must not repeat each other.
    assert abs(np.corrcoef(whole[:64, :64].ravel(), whole[64:128, 64:128].ravel())[0, 1]) < 0.05


def test_safe_names_are_safe_and_unique() -> None:
    hostile = [
        "../../etc/passwd",
        "a/b",
        "a_b",
        "a b",
        "",
        ".",
        "..",
        "ü" * 300,
        "a\nb",
        "CON",
        "x" * 101,
        "a.",
        "\udcff",
    ]
    names = [safe_name(n) for n in hostile]
    assert len(set(names)) == len(hostile)
    for name in names:
        assert "/" not in name and not name.startswith(".") and len(name.encode()) < 120 and name.isprintable()
    assert safe_name("scene_0001") == "scene_0001"


def test_one_line_removes_control_characters() -> None:
    assert one_line("a\nb\x1b[31m\tc") == "a b [31m c"
    assert len(one_line("x" * 1000)) == 300


def test_unknown_names_offer_the_nearest() -> None:
    assert "did you mean bicubic" in str(unknown("model", "bicubc", ["bicubic", "lanczos"]))
    assert "known: bicubic, lanczos" in str(unknown("model", "zzz", ["lanczos", "bicubic"]))


def test_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="boom"), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise ValueError("boom")
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="nan"):
        write_json(path, {"a": float("nan")})


@pytest.mark.parametrize("name", [".", "/"])
def test_a_folder_is_no_file_to_write(name: str) -> None:
    with pytest.raises(RfbenchError, match="it is a folder; give the name of a file"):
        files.write_bytes(Path(name), b"")


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / ".a.json.123.part").write_text("half")
    (tmp_path / "keep.json").write_text("{}")
    sweep_temporary(tmp_path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["keep.json"]


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def no_space(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", no_space)
    with pytest.raises(RfbenchError, match="No space left on device; free space"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_broken_json_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RfbenchError, match="not readable JSON"):
        read_json(tmp_path / "x.json")


def test_a_broken_plugin_does_not_stop_the_others(plugin: Path) -> None:
    assert {"bicubic", "broken", "noisy"} <= set(registry.names("models"))
    with pytest.raises(RfbenchError, match=r"'broken'.*cannot be loaded.*repair or uninstall"):
        registry.load("models", "broken")
    assert registry.load("models", "noisy").name == "noisy"


def test_a_user_error_is_one_printable_line_whatever_is_put_into_it() -> None:
    error = RfbenchError("x\ny\x1b[31m \u202e \ud800 " + "z" * 5000)
    assert str(error).isprintable() and len(str(error)) == 1000 and str(error).startswith("x y [31m z")
    huge = "a" * 200 + "\n" * 50_000_000  # quoted whole by some library
    started = time.perf_counter()
    assert one_line(huge, 100) == "a" * 97 + "..."
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1e999}', "found 1e999, expected a finite number"),
        ('{"a": NaN}', "found NaN, expected a finite number"),
        ('{"a": 1' + "0" * 400 + "}", "expected a finite number"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ("[" * 100_000, "is not readable JSON"),
    ],
)
def test_json_that_nothing_can_be_done_with_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RfbenchError, match=message):
        read_json(tmp_path / "x.json")


def test_json_keeps_whole_characters_and_large_numbers(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": "\\ud83d\\ude00", "b": 18446744073709551616, "c": -1.5e300}')
    assert read_json(tmp_path / "x.json") == {"a": "\U0001f600", "b": 2**64, "c": -1.5e300}


def test_a_text_is_a_regular_file_of_some_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "device").symlink_to("/dev/zero")
    with pytest.raises(RfbenchError, match="is no regular file"):
        read_json(tmp_path / "device")
    monkeypatch.setattr(texts, "MAX_TEXT_BYTES", 10)
    (tmp_path / "large").write_text("[1, 2, 3, 4]")
    with pytest.raises(RfbenchError, match="holds 12 bytes, expected at most 10"):
        read_json(tmp_path / "large")


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 2), (3000, 700, 3), (7, 2**21, 1), (0, 5, 3)])
def test_blocks_of_rows_are_all_rows_once(shape: tuple[int, int, int]) -> None:
    rows = [i for block in row_blocks(shape) for i in range(*block.indices(shape[0]))]
    assert rows == list(range(shape[0]))
    assert all(b.stop - b.start == 1 or (b.stop - b.start) * shape[1] * shape[2] <= 2**20 for b in row_blocks(shape))
