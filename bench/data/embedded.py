"""The embedded benchmark: 24 procedural scenes that are part of the package, made by ``rfbench data scenes``."""

from __future__ import annotations

from pathlib import Path

from bench.core.errors import RfbenchError
from bench.data.dataset import FolderDataset

FOLDER = Path(__file__).with_name("embedded")
SEED = 2026
COUNT = 24


class EmbeddedScenes(FolderDataset):
    """24 procedural views of thawing tundra: LR 40x40 px (10 m), HR 200x200 px (2 m), NIR, masks and captions."""

    def __init__(self) -> None:
        if not FOLDER.is_dir():
            raise RfbenchError("the embedded scenes are missing from this installation; install rfbench again")
        super().__init__(FOLDER)


SCENES = EmbeddedScenes
