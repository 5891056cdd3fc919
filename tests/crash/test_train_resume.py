"""Kill a training, at every rename and for real: the same command goes on and ends with the same bytes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from rareflow.errors import RareflowError
from rareflow.train.cli import read_data
from rareflow.train.loop import read_state
from tests.commands import start
from tests.small_rareflow import STAGES, small_config, train_small, weights, write_config, write_pairs

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
    config = small_config({"train": {"prior": {"steps": 14}, "save_every": 2, "validate_every": 7}})
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
    assert state is not None and 0 < state["step"] < 14
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
