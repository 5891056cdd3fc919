"""What opensr-test gives ten textured scenes at scale 2, 4 and 8: ``python -m tests.reference.opensr_package``.

Needs ``pip install opensr-test==1.3.3``. The numbers are kept beside this file, since the package takes ten seconds to
import, brings OpenCV, Kornia and OpenCLIP, and seeds every generator anew at each call.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata

import numpy as np

from tests.reference.cases_opensr import KEPT, SCENES, SIZES, triple


def main() -> None:
    """Write the file."""
    import opensr_test
    import torch

    version = metadata.version("opensr-test")
    if version != "1.3.3":
        sys.exit(f"error: found opensr-test {version}, expected 1.3.3")
    values = {}
    for scale, lr_px in SIZES:
        triples = [[torch.from_numpy(x.astype(np.float64)) for x in triple(s, scale, lr_px)] for s in range(SCENES)]
        values[f"x{scale}"] = [opensr_test.Metrics().compute(lr=lr, sr=sr, hr=hr) for lr, sr, hr in triples]
    made = {"package": f"opensr-test {version}", "torch": torch.__version__, "values": values}
    KEPT.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(KEPT.name)


if __name__ == "__main__":
    main()
