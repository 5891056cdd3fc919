"""The packages that metrics are computed by: what a run records the versions of, and a methods section cites."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Software:
    """An installable package.

    Attributes
    ----------
    distribution : the name under which it is installed (``scikit-image``), which need not be that of its import.
    citation : whose work it is: keys of ``bench/reports/cite/citations.bib``, BibTeX entries, or plain words; empty
        where citing the metric cites it.
    licence : as its authors state it.
    """

    distribution: str
    citation: str = ""
    licence: str = ""


COLOUR = Software("colour-science", "colour", "BSD-3-Clause")
DISTS = Software("DISTS-pytorch", licence="MIT")
LPIPS = Software("lpips", licence="BSD-2-Clause")
NUMPY = Software("numpy", "harris2020numpy", "BSD-3-Clause")
PYIQA = Software("pyiqa", "chen2022pyiqa", "PolyForm Noncommercial 1.0.0")
SCIPY = Software("scipy", "virtanen2020scipy", "BSD-3-Clause")
SKIMAGE = Software("scikit-image", "vanderwalt2014skimage", "BSD-3-Clause")
TORCH = Software("torch", "paszke2019pytorch", "BSD-3-Clause")
TORCH_FIDELITY = Software("torch-fidelity", "obukhov2020fidelity", "Apache-2.0")
