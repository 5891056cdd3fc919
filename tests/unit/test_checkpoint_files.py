"""Other people's checkpoints: nothing in them runs, they fit wholly or not at all, and are converted once."""

from __future__ import annotations

import os
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from bench import weights
from bench.core.errors import RfbenchError
from bench.models import check_state, converted, load_state, randomise, read_state


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """A class as a trainer leaves it in its checkpoints; its package is gone when they are read."""
    module = types.ModuleType("some_trainer")
    callback = type("Callback", (), {"__module__": "some_trainer"})
    module.Callback = callback  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "some_trainer", module)
    return callback


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))


def refused(path: Path, message: str, under: str = "") -> None:
    with pytest.raises(RfbenchError, match=message) as caught:
        read_state(path, under)
    assert "\n" not in str(caught.value) and str(path.parent) not in str(caught.value)


def test_a_trainer_s_checkpoint_gives_its_tensors_alone(trainer: type, tmp_path: Path) -> None:
    path, made = tmp_path / "half.ckpt", trainer()
    made.best = 3  # type: ignore[attr-defined]
    state = net().state_dict()
    torch.save({"epoch": 3, "callbacks": {trainer: {"x": made}}, "state_dict": state | {"note": "text"}}, path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    sys.modules.pop("some_trainer")
    found = read_state(path, "state_dict")
    assert found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)
    assert "some_trainer" not in sys.modules


class Hostile:
    def __init__(self, call: Any, *args: Any) -> None:
        self.call, self.args = call, args

    def __reduce__(self) -> Any:
        return self.call, self.args


@pytest.mark.parametrize("call", [os.system, eval, exec, os.mkdir, __import__])
def test_nothing_in_a_checkpoint_runs(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = {os.system: "mkdir ran", os.mkdir: "ran", __import__: "antigravity"}
    word = words.get(call, "__import__('os').mkdir('ran')")
    path = tmp_path / "x.pth"
    torch.save({"w": torch.ones(2), "evil": Hostile(call, word)}, path)
    try:
        assert read_state(path).keys() == {"w"}  # an inert stand-in was made, and left out
    except RfbenchError as error:
        assert "not opened" in str(error) and "weights_only" not in str(error)
    assert not (tmp_path / "ran").exists() and "antigravity" not in sys.modules


def test_what_is_cut_or_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(net().state_dict(), path)
    whole = path.read_bytes()
    for content in (b"", b"\x80", whole[: len(whole) // 2], whole[:-30], b"<html>not found</html>", os.urandom(400)):
        path.write_bytes(content)
        refused(path, r"x\.pth is (cut or no checkpoint|not opened)")
    other = tmp_path / "y.safetensors"
    save_file(net().state_dict(), other)
    other.write_bytes(other.read_bytes()[:-9])
    refused(other, r"y\.safetensors is cut or no checkpoint")
    torch.save([torch.ones(2)], path)
    refused(path, "found no names, expected a dict of tensors")
    torch.save({"model": {}, "step": 3}, path)
    refused(path, "found model, step, expected 'state_dict'", "state_dict")
    refused(path, "found no tensors")


def test_the_old_format_of_torch_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(net().state_dict(), path, _use_new_zipfile_serialization=False)
    assert read_state(path).keys() == net().state_dict().keys()


@pytest.mark.parametrize("form", ["safetensors", "today", "old"])
def test_names_and_shapes_are_read_without_numbers(form: str, tmp_path: Path) -> None:
    """On the device meta a state is held against a network, a wrong one is told, and no memory is taken."""
    path = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pth")
    if form == "safetensors":
        save_file(net().state_dict(), path)
    else:
        torch.save(net().state_dict(), path, _use_new_zipfile_serialization=form == "today")
    found = read_state(path, device="meta")
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in net().state_dict().items()}
    assert all(v.is_meta for v in found.values())
    with torch.device("meta"):
        there = net()
    load_state(there, found, path.name)
    with pytest.raises(RfbenchError, match="1 missing"):
        load_state(there, dict([*found.items()][1:]), path.name)


def test_a_state_fits_wholly_or_not_at_all() -> None:
    state = net().state_dict()
    with torch.device("meta"):
        there = net()
    load_state(there, state, "half.ckpt")
    assert torch.equal(there[0].weight, state["0.weight"]) and there[1].bias.device.type == "cpu"
    wrong = {k: v for k, v in state.items() if not k.startswith("1.")}
    wrong |= {f"more.{i}": torch.ones(1) for i in range(5)} | {"0.weight": torch.ones(4, 3, 1, 1)}
    with pytest.raises(RfbenchError) as caught:
        check_state(wrong, there, "half.ckpt")
    assert str(caught.value) == (
        "half.ckpt: of 4 expected tensors 2 missing (1.weight, 1.bias), 5 unexpected (more.0, more.1, more.2 and 2 "
        "more), 1 of another shape (0.weight 4x3x1x1 for 4x3x3x3); it is the checkpoint of another model or version"
    )


def test_a_conversion_is_made_once_and_again_when_its_source_or_result_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFBENCH_CONVERTED", str(tmp_path / "cache"))
    source, calls = tmp_path / "a.pth", []

    def make() -> dict[str, torch.Tensor]:
        calls.append(1)
        both = torch.arange(6.0)
        return {"b": both[3:], "a": both[:3]}  # of one memory, which safetensors refuses

    source.write_bytes(b"one")
    first = converted("mine", 1, {"a.pth": source}, make)
    content = first.read_bytes()
    assert converted("mine", 1, {"a.pth": source}, make) == first and len(calls) == 1
    with safe_open(first, "pt") as file:
        assert weights.hash_of(source) in file.metadata()["rfbench"]
        assert torch.equal(file.get_tensor("b"), torch.tensor([3.0, 4.0, 5.0]))
    assert converted("mine", 2, {"a.pth": source}, make) != first
    source.write_bytes(b"two!")
    assert converted("mine", 1, {"a.pth": source}, make) != first
    source.write_bytes(b"one")
    first.write_bytes(content[:-4] + b"\0\0\0\1")  # damaged, and still a safetensors file
    assert converted("mine", 1, {"a.pth": source}, make).read_bytes() == content and len(calls) == 4


def test_random_weights_depend_on_names_alone() -> None:
    one, other = net(), net()
    randomise(one, "x")
    torch.manual_seed(3)
    randomise(other, "x")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    randomise(other, "y")
    assert not any(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert np.isclose(float(one[0].weight.detach().var() * 27), 1, atol=0.5)


def test_damaged_checkpoints_end_in_one_line_or_in_tensors(tmp_path: Path) -> None:
    path, rng = tmp_path / "x.pth", np.random.default_rng(7)
    torch.save({"state_dict": net().state_dict(), "epoch": 3}, path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    ends = {"tensors": 0, "one line": 0}
    for _ in range(150):
        damaged = whole.copy()
        at = rng.integers(0, len(whole), rng.integers(1, 6))
        damaged[at] = rng.integers(0, 256, len(at))
        path.write_bytes(damaged[: rng.integers(1, len(whole)) if rng.random() < 0.2 else None].tobytes())
        try:
            read_state(path, "state_dict")
            ends["tensors"] += 1
        except RfbenchError as error:
            assert "\n" not in str(error)
            ends["one line"] += 1
    assert min(ends.values()) > 10, ends
