"""The small part of ``python -m tests.attack``: kills at renames, signals, machines that lack what others have."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from tests.attack import environments, kills, signals
from tests.attack.commands import commands

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
READ = (["weights", "ls"], ["envs", "ls"])
MACHINES = ("no HOME", "a user whom nobody knows, without HOME", "a HOME that is a file", "no temporary folder at all",
            "streams in ASCII", "an empty PATH")  # fmt: skip


def test_an_import_killed_at_each_rename_ends_in_the_same_bytes(tmp_path: Path) -> None:
    command = commands(tmp_path / "material")["data import"]
    found = kills.at_renames(command, 2, tmp_path / "work", tmp_path / "site")
    assert not found.wrong and found.kills >= 1 and found.identical == found.kills, found


def test_what_an_interrupted_import_says_is_true(tmp_path: Path) -> None:
    command = commands(tmp_path / "material")["data import"]
    found = signals.attack(command, ["Ctrl-C twice", "SIGTERM"], tmp_path / "work", random.Random(1), slack=3)
    assert not found.wrong and found.scenarios == 2, found


@pytest.mark.parametrize("name", MACHINES)
def test_commands_work_on_a_machine_with(name: str, tmp_path: Path) -> None:
    if "temporary" in name and any(Path(sys.executable).is_relative_to(d) for d in ("/tmp", "/var/tmp", "/usr/tmp")):
        pytest.skip("Python itself lies in the temporary folder, which is taken away")
    found = environments.attack(name, tmp_path / "work", READ)
    if found is None:
        pytest.skip("this machine cannot be made into that one")
    assert not found.wrong and found.worked == len(READ), found
