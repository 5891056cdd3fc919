"""The rules a caption must keep, each a clause with a name, so that a failure says which.

They follow the built-in prompt; ``--skip-check`` leaves a clause out where another prompt asks for something else.
Words are matched whole, without regard to case. What no list of words can decide (whether the caption is true) is the
expert study's first question.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line, unknown
from bench.core.image import Mask
from bench.core.reason import Reason

REVISION = 1
WORDS = (8, 60)
TOKENS = {"clip": 77, "t5": 256}
"""What Stable Diffusion 3's text encoders read, ends included; the rest is cut off without a word."""

_SELF = (
    r"(?:this|the|an?)\s+(?:satellite |aerial |overhead )?"
    r"(?:image|photo|photograph|picture|view|scene|caption|outline|mask)"
    r"|(?:satellite|aerial|overhead)\s+(?:image|imagery|photo|view)|in the (?:foreground|frame)|(?:white|red) outline"
)
_SENSOR = (
    r"sentinel|landsat|planet(?:scope|lab)?s?|maxar|worldview|quickbird|pleiades|ikonos|drone|uav|sensor|infrared|rgb"
    r"|multispectral"
)
_DATES = (
    r"january|february|march|april|june|july|august|september|october|november|december|monday|tuesday|wednesday"
    r"|thursday|friday|saturday|sunday|century|decade"
)
_UNITS = r"met(?:re|er)s?|kilomet(?:re|er)s?|km|hectares?|feet|miles?|acres?|pixels?|degrees?|percent"
_HEDGES = (
    r"perhaps|maybe|possibly|probably|presumably|likely|apparently|appears?|seems?|seemingly|might|may|could|suggest(?:s|ing)?"
    r"|potential(?:ly)?|unclear|unknown"
)
_PAST = r"was|were|had|did|will|would"
_PLACES = (
    r"alaska|canada|canadian|siberia|siberian|russia|russian|greenland|arctic|svalbard|yukon|yamal|taymyr|china|tibet|tibetan"
    r"|norway|sweden|finland|iceland|europe|asia|america"
)
FEATURES = (
    r"landslides?|slumps?|scars?|collapses?|collapsed|slides?|thaw|erosion|eroded|eroding|mudflows?|debris|headwalls?|gull(?:y|ies)"
    r"|slips?|tongues?|subsidence|sinkholes?|bluffs?"
)
_COLOURS = (
    r"(?:[a-z]+-)?(?:red|orange|yellow|green|blue|purple|brown|black|white|gr[ae]y|tan|beige|ochre|rust|rusty|olive|turquoise|teal"
    r"|cream|pale|dark|silver|golden|buff|amber|pink|reddish|brownish|greenish|bluish|gr[ae]yish|whitish)(?:-[a-z]+)?"
)
_SETTINGS = (
    r"tundra|hill(?:side|s)?|slopes?|hillslopes?|coast(?:al|line)?|cliffs?|rivers?|riverbank|riverside|streams?|lakes?|lakeshore"
    r"|shores?|shoreline|plains?|valleys?|mountain(?:s|side)?|plateau|wetlands?|ponds?|sea|bay|beach|forests?|woods?|fields?|meadows?"
    r"|banks?|ridges?|terraces?|delta|floodplain|canal|roads?|town|village|polygons?"
)
_HORIZONTAL = {"left": r"left|west(?:ern)?", "right": r"right|east(?:ern)?"}
_VERTICAL = {"top": r"top|upper|north(?:ern)?", "bottom": r"bottom|lower|south(?:ern)?"}
_ALLOWED = re.compile(r"[A-Za-z0-9 .,;:'’\"“”()\-–—/%éèêëáàâäöôüûíîïñçøåæ&!?]")


@dataclass(frozen=True)
class Failure:
    """A clause that a caption breaks, and what was found."""

    clause: str
    found: str

    def __str__(self) -> str:
        return f"{self.clause}: {self.found}"


CLAUSES = {
    "length": f"{WORDS[0]} to {WORDS[1]} words",
    "clip_tokens": f"at most {TOKENS['clip']} CLIP tokens (with --tokenizers)",
    "t5_tokens": f"at most {TOKENS['t5']} T5 tokens (with --tokenizers)",
    "control": "one line without control characters or markup",
    "script": "Latin letters and common punctuation only",
    "self_reference": "never speaks of an image, a photo or a view",
    "sensor": "names no satellite or sensor",
    "place": "names no place",
    "date": "no date",
    "number": "no digits, distances or areas",
    "hedge": "no guesses",
    "tense": "the present tense",
    "feature": "names the feature where the mask is not empty",
    "colour": "names a colour",
    "setting": "names a setting",
    "direction": "directions of the feature agree with the mask's centroid",
    "duplicate": "differs from every other image's caption",
}
_FORBIDDEN = {"self_reference": _SELF, "sensor": _SENSOR, "date": _DATES, "hedge": _HEDGES, "tense": _PAST}
_REQUIRED = {"colour": _COLOURS, "setting": _SETTINGS}


class Rules:
    """The clauses that are checked, and the tokenizers that count for two of them.

    Parameters
    ----------
    skip : clauses to leave out; RfbenchError for an unknown one.
    tokenizers : a diffusers folder with ``tokenizer`` (CLIP) and ``tokenizer_3`` (T5), as Stable Diffusion 3's; None
        leaves both counts out, which ``left_out`` says.
    """

    def __init__(self, skip: Collection[str] = (), tokenizers: Path | None = None) -> None:
        for name in skip:
            if name not in CLAUSES:
                raise unknown("check", name, CLAUSES)
        self._skip = frozenset(skip)
        self._tokenizers = {} if tokenizers is None else _tokenizers(tokenizers)
        self.left_out: dict[str, Reason] = {
            name: Reason("unfit", "left out by --skip-check") for name in CLAUSES if name in self._skip
        }
        for kind in TOKENS:
            if kind not in self._tokenizers:
                self.left_out.setdefault(
                    f"{kind}_tokens", Reason("missing", f"no {kind.upper()} tokenizer", "give --tokenizers DIR")
                )

    def identity(self) -> dict[str, Any]:
        """What decides the verdicts, for the card."""
        return {"revision": REVISION, "clauses": [c for c in CLAUSES if c not in self.left_out],
                "left_out": {c: str(r) for c, r in self.left_out.items()}}  # fmt: skip

    def failures(self, text: str, mask: Mask | None, others: Mapping[str, str] | None = None) -> list[Failure]:
        """The clauses that ``text`` breaks, in the order of ``CLAUSES``.

        Parameters
        ----------
        mask : where the feature is, bool (H, W); None or empty where there is none.
        others : other images' captions by id, for duplicates.
        """
        if not text.strip():
            return [Failure("length", "no text")]
        found = [*self._shape(text), *_content(text), *_of_the_feature(text, mask), *_duplicates(text, others or {})]
        order = list(CLAUSES)
        return sorted((f for f in found if f.clause not in self._skip), key=lambda f: order.index(f.clause))

    def _shape(self, text: str) -> list[Failure]:
        found = []
        words = len(re.findall(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*", text))
        if not WORDS[0] <= words <= WORDS[1]:
            found.append(Failure("length", f"{words} words, expected {WORDS[0]} to {WORDS[1]}"))
        for kind, tokenizer in self._tokenizers.items():
            count = len(tokenizer(text)["input_ids"])
            if count > TOKENS[kind]:
                found.append(Failure(f"{kind}_tokens", f"{count} tokens, the encoder reads {TOKENS[kind]}"))
        strange = sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs", "Co", "Cn")})
        if strange or re.search(r"[*#<>`|{}\[\]_]|^\s*-\s", text):
            what = f"U+{ord(strange[0]):04X}" if strange else "markup"
            found.append(Failure("control", what))
        letters = sorted({c for c in text if not _ALLOWED.match(c) and c.isprintable() and c not in "*#<>`|{}[]_"})
        if letters:
            found.append(Failure("script", f"'{letters[0]}' (U+{ord(letters[0]):04X})"))
        return found


def _content(text: str) -> list[Failure]:
    found = []
    for clause, pattern in _FORBIDDEN.items():
        match = _words(pattern).search(text)
        if match:
            found.append(Failure(clause, f"'{one_line(match[0], 40)}'"))
    number = re.search(r"\d+", text) or _words(_UNITS).search(text)
    if number:
        found.append(Failure("number", f"'{one_line(number[0], 40)}'"))
    place = _words(_PLACES).search(text) or _capitalised(text)
    if place:
        found.append(Failure("place", f"'{one_line(place[0], 40)}'"))
    found += [Failure(clause, "none") for clause, pattern in _REQUIRED.items() if not _words(pattern).search(text)]
    return found


def _of_the_feature(text: str, mask: Mask | None) -> list[Failure]:
    if mask is None or not mask.any():
        return []
    if not _words(FEATURES).search(text):
        return [Failure("feature", "none, and the mask is not empty")]
    rows, columns = np.nonzero(mask)
    down, along = (rows.mean() + 0.5) / mask.shape[0], (columns.mean() + 0.5) / mask.shape[1]
    found = []
    # "a scar at the upper left, above a lake on the right": only the part that names the feature places it.
    for part in re.split(r"[,;.]|\babove\b|\bbelow\b|\bbeside\b|\binto\b|\bnext to\b", text):
        if not _words(FEATURES).search(part):
            continue
        for words, share in ((_HORIZONTAL, along), (_VERTICAL, down)):
            said = [name for name, pattern in words.items() if _words(pattern).search(part)]
            first, last = words
            if (said == [first] and share > 0.6) or (said == [last] and share < 0.4):
                found.append(Failure("direction", f"'{said[0]}', its centroid lies {share:.0%} from the {first}"))
    return found[:1]


def _duplicates(text: str, others: Mapping[str, str]) -> list[Failure]:
    mine = _plain(text)
    twin = next((image for image, other in others.items() if _plain(other) == mine), None)
    return [Failure("duplicate", f"the caption of {one_line(twin, 60)}")] if twin is not None else []


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _words(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


def _capitalised(text: str) -> re.Match[str] | None:
    """A capital inside a sentence: in English, of the words a caption needs, only names have one."""
    return re.search(r"(?<=[a-z,;] )[A-Z][a-z]+", text)


def _tokenizers(folder: Path) -> dict[str, Any]:
    from transformers import AutoTokenizer

    found = {}
    for kind, name in (("clip", "tokenizer"), ("t5", "tokenizer_3")):
        if not (folder / name).is_dir():
            raise RfbenchError(f"--tokenizers {folder}: found no folder '{name}' ({kind.upper()}); give such as SD3's")
        try:
            found[kind] = AutoTokenizer.from_pretrained(folder / name, local_files_only=True)
        except Exception as error:  # transformers has many of its own
            raise RfbenchError(f"--tokenizers {folder / name}: cannot be read ({one_line(error, 100)})") from None
    return found
