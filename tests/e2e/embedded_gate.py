"""The project's gate, and what a gate must catch, with the installed command: ``python -m tests.e2e.embedded_gate``.

Runs the interpolations on the 24 embedded scenes and rareflow-tiny on the first three, and holds them against
``results/golden``. Then three things that a gate is for are shown with the same runs: a slight blur is caught, other
data are refused, another version of a library holds with a note. Prints what the commands print; exits 1 where one of
them does not end as it should.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image, ImageFilter

GOLDEN = Path("results/golden")
METRICS = "psnr_rgb,ssim_rgb,fsim,sam_rgb,de00,logspec_l1,nll,ece,crps"


def rfbench(*words: object, expected: int = 0, shown: bool = True) -> str:
    """Run the installed command; its standard output. Ends the program where the exit code is another."""
    print(f"\n$ rfbench {' '.join(map(str, words))}", flush=True)
    done = subprocess.run(["rfbench", *map(str, words)], capture_output=True, text=True, check=False)
    if shown or done.returncode != expected:
        print(done.stdout.rstrip() or done.stderr.rstrip(), flush=True)
    print(f"exit code {done.returncode}", flush=True)
    if done.returncode != expected:
        sys.exit(f"{done.stderr}\nexpected exit code {expected}")
    return done.stdout


def require(condition: bool, what: str) -> None:
    """End the program where something was not said."""
    if not condition:
        sys.exit(f"expected {what}")


def main() -> None:
    """Run, hold, and show."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        today, golden = folder / "today", folder / "golden"
        given = ("--protocol", "paired", "--metrics", METRICS, "--device", "cpu")
        rfbench("run", "--model", "bicubic", "--model", "bicubic-affine", *given, "--out", today, shown=False)
        rfbench("run", "--model", "rareflow", "--limit", 3, *given, "--out", today, shown=False)
        rfbench("gate", today, "--against", GOLDEN)

        print("\n# a slight blur is caught, with the metrics and the images named")
        rfbench("export", today / "bicubic", "--out", folder / "pictures", shown=False)
        for path in (folder / "pictures" / "bicubic").glob("*.png"):
            with Image.open(path) as image:
                image.filter(ImageFilter.GaussianBlur(1.5)).save(path)  # a third of an LR pixel
        model = f"files:folder={folder / 'pictures' / 'bicubic'},label=bicubic"
        rfbench("run", "--model", model, *given, "--out", folder / "blurred", shown=False)
        said = rfbench("gate", folder / "blurred", "--against", GOLDEN / "bicubic", expected=1)
        for title in ("PSNR (dB) ↑", "SSIM ↑", "FSIM ↑", "LogSpec (ln) ↓"):
            caught = f"{title}: moved by more than "
            require(caught in said, f"'{caught}'")
        require("24 images moved; most to the worse scene_" in said, "the images that moved")

        print("\n# other data are refused")
        some = ("--limit", 6, "--metrics", "psnr_rgb", "--protocol", "paired", "--device", "cpu")
        rfbench("run", "--model", "bicubic", *some, "--out", folder / "few", shown=False)
        rfbench("gate", folder / "few", "--against", GOLDEN / "bicubic", expected=3)

        print("\n# another version of a library holds, with a note")
        shutil.copytree(GOLDEN, golden)
        record = golden / "bicubic" / "run.json"
        found = json.loads(record.read_text(encoding="utf-8"))
        found["software"]["packages"]["scikit-image"] = "0.24.0"
        record.write_text(json.dumps(found), encoding="utf-8")
        said = rfbench("gate", today / "bicubic", "--against", golden / "bicubic")
        require("scikit-image 0.24.0 -> " in said, "the version that differs")
    print(f"\nthe gate holds and catches ({time.perf_counter() - started:.0f} s)")


if __name__ == "__main__":
    main()
