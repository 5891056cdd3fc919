"""Kill a training, at every rename and for real: the same command goes on and ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rareflow.config import Config, load_config
from rareflow.errors import RareflowError
from rareflow.train.cli import read_data
from rareflow.train.loop import read_state
from tests.commands import start
from tests.conftest import write_rows
from tests.small_rareflow import STAGES, chip, small_config, train_small, weights

TWO = {"train": {stage: {"steps": 2} for stage in STAGES} | {"save_every": 1}}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it, and the half-written file stays."""


def test_a_kill_at_every_rename_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One folder, killed at its first rename, then at the second one of the next try, and so on to the end."""
    config, rename, unlink, left = small_config(TWO), Path.replace, Path.unlink, 0
    train_small(tmp_path / "whole", config)

    def replace_or_die(self: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return rename(self, target)

    def unlink_if_alive(self: Path, missing_ok: bool = False) -> None:
        if left >= 0:
            unlink(self, missing_ok)

    out, at = tmp_path / "out", 0
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_or_die)
        patch.setattr(Path, "unlink", unlink_if_alive)
        for at in range(40):
            left = at
            try:
                train_small(out, config)
                break
            except Killed:
                continue
    assert 5 <= at < 39
    assert weights(out) == weights(tmp_path / "whole")
    for card in ("card.json", "prior/card.json"):
        assert (out / card).read_text() == (tmp_path / "whole" / card).read_text()
    assert not list(out.rglob("*.tmp"))  # what the kills left was overwritten and renamed


def write_pairs(folder: Path, count: int) -> Path:
    """A dataset folder of display values with both splits."""
    rows = []
    for side in ("lr", "hr"):
        (folder / side).mkdir(parents=True)
    for i in range(count):
        split = "validation" if i == 0 else "train"
        for side, image in zip(("lr", "hr"), chip(i).load(), strict=True):
            np.save(folder / side / f"{i}.npy", (image * 255).round().astype(np.uint8))
        rows.append({"id": f"chip{i}", "scene_id": f"scene{i}", "split": split, "lr": f"lr/{i}.npy",
                     "hr": f"hr/{i}.npy", "caption": f"number{i}"})  # fmt: skip
    write_rows(folder, rows)
    side = {"unit": "display", "scale": 255, "bands": "R G B"}
    (folder / "dataset.json").write_text(
        json.dumps({"format": 1, "name": "noise", "licence": "CC0", "lr": side, "hr": side})
    )
    return folder


def write_config(path: Path, config: Config) -> Path:
    """A configuration as TOML, every field of it (JSON's values are TOML's here)."""

    def lines(values: dict[str, Any], prefix: str) -> list[str]:
        plain = [f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None and not isinstance(v, dict)]
        tables = [line for k, v in values.items() if isinstance(v, dict) for line in lines(v, f"{prefix}{k}.")]
        return ([f"[{prefix[:-1]}]"] if prefix else []) + plain + tables

    path.write_text("\n".join(lines(config.to_dict(), "")) + "\n")
    assert load_config(str(path)) == config
    return path


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is a POSIX signal")
@pytest.mark.parametrize("side", ["lr", "hr"])
def test_holes_in_training_data_are_named_before_anything_is_trained(tmp_path: Path, side: str) -> None:
    """The readers make 0 of NaN and of nodata, which must not be trained on as black ground."""
    config, data = small_config(TWO), write_pairs(tmp_path / "data", 5)
    path = data / side / "1.npy"
    values = np.load(path).astype(np.float32)
    values[2:4, 3:6] = np.nan
    np.save(path, values)
    with pytest.raises(RareflowError, match=rf"^chip1: the {side.upper()} has no data in 6 of \d+ pixels"):
        train_small(tmp_path / "out", config, read_data(data, "train", "validation", config))
    assert not list((tmp_path / "out").rglob("*.pt"))


def test_a_killed_command_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """The command is killed in its second stage; what is left of the training is done in this process, by the same
    code, as is the uninterrupted one: two starts of Python fewer."""
    config = small_config({"train": {"prior": {"steps": 24}, "save_every": 3, "validate_every": 12}})
    data, file = write_pairs(tmp_path / "data", 5), write_config(tmp_path / "small.toml", config)
    out = tmp_path / "killed"
    words = [
        "train",
        "--config",
        str(file),
        "--data",
        str(data),
        "--out",
        str(out),
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    process = start(*words)
    deadline = time.monotonic() + 300
    while not (out / "training" / "prior.pt").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr
    state = read_state(out / "training" / "prior.pt")
    assert state is not None and 0 < state["step"] < 24
    assert (read_state(out / "training" / "vae.pt") or {})["step"] == 4 and not (out / "card.json").exists()

    chips = read_data(data, "train", "validation", config)
    torch.use_deterministic_algorithms(True, warn_only=True)  # as the command does
    try:
        train_small(tmp_path / "whole", config, chips)
        train_small(out, config, chips)
    finally:
        torch.use_deterministic_algorithms(False)
    assert weights(out) == weights(tmp_path / "whole")
    assert (out / "card.json").read_text() == (tmp_path / "whole" / "card.json").read_text()
