"""The long commands under attack: how each is started in a folder of its own, and what it must leave there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import rasterio
from rasterio.transform import from_origin

from tests.conftest import ROOT, write_dataset
from tests.small_rareflow import small_config, write_config, write_pairs

VARYING = ("host.json", "training/*.jsonl", "tensorboard/*")
"""Files that may differ between two equal commands."""
LIMIT_S = 300.0


@dataclass(frozen=True)
class Command:
    """A command of rfbench.

    Attributes
    ----------
    words : its arguments, for a folder that it works in.
    begin : lays down in that folder what is there before; nothing by default.
    may_refuse : whether it may refuse to go on where it was killed, in a line that says what to do.
    """

    name: str
    words: Callable[[Path], list[str]]
    begin: Callable[[Path], object] = field(default=lambda work: None)
    may_refuse: bool = False

    def start(self, work: Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start it in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "bench.cli", *self.words(work)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
            env=clean_environ() | dict(environment or {}), cwd=work,
        )  # fmt: skip

    def finish(self, work: Path) -> tuple[int, str]:
        """Run it to its end: exit code and what it said on stderr."""
        process = self.start(work)
        _, said = process.communicate(timeout=LIMIT_S)
        return process.returncode, said


def clean_environ() -> dict[str, str]:
    """This process's environment, with one thread for each process and rfbench on the path."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def fresh(command: Command, work: Path) -> Path:
    """``work`` as the command finds it at first."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command.begin(work)
    return work


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, but for those that may differ."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not any(map(p.match, VARYING)))
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def leftovers(folder: Path) -> list[str]:
    """What a finished command must not leave: temporary files, locks, journals."""
    return [str(p.relative_to(folder)) for p in folder.rglob(".*") if p.name.endswith((".part", ".lock", ".json"))]


def orphans(work: Path) -> list[psutil.Process]:
    """Processes that were started for ``work`` and still run."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd", "status"]):
        if process.pid == os.getpid() or process.info["status"] == psutil.STATUS_ZOMBIE:
            continue
        words = process.info["cmdline"] or []
        if any(str(work) in word for word in words) or (process.info["cwd"] or "").startswith(str(work)):
            found.append(process)
    return found


def commands(material: Path) -> dict[str, Command]:
    """All of them, with the small inputs that they need below ``material``."""
    data = material / "data"
    if not data.is_dir():
        write_dataset(data, count=12)
        _pictures(material / "hr", 0.0)
        _pictures(material / "sr", 0.02)
        _raster(material / "scene.tif")
        write_pairs(material / "chips", 5)
        write_config(material / "small.toml", small_config({"train": {"save_every": 1}}))
    training = ["--config", str(material / "small.toml"), "--data", str(material / "chips"), "--threads", "1"]
    metrics, model = ["--metrics", "psnr_rgb,ssim_rgb"], ["--model", "bicubic"]
    run = ["run", "--model", "bicubic", "--model", "nearest", "--data", str(data), *metrics, "--batch-size", "2"]
    golden = ["--against", "golden", "--update", "--reason", "an attack"]
    parts = [*run, "--workers", "0", "--out", str(material / "parts")]

    def once(folder: str, *commands: list[str]) -> None:
        if not (material / folder).is_dir():
            for words in commands:
                words = [sys.executable, "-m", "bench.cli", *words]
                subprocess.run(words, check=True, env=clean_environ(), capture_output=True)

    def lay_runs(work: Path) -> None:
        once("runs", [*run, "--workers", "0", "--out", str(material / "runs")])

    def lay_own_runs(work: Path) -> None:
        lay_runs(work)
        shutil.copytree(material / "runs", work / "runs")

    def lay_golden(work: Path) -> None:
        lay_runs(work)
        shutil.copytree(material / "runs", work / "golden", ignore=shutil.ignore_patterns("host.json"))

    def lay_parts(work: Path) -> None:
        once("parts", [*parts, "--shard", "1/2"], [*parts, "--shard", "2/2"])
        shutil.copytree(material / "parts", work / "parts")

    known = (
        Command("run", lambda work: [*run, "--workers", "1", "--out", str(work / "out")]),
        Command("run, alone", lambda work: [*run, "--workers", "0", "--out", str(work / "out")]),
        Command("predict", lambda work: ["predict", *run[1:5], "--data", str(data), "--out", str(work / "out")]),
        Command("score", lambda work: ["score", str(work / "runs"), "--metrics", "psnr_rgb,sam_rgb,niqe"],
                begin=lay_own_runs),
        Command("score --pred", lambda work: ["score", "--pred", str(material / "sr"), "--ref", str(material / "hr"),
                                              *metrics, "--out", str(work / "s"), "--save", str(work / "s.csv")]),
        Command("merge", lambda work: ["merge", str(work / "parts")], begin=lay_parts),
        Command("report", lambda work: ["report", str(material / "runs"), "--out", str(work / "page")],
                begin=lay_runs),
        Command("export", lambda work: ["export", str(material / "runs"), "--out", str(work / "pictures")],
                begin=lay_runs),
        Command("train", lambda work: ["train", *training, "--out", str(work / "trained")]),
        Command("upscale", lambda work: ["upscale", str(material / "scene.tif"), str(work / "x4.tif"), *model]),
        Command("data scenes", lambda work: ["data", "scenes", str(work / "scenes"), "--count", "4", "--size", "100"],
                may_refuse=True),
        Command("data import", lambda work: ["data", "import", "folder", str(material / "hr"), str(work / "made")],
                may_refuse=True),
        Command("gate --update", lambda work: ["gate", str(material / "runs"), *golden], begin=lay_golden),
        Command("table", lambda work: ["table", str(material / "runs"), "--out", str(work / "t.md")], begin=lay_runs),
    )  # fmt: skip
    return {command.name: command for command in known}


def _pictures(folder: Path, noise: float) -> None:
    from PIL import Image

    folder.mkdir(parents=True)
    for i in range(6):
        random = np.random.default_rng(i)
        smooth = np.kron(random.random((8, 8, 3)), np.ones((16, 16, 1)))
        values = np.clip(smooth + noise * random.standard_normal(smooth.shape), 0, 1)
        Image.fromarray(np.rint(values * 255).astype(np.uint8)).save(folder / f"p{i}.png")


def _raster(path: Path) -> None:
    values = np.random.default_rng(5).integers(300, 3000, (3, 300, 400)).astype(np.uint16)
    with rasterio.open(path, "w", driver="GTiff", width=400, height=300, count=3, dtype="uint16", crs="EPSG:32608",
                       transform=from_origin(470000, 7550000, 10, 10)) as raster:  # fmt: skip
        raster.write(values)
