"""What in a licence restricts use, found by its words. For reports; no legal advice."""

from __future__ import annotations

import re

# What a reader must know before using or passing on, by the words that licences and their short names have.
_RESTRICTIONS = (
    (r"non-?\s?commercial|\bnc\b|\bresearch[- ]only\b", "no commercial use"),
    (r"\bnd\b|no derivatives", "no changed copies"),
    (r"\bsa\b|share-?alike", "changed copies under the same licence"),
    (r"\ba?gpl\b|\ba?gpl-?v?\d|\ba?gpl-\d", "programs that contain it under the same licence"),
    (r"community licen[cs]e|openrail|rail-m|acceptable use", "conditions on who uses it, or what for"),
    (r"proprietary|all rights reserved|no licen[cs]e", "no use without its owner's leave"),
)


def restriction(licence: str) -> str:
    """What a licence restricts, in a few words; empty where nothing is known to.

    ``"CC BY-NC-SA 4.0"`` gives ``"no commercial use, changed copies under the same licence"``.
    """
    # LGPL ends in the same letters and asks for less.
    text = re.sub(r"lgpl", "", licence.lower().replace("_", " "))
    return ", ".join(words for pattern, words in _RESTRICTIONS if re.search(pattern, text))
