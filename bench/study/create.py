"""From finished runs to the folder of a study."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np

from bench.captions.pictures import OUTLINE, nearest
from bench.core.errors import RfbenchError, one_line
from bench.core.files import digest, write_bytes
from bench.core.image import RGB, Mask
from bench.records.folder import RunFolder
from bench.records.run import read_run, refuse_to_mix
from bench.reports.pictures import eight_bit
from bench.score.replay import replay
from bench.study import store
from bench.study.design import HR, LR, PIXELS, Comparison, Sitting, Sizes, plan_sittings
from bench.study.plan import (
    ANSWERS,
    FORMAT,
    KEY,
    PICTURES,
    PLAN,
    SECRET,
    Design,
    Key,
    Kind,
    Panel,
    Plan,
    Secret,
    Shown,
    System,
    Trial,
    profile,
    questions,
    write_private,
)

_OUTLINED = f"{HR} outlined"
CONSENT = (
    "You will compare images and judge captions. Your role, degree, field and years of experience are stored with your "
    "answers under a pseudonym; your name, address and anything about you beyond this are not. You may stop at any "
    "time, come back by the same link, and have your answers deleted."
)


@dataclass(frozen=True)
class Wanted:
    """What is asked for; the fields are the options of ``rfbench study create``."""

    runs: Sequence[RunFolder]
    design: Design
    sizes: Sizes
    seed: int
    margin: tuple[float, float] = (0.4, 0.6)
    title: str = "Image study"
    feature: str = "slump"
    contact: str = ""
    consent: str = CONSENT
    data: str | None = None
    images: int | None = None


@dataclass
class _Picture:
    """What is there to show of one image, 8-bit RGB on the HR grid; ``systems`` by label."""

    scene: str
    caption: str
    mask: Mask | None
    sides: dict[str, np.ndarray] = field(default_factory=dict)


def create(out: Path, wanted: Wanted) -> Plan:
    """Make the folder ``out``: pictures, answers' file, secret and key, and last the plan.

    Raises
    ------
    RfbenchError
        The folder is not empty, the runs cannot be shown (unfinished, no HR), or the sizes cannot be met.
    NotComparable
        Runs of different data or protocols.
    """
    low, high = wanted.margin
    if not 0.0 < low < 0.5 < high < 1.0:
        raise RfbenchError(f"--margin: found {low:g},{high:g}, expected two shares around 0.5, such as 0.4,0.6")
    if out.exists() and any(out.iterdir()):
        raise RfbenchError(f"{out} exists and is not empty; a plan is never changed: choose another folder")
    labels = _labels(wanted.runs)
    pictures, systems = _pictures(wanted, labels)
    ids = sorted(pictures)
    if wanted.images is not None:
        ids = [ids[i] for i in sorted(np.random.default_rng(wanted.seed).permutation(len(ids))[: wanted.images])]
    sittings = plan_sittings(ids, labels, wanted.design, wanted.sizes, wanted.seed)
    secret = secrets.token_hex(32)
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    out.chmod(0o700)
    trials: dict[str, tuple[Trial, ...]] = {}
    shown: dict[str, Shown] = {}
    stored: dict[str, Path] = {}
    for number, sitting in enumerate(sittings):
        made = _Maker(out, secret, pictures, wanted.design, number, stored).trials(sitting)
        trials[f"R{number + 1:02}"] = tuple(trial for trial, _ in made)
        shown |= {trial.id: what for trial, what in made}
    first = read_run(wanted.runs[0]).plan
    key = Key(FORMAT, first.data.name, first.protocol_name, systems, shown, secrets.token_hex(16))
    plan = Plan(
        FORMAT, wanted.title, wanted.design, wanted.seed, wanted.margin, profile(),
        questions(wanted.design, wanted.feature), trials, key.sha256, wanted.contact, wanted.consent,
    )  # fmt: skip
    write_private(out / SECRET, Secret(FORMAT, secret))
    write_private(out / KEY, key)
    store.make(out / ANSWERS, plan.sha256)
    write_private(out / PLAN, plan)
    return plan


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _labels(runs: Sequence[RunFolder]) -> list[str]:
    found = [read_run(r) for r in runs]
    for run in found[1:]:
        refuse_to_mix(found[0], run, (), verdict="these runs cannot be shown in one study",
                      advice="make a study of each", same_policy=False)  # fmt: skip
    labels = [one_line(run.summary.rows["sample"].label, 80) for run in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise RfbenchError(f"two rows of the study would be called '{twice}'; leave one run out, or name it otherwise")
    return labels


def _pictures(wanted: Wanted, labels: Sequence[str]) -> tuple[dict[str, _Picture], tuple[System, ...]]:
    """The images that all runs have, and the systems with the hash of what is shown of each."""
    found: dict[str, _Picture] = {}
    systems = []
    for run, label in zip(wanted.runs, labels, strict=True):
        hashes = []
        for task, estimates in replay(run, wanted.data):
            hr, answer = task.reference.display, estimates["sample"].display
            if hr is None:
                raise RfbenchError(f"{run.path}: the image '{one_line(task.id, 60)}' has no HR image to compare with")
            if not answer.size:
                raise RfbenchError(f"{run.path}: '{one_line(task.id, 60)}' has no R G B answer that could be shown")
            pixels = eight_bit(answer)
            hashes.append([task.id, hashlib.sha256(pixels.tobytes()).hexdigest()])
            if task.id not in found:
                found[task.id] = _Picture(task.scene_id, task.caption, task.reference.mask)
                # The reference's LR has lost the protocol's border, as HR and the answers have.
                lr = task.reference.lr
                seen = task.fitted.apply(lr.select(RGB)) if task.fitted and lr else task.lr_display
                found[task.id].sides = {HR: eight_bit(hr), LR: _repeated(eight_bit(seen), hr.shape[:2])}
            found[task.id].sides[label] = pixels
        record = read_run(run).record
        systems.append(System(label, run.path.resolve().name, record.plan_sha256, digest(sorted(hashes))))
    complete = {i: p for i, p in found.items() if set(labels) <= p.sides.keys()}
    if not complete:
        raise RfbenchError("the runs have no image in common, so there is nothing to show")
    for picture in complete.values():
        picture.sides[PIXELS] = picture.sides[LR]
    return complete, tuple(systems)


def _repeated(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """LR pixels on the HR grid, each repeated: nothing is made up between them."""
    return pixels[np.ix_(*(np.arange(n) * m // n for n, m in zip(size, pixels.shape[:2], strict=True)))]


class _Maker:
    """Makes the trials of one reviewer and the pictures they show."""

    def __init__(
        self, out: Path, secret: str, pictures: dict[str, _Picture], design: Design, reviewer: int,
        stored: dict[str, Path],
    ) -> None:  # fmt: skip
        self._out, self._secret, self._pictures, self._design = out, secret.encode(), pictures, design
        self._reviewer, self._stored = reviewer, stored

    def trials(self, sitting: Sitting) -> list[tuple[Trial, Shown]]:
        """Stage 1, then stage 2, in their order."""
        made = []
        for n, image in enumerate(sitting.captions):
            if self._pictures[image].caption:
                made.append(self._trial(f"caption/{n}", "caption", image, (HR,), ("Image",), "own"))
        first = len(made)
        for n, one in enumerate(sitting.comparisons):
            of = made[first + one.repeat_of][0].id if one.repeat_of >= 0 else ""
            made.append(self._compared(n, one, of))
        return made

    def _compared(self, n: int, one: Comparison, of: str) -> tuple[Trial, Shown]:
        if self._design == "blind":
            return self._trial(f"pair/{n}", one.kind, one.image, (one.left, one.right), ("A", "B"), one.purpose, of)
        # The roles are named; what is balanced is where SR stands between HR and LR.
        system = one.left if one.left not in (HR, LR) else one.right
        if one.purpose == "same":
            system = HR
        order = [(HR, "HR"), (system, "SR"), (LR, "LR")]
        names, titles = zip((_OUTLINED, "HR, outlined"), *(order if one.right == system else order[::-1]), strict=True)
        return self._trial(f"paper/{n}", "paper", one.image, names, titles, one.purpose, of)

    def _trial(
        self, name: str, kind: str, image: str, panels: tuple[str, ...], titles: tuple[str, ...], purpose: str,
        of: str = "",
    ) -> tuple[Trial, Shown]:  # fmt: skip
        picture = self._pictures[image]
        trial = self._opaque(name)
        made = []
        for n, (panel, title) in enumerate(zip(panels, titles, strict=True)):
            opaque = self._opaque(f"{name}/{n}")
            pixels = picture.sides[HR if panel == _OUTLINED else panel]
            if panel == _OUTLINED and picture.mask is not None:
                pixels = _outlined(pixels, picture.mask)
            self._put(opaque, stored_png(pixels))
            made.append(Panel(opaque, title))
        mask = ""
        if kind != "paper" and picture.mask is not None and picture.mask.any():
            mask = self._opaque(f"{name}/mask")
            self._put(mask, _overlay(picture.mask, picture.sides[HR].shape[:2]))
        what = Shown(image, picture.scene, panels, purpose, of)
        page = Trial(trial, cast("Kind", kind), tuple(made), picture.caption, parts_of(picture.caption), mask)
        return page, what

    def _put(self, opaque: str, png: bytes) -> None:
        """Store a picture under its name of this trial; its bytes lie on the disk once, however often it is shown."""
        path = self._out / PICTURES / f"{opaque}.png"
        first = self._stored.setdefault(hashlib.sha256(png).hexdigest(), path)
        try:
            if first == path:
                raise FileNotFoundError
            path.hardlink_to(first)
        except OSError:  # the first of them, or a file system without links
            write_bytes(path, png, durable=False)

    def _opaque(self, name: str) -> str:
        """An id that says nothing and that nobody can make without the secret."""
        return hmac.new(self._secret, f"{self._reviewer}/{name}".encode(), hashlib.sha256).hexdigest()[:24]


def parts_of(caption: str) -> tuple[str, ...]:
    """The caption's clauses, which a reviewer may call wrong one by one."""
    found = re.split(r"(?<=[,;.])\s+|\s+(?=(?:above|below|beside|into|with|between|along)\b)", caption.strip())
    return tuple(p for p in found if p)


def stored_png(pixels: np.ndarray) -> bytes:
    """A PNG whose length tells its size in pixels alone: what compresses well is as long as what does not."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG", compress_level=0)
    return out.getvalue()


def _outlined(pixels: np.ndarray, mask: Mask) -> np.ndarray:
    from bench.captions.pictures import outlined

    return outlined(pixels, nearest(mask, (pixels.shape[0], pixels.shape[1])), width=1)


def _overlay(mask: Mask, size: tuple[int, int]) -> bytes:
    """The outline alone, transparent elsewhere."""
    from scipy import ndimage

    grid = nearest(mask, size)
    ring = ndimage.binary_dilation(grid) & ~grid
    rgba = np.zeros((*size, 4), np.uint8)
    rgba[ring] = (*OUTLINE, 255)
    return stored_png(rgba)
