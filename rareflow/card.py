"""A checkpoint's card: what it is and how it was made, and the hashes that its files are held against.

Imports nothing heavy: a wrong folder is said at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rareflow.errors import RareflowError

FORMAT = 1
EMBEDDED = Path(__file__).parent / "tiny"


def id_hash(text: str) -> str:
    """How a training image's id is written down: 16 hexadecimal digits of BLAKE2b."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def read_card(folder: Path) -> dict[str, Any]:
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
    for names in (("config",), ("config", "train"), ("config", "train", "control"), ("data",), ("data", "sides")):
        part: Any = card
        for name in names:
            part = part.get(name, {})
            if not isinstance(part, dict):
                raise RareflowError(
                    f"{path}: {'.'.join(names)}: found {str(part)[:40]!r}, expected an object; copy the checkpoint anew"
                )
    crop_px = card.get("config", {}).get("train", {}).get("control", {}).get("crop_px", 1)
    if not isinstance(crop_px, int) or crop_px < 1:
        raise RareflowError(
            f"{path}: config.train.control.crop_px: found {str(crop_px)[:40]!r}, expected a whole number of 1 or more; "
            "copy the checkpoint anew"
        )
    return card


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write a checkpoint's card, whole or not at all."""
    temporary = folder / ".card.json.tmp"
    temporary.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / "card.json")


def card_identity(card: dict[str, Any]) -> str:
    """A SHA-256 of all that a checkpoint's card says of what it computes: weights, configuration, base, scale of u."""
    config = {k: v for k, v in card.get("config", {}).items() if k not in ("train", "loss", "base")}
    parts = [card["files"], config, card.get("base", {}), card.get("scale")]
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


def verify(folder: Path, card: dict[str, Any], names: Iterable[str]) -> None:
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
        expected = card["files"].get(name)
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
