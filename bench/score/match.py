"""Which image belongs to which reference: by the file's name without its ending, exactly, and nothing is left out
silently."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import ItemError, RfbenchError, one_line
from bench.core.files import safe_name
from bench.data.readers import SUFFIXES

ID = "{id}"
_SEARCHED = 2000  # names among which a near one is looked for: the search is slow, and a hint needs no more


@dataclass(frozen=True)
class Listing:
    """The images of a folder by stem (several of one stem are a mistake of that image), and how many other entries it
    has. ``strangers`` are images whose names do not fit the pattern that was asked for."""

    folder: Path
    files: Mapping[str, tuple[str, ...]]
    strangers: tuple[str, ...] = ()
    others: int = 0

    def path(self, names: Sequence[str]) -> Path:
        """The one file of an image, surely inside the folder. ItemError says what is wrong with it."""
        if len(names) > 1:
            raise ItemError(f"{self.folder}: found {' and '.join(map(shown, names))} for one name; keep one of them")
        path = self.folder / names[0]
        where = self.folder / shown(names[0])
        if not is_text(names[0]):
            raise ItemError(f"{where}: its name is not UTF-8; rename the file")
        if path.is_symlink() and not path.resolve().is_relative_to(self.folder.resolve()):
            raise ItemError(
                f"{where} is a link that leads out of its folder; copy the file, or give the folder it is in"
            )
        if not path.is_file():
            raise ItemError(f"{where} is {'a broken link' if path.is_symlink() else 'no regular file'}; replace it")
        return path


@dataclass(frozen=True)
class Match:
    """An image and its reference: the files that bear the name on each side, which is right if it is one. A dataset's
    reference has no file here."""

    id: str
    pred: tuple[str, ...]
    ref: tuple[str, ...] = ()


@dataclass(frozen=True)
class Matches:
    """The matches, sorted by id, and the names that have no partner."""

    both: tuple[Match, ...]
    only_pred: tuple[str, ...] = ()
    only_ref: tuple[str, ...] = ()


def listing(folder: Path, option: str, pattern: str = ID) -> Listing:
    """The images of a folder, without its subfolders.

    ``pattern`` is what the stems look like, ``{id}`` for the part that names the reference: with ``{id}_out`` the file
    ``a_out.png`` is ``a``. Raises RfbenchError for a folder that cannot be read or holds no image.
    """
    before, found, after = pattern.partition(ID)
    if not found or ID in after:
        raise RfbenchError(f"--pred-name: found '{one_line(pattern, 60)}', expected one {ID} in it, such as {ID}_out")
    if not folder.is_dir():
        kind = "is a file" if folder.is_file() else "is not a folder"
        raise RfbenchError(f"{option}: {one_line(folder, 160)} {kind}; give the folder that holds the images")
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError as error:
        raise RfbenchError(f"{option}: {one_line(folder, 160)} cannot be read: {error.strerror}") from None
    files: dict[str, list[str]] = {}
    strangers, others = [], 0
    for entry in entries:
        stem, ending = os.path.splitext(entry.name)  # noqa: PTH122 - a name such as '..png' is no path
        if entry.name.startswith("._") or ending.lower() not in SUFFIXES or os.path.isdir(entry.path):  # noqa: PTH112 - links in a circle are no folder
            others += 1
        elif len(stem) > len(before) + len(after) and stem.startswith(before) and stem.endswith(after):
            files.setdefault(stem[len(before) : len(stem) - len(after)], []).append(entry.name)
        else:
            strangers.append(entry.name)
    if not files and not strangers:
        raise RfbenchError(
            f"{option}: found no image in {one_line(folder, 160)} ({others} other entries), expected files that end in "
            f"{' '.join(SUFFIXES)}"
        )
    if not files:
        raise RfbenchError(f"--pred-name {one_line(pattern, 60)}: no name is so, found {shown(strangers[0])}")
    return Listing(folder, {k: tuple(v) for k, v in files.items()}, tuple(strangers), others)


def match_folders(pred: Listing, ref: Listing) -> Matches:
    """Images and references of the same stem. RfbenchError if there is none, with the nearest names."""
    both = sorted(pred.files.keys() & ref.files.keys())
    only_pred = tuple(sorted(pred.files.keys() - ref.files.keys()))
    only_ref = tuple(sorted(ref.files.keys() - pred.files.keys()))
    if not both:
        raise _nothing(pred, only_pred, only_ref, f"in {one_line(ref.folder, 120)}")
    return Matches(tuple(Match(s, pred.files[s], ref.files[s]) for s in both), only_pred, only_ref)


def match_ids(pred: Listing, ids: Sequence[str], dataset: str) -> Matches:
    """Images named by a dataset's ids, or as ``rfbench export`` names them. RfbenchError if there is none."""
    both, only_ref, taken = [], [], set()
    for image_id in sorted(ids):
        stems = [s for s in dict.fromkeys((image_id, safe_name(image_id))) if s in pred.files]
        taken.update(stems)
        if stems:
            both.append(Match(image_id, tuple(name for s in stems for name in pred.files[s])))
        else:
            only_ref.append(image_id)
    only_pred = tuple(sorted(pred.files.keys() - taken))
    if not both:
        raise _nothing(pred, only_pred, only_ref, f"an id of {one_line(dataset, 60)}")
    return Matches(tuple(both), only_pred, tuple(only_ref))


def _nothing(pred: Listing, theirs: Sequence[str], ours: Sequence[str], where: str) -> RfbenchError:
    hints = [nearest(name, ours) for name in theirs[:2]]
    return RfbenchError(
        f"none of the {len(theirs)} names in {one_line(pred.folder, 120)} is {where}: "
        + "; ".join(h for h in hints if h)
        + "; files are matched by name without the ending"
    )


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for a name without a partner: the nearest known one, what tells the two apart, how to make them match."""
    alike = next((k for k in known if _folded(k) == _folded(name)), None)
    inside = max((k for k in known[:_SEARCHED] if len(k) > 1 and k in name), key=len, default=None)
    close = difflib.get_close_matches(name[:200], known[:_SEARCHED], n=1, cutoff=0.5)
    found = alike or inside or next(iter(close), None)
    if found is None:
        some = ", ".join(map(shown, known[:3])) + (", ..." if len(known) > 3 else "")
        return f"found {shown(name)} where there is {some or 'nothing'}"
    text = f"found {shown(name)}, nearest is {shown(found)}"
    if alike:
        if name.casefold() == found.casefold():
            return f"{text} (upper and lower case differ)"
        return f"{text} (they look alike but are other characters)"
    return f"{text} (try --pred-name '{shown(name.replace(found, ID, 1), False)}')" if inside else text


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def is_text(name: str) -> bool:
    """Whether a file's name is UTF-8; others come as surrogates, which no document can hold."""
    return not any("\ud800" <= c <= "\udfff" for c in name)


def as_text(name: str) -> str:
    """A name that a document can hold: itself, or with its odd bytes as ``\\xff``."""
    return name if is_text(name) else os.fsencode(name).decode("utf-8", "backslashreplace")


def shown(name: str, quoted: bool = True) -> str:
    """A name for messages, on one line; letters beyond ASCII also by number, since some look like others."""
    text = one_line(as_text(name), 80)
    if not name.isascii() and is_text(name) and quoted:
        return f"'{text}' ({ascii(name)[1:-1]:.120})"
    return f"'{text}'" if quoted else text


def some(names: Iterable[str], most: int = 3) -> str:
    """The first names of a list, for messages."""
    names = list(names)
    return ", ".join(map(shown, names[:most])) + (", ..." if len(names) > most else "")
