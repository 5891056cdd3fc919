"""A checkpoint's card: what it is and how it was made, and the hashes that its files are held against.

Imports nothing heavy: a wrong folder is said at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec

from rareflow.errors import RareflowError

FORMAT = 1
EMBEDDED = Path(__file__).parent / "tiny"
_KINDS = {
    "object": "an object", "array": "a list", "str": "a text", "int": "a whole number", "float": "a number",
    "bool": "true or false", "null": "null",
}  # fmt: skip

Number = int | float
Variance = Annotated[float, msgspec.Meta(gt=0, lt=1e30)]


class ScaleRecord(msgspec.Struct, frozen=True):
    """What brings the variance of MC dropout to u: tau of eq. 5, and kappa of eq. 6."""

    tau: Variance
    kappa: Variance


class TrainingData(msgspec.Struct, frozen=True, kw_only=True):
    """The dataset of a training: how many chips of how many scenes, and what the numbers of each side mean."""

    name: str = ""
    description: str = ""
    fingerprint: str = ""
    train: int = 0
    validation: int = 0
    scenes: int = 0
    sides: dict[str, dict[str, Any]] = {}


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """A checkpoint that a training started from: its label, and the hashes of its files."""

    label: str = ""
    files: dict[str, str] = {}


class InitialControl(msgspec.Struct, frozen=True, omit_defaults=True, rename={"name": "from"}):
    """A published ControlNet that a training started from: its folder or hub id, and the identity of its content."""

    name: str = ""
    identity: str = ""


class Stage(msgspec.Struct, frozen=True, omit_defaults=True):
    """A stage of a training: its steps, the terms of the loss over its first and last lines, its validation."""

    steps: int
    first: dict[str, Number] = {}
    last: dict[str, Number] = {}
    validation: dict[str, Number] = {}


class TrainingIds(msgspec.Struct, frozen=True):
    """How many images a checkpoint was trained on, and a hash over the hashes of their ids."""

    count: int
    sha256: str


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint is and how it was made.

    Attributes
    ----------
    config : the configuration, as ``rareflow.config.Config`` writes and checks it.
    command, commit, dirty, python, versions, device : what made it.
    base : by part of an SD3 base (``transformer``, ``vae``, ...) the identity of its content; empty without one.
    left_out : losses that could not be had, for want of weights.
    parameters : by network, how many.
    gates : the gates' alpha at the corners of (sigma, u), a number a layer.
    bank : of the mean v of the training chips at the end, how many and three percentiles.
    stages : None in the checkpoint of a prior, which is not finished.
    files : the SHA-256 of every file, by its path in the folder.
    validation : of the checkpoint as it is stored, on held-out scenes; written last.
    """

    format: int = FORMAT
    label: str = "rareflow"
    config: dict[str, Any] = {}
    scale: ScaleRecord | None = None
    command: str = ""
    commit: str | None = None
    dirty: bool | None = None
    python: str = ""
    data: TrainingData = TrainingData()
    base: dict[str, str] = {}
    control: InitialControl = InitialControl()
    prior: Origin = Origin()
    start: Origin = Origin()
    left_out: list[str] = []
    parameters: dict[str, int] = {}
    gates: dict[str, list[float]] = {}
    bank: dict[str, Number] = {}
    stages: dict[str, Stage] | None = None
    versions: dict[str, str] = {}
    device: str = ""
    training_ids: TrainingIds | None = None
    files: dict[str, str] = {}
    validation: dict[str, Number] = {}

    def __post_init__(self) -> None:
        part: Any = self.config
        for name, key in (("config.train", "train"), ("config.train.control", "control")):
            part = part.get(key, {})
            if not isinstance(part, dict):
                raise ValueError(f"{name}: found {str(part)[:40]!r}, expected an object")
        crop_px = part.get("crop_px", 200)
        if not isinstance(crop_px, int) or crop_px < 1:
            raise ValueError(
                f"config.train.control.crop_px: found {str(crop_px)[:40]!r}, expected a whole number of 1 or more"
            )

    @property
    def crop_px(self) -> int:
        """The side of the HR crops of training: positions beyond were never seen."""
        return int(self.config.get("train", {}).get("control", {}).get("crop_px", 200))

    @property
    def origin(self) -> Origin:
        """This checkpoint, as one that starts from it names it."""
        return Origin(self.label, self.files)


def id_hash(text: str) -> str:
    """How a training image's id is written down: 16 hexadecimal digits of BLAKE2b."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def read_card(folder: Path) -> Card:
    """A checkpoint's card; RareflowError for a folder that is no checkpoint."""
    if not folder.is_dir():
        raise RareflowError(f"checkpoint {folder}: found no such folder, expected one that `rfbench train` wrote")
    path = folder / "card.json"
    if not path.is_file():
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"))
        what = f"pickled weights ({pickled[0]}), which are never loaded" if pickled else "no card.json"
        raise RareflowError(
            f"checkpoint {folder}: found {what}, expected a folder that `rfbench train` finished (card.json and "
            "safetensors files); train, or give another folder"
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())[:80]
        raise RareflowError(f"{path}: not readable as JSON: {what}; copy the checkpoint anew") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT or not isinstance(card.get("files"), dict):
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise RareflowError(f"{path}: found format {str(found)[:40]!r}, expected {FORMAT}; train the checkpoint anew")
    try:
        return msgspec.convert(card, Card)
    except msgspec.ValidationError as error:
        raise RareflowError(f"{path}: {_said(card, error)}; copy the checkpoint anew") from None


def _said(value: Any, error: msgspec.ValidationError) -> str:
    """What of a card is wrong: the names down to the part, what was found there, and what was expected."""
    text, _, place = str(error).partition(" - at `$")
    place, many, _ = place.rstrip("`").partition("[")
    names = place.split(".")[1:]
    where = f"{'.'.join(names)}: " if names else ""
    expected = re.match(r"Expected `([^`]+)`( [<>]=? \S+)?", text)
    kinds = expected[1].split(" | ") if expected is not None else []
    if expected is None or not {*kinds} <= {*_KINDS}:
        return " ".join(f"{where}{text}".split())[:200]
    wanted = " or ".join(_KINDS[kind] for kind in kinds if kind != "int" or "float" not in kinds) + (expected[2] or "")
    if many:
        return f"{where}found an entry of another kind, expected {wanted} in each"
    for name in names:
        value = value[name]
    return f"{where}found {str(value)[:40]!r}, expected {wanted}"


def write_card(folder: Path, card: Card) -> None:
    """Write a checkpoint's card, whole or not at all."""
    temporary = folder / ".card.json.tmp"
    temporary.write_text(json.dumps(msgspec.to_builtins(card), indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / "card.json")


def card_identity(card: Card) -> str:
    """A SHA-256 of all that a checkpoint's card says of what it computes: weights, configuration, base, scale of u."""
    config = {k: v for k, v in card.config.items() if k not in ("train", "loss", "base")}
    parts = [card.files, config, card.base, msgspec.to_builtins(card.scale)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def training_ids(folder: Path) -> frozenset[str]:
    """The hashes (see ``id_hash``) of the ids that a checkpoint was trained on."""
    card = read_card(folder)
    verify(folder, card, ["training_ids.json"])
    path = folder / "training_ids.json"
    try:
        hashes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())[:80]
        raise RareflowError(f"{path}: not readable as JSON: {what}; copy the checkpoint anew") from None
    if not isinstance(hashes, list) or not all(isinstance(h, str) for h in hashes):
        raise RareflowError(f"{path}: found {str(hashes)[:40]!r}, expected a list of hashes; copy the checkpoint anew")
    return frozenset(hashes)


def verify(folder: Path, card: Card, names: Iterable[str]) -> None:
    """Hold files against the card's hashes."""
    root = folder.resolve()
    for name in names:
        shown = repr(name[:60]) if not name.isprintable() or len(name) > 60 else name
        try:
            path = (root / name).resolve()
        except (OSError, ValueError, RuntimeError):  # a zero byte, a name too long, links in a circle
            path = root.parent
        if not path.is_relative_to(root):
            raise RareflowError(
                f"{folder / 'card.json'}: found the file name {shown}, expected names of files in this folder; do not "
                "use this checkpoint, get it from who made it"
            )
        expected = card.files.get(name)
        if not isinstance(expected, str):
            raise RareflowError(
                f"{folder / 'card.json'}: found no SHA-256 of {shown}, expected one of every file; copy the checkpoint "
                "anew"
            )
        if not path.is_file():
            raise RareflowError(f"checkpoint {folder}: {shown} is missing; copy the checkpoint anew")
        found = file_hash(path)
        if found != expected:
            raise RareflowError(
                f"checkpoint {folder}: {shown} has the SHA-256 {found[:12]}..., the card says {expected[:12]!r}: it is "
                "truncated or was changed; copy the checkpoint anew"
            )


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
