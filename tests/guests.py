"""A plugin whose model runs in a guest, its twin that runs in this process, and environments without an installer."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil

from bench.core.errors import RfbenchError
from bench.models.guests import environment
from bench.models.guests.environment import Environment

SPECS = '''
"""A model twice: in a guest, and in rfbench's own process."""
import numpy as np
from bench.models import Adapter, Batch, Environment, ModelSpec, Prediction

OPTIONS = {"amount": "0.05", "do": "", "on": ""}
COMMON = dict(summary="nearest x4 with noise", licence="CC0", scale_factors=(4,), stochastic=True, multiple=2)
HOME = Environment(shim="rfbench_guests.shim:Noisy", requirements="rfbench_guests/requirements.txt", item_s=ITEM_S)
GUEST = ModelSpec(name="guest-noisy", adapter="bench.models.guests.adapter:GuestAdapter", environment=HOME,
                  default_options=OPTIONS, **COMMON)
TWIN = ModelSpec(name="twin-noisy", adapter="rfbench_guests:Twin", default_options=OPTIONS, **COMMON)

class Twin(Adapter):
    def upscale(self, batch: Batch) -> Prediction:
        noise = batch.noise(3, 4.0)
        up = np.repeat(np.repeat(batch.images, 4, 1), 4, 2)[:, None]
        return Prediction(samples=(up + np.float32(self.options["amount"]) * noise).astype(np.float32),
                          maps={"grey": up.mean(axis=(1, 4))}, facts=tuple({"mean": float(i.mean())} for i in up))
'''

SHIM = '''
"""What the guest runs; it misbehaves where it is told to (``do``), on the image ``on``."""
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from rfbench_guest import UserError

class Noisy:
    def __init__(self, options, weights, checkout):
        self.options = options
        if options["do"] == "unloadable":
            raise ValueError("the checkpoint has no key 'unet'")
    def load(self, device, dtype):
        print("loading", device, dtype)
        if self.options["do"] == "slow start":
            time.sleep(60)
        print(os.environ.get("NOISE", ""), "{not json}", flush=True)
    def upscale(self, batch):
        do = self.options["do"] if self.options["on"] in ("", *batch.ids) else ""
        once = Path(os.environ.get("MARKER", "/nonexistent"))
        if do == "die once" and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGSEGV)
        if do == "die":
            print("about to die", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if do == "exit":
            sys.exit("upstream gives up")
        if do == "hang":
            time.sleep(600)
        if do == "fail":
            raise ValueError("this image does not suit me")
        if do == "tell":
            raise UserError("the checkpoint is for x2, expected x4; take another")
        if do == "memory":
            raise MemoryError("Unable to allocate 1 PiB")
        if do == "garbage":
            os.write(int(sys.argv[2]), b"hello\\n")
        if do == "endless":
            for _ in range(20):
                os.write(int(sys.argv[2]), b"x" * 2**20)
        if do == "leave a child":
            if os.fork() == 0:
                time.sleep(600)
        if do == "back":
            return {"mean": batch.images}
        if do == "threads":
            return {"mean": np.full((1, 1, 1, 1), float(os.environ["OMP_NUM_THREADS"]), np.float32)}
        time.sleep(float(os.environ.get("PACE_S", "0")))
        for i in range(200):
            print("step", i)
        noise = batch.noise(3, 4.0)
        up = np.repeat(np.repeat(batch.images, 4, 1), 4, 2)[:, None]
        samples = (up + np.float32(self.options["amount"]) * noise).astype(np.float32)
        if do == "shape":
            samples = samples[:, :, 1:]
        if do == "double":
            samples = samples.astype(np.float64)
        if do == "nan":
            samples[0, 0, 0, 0] = np.nan
        if do == "list":
            return {"samples": [1, 2]}
        if do == "other":
            return {"picture": samples}
        if do == "objects":
            return {"mean": np.array([[None]], object)}
        if do == "half":
            plain = np.save
            def half(path, values, **options):
                plain(path, values, **options)
                os.truncate(path, os.path.getsize(path) // 2)
            np.save = half
        return {"samples": samples, "maps": {"grey": up.mean(axis=(1, 4))},
                "facts": [{"mean": i.mean()} for i in up]}
'''

ENTRY_POINTS = "[rfbench.models]\nguest-noisy = rfbench_guests:GUEST\ntwin-noisy = rfbench_guests:TWIN\n"


def uv_is_here() -> bool:
    """Whether environments can be made."""
    try:
        return bool(environment.find_uv())
    except RfbenchError:
        return False


def install_guests(site: Path, item_s: float = 60.0) -> Path:
    """Lay the plugin into ``site`` as an installer would."""
    package, information = site / "rfbench_guests", site / "rfbench_guests-1.0.dist-info"
    package.mkdir(parents=True)
    information.mkdir()
    (package / "__init__.py").write_text(SPECS.replace("ITEM_S", repr(item_s)))
    (package / "shim.py").write_text(SHIM)
    (package / "requirements.txt").write_text("numpy\n")
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: rfbench-guests\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    return site


def fake_environment(asked: Environment, python: str = sys.executable) -> Path:
    """The environment as if it were built, with this Python and its packages in it."""
    place = environment.root() / "envs" / asked.key()
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    (place / "bin" / "python").chmod(0o755)
    record = {"format": environment.FORMAT, "key": asked.key(), "python": "3", "requirements": asked.requirements,
              "requirements_sha256": asked.requirements_sha256(), "packages": [], "bytes": 1, "built": ""}  # fmt: skip
    (place / "environment.json").write_text(json.dumps(record))
    return place


def family(folder: Path) -> list[psutil.Process]:
    """The processes of guests whose private folder lies in ``folder``."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if process.status() != psutil.STATUS_ZOMBIE and words and words[-1].startswith(f"{folder}/rfbench-guest-"):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found


def left_behind(folder: Path, within_s: float = 10.0) -> list[str]:
    """What guests left in ``folder`` after a while: processes and private folders. There should be nothing."""
    deadline = time.monotonic() + within_s
    while True:
        found = [*(str(p) for p in family(folder)), *(str(p) for p in folder.glob("rfbench-guest-*"))]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)
