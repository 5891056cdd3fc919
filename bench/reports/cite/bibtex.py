"""BibTeX: the committed library, and what plugins and datasets bring along.

A ``citation`` (of a model's spec, a metric's class, a dataset) is one of three: keys of
``bench/reports/cite/citations.bib`` (``"wang2004ssim"``), BibTeX entries, or plain words, which become an entry of
their own.
"""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import dataclass
from importlib import resources

from bench.core.errors import one_line
from bench.reports.render.latex import latex_text

_FIELD = re.compile(r"[a-z][\w-]{0,40}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_:.+/-]{0,79}")
_MAX_CHARACTERS = 20_000  # of a plugin's citation
# What an entry of somebody else's may do in our reader's LaTeX: accents, letters, emphasis, addresses.
_HARMLESS = re.compile(
    r"\\(?:[\"'`^~=.&%$#_{}\-]|(?:[uvHcdbrtk]|l|L|o|O|i|j|ss|ae|AE|oe|OE|aa|AA|emph|textit|textbf|url)(?![A-Za-z]))"
)


@dataclass(frozen=True)
class Entry:
    """One BibTeX entry: its kind (``article``), key, and fields in order, with values as BibTeX has them."""

    kind: str
    key: str
    fields: tuple[tuple[str, str], ...]

    def text(self) -> str:
        """The entry as a .bib file has it."""
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in self.fields)
        return f"@{self.kind}{{{self.key},\n{lines}\n}}"

    def field(self, name: str) -> str:
        """The value of a field, empty where there is none."""
        return dict(self.fields).get(name, "")

    def shown(self) -> str:
        """Who and when, for a text that has no list of references: ``Wang et al. 2004``."""
        authors = [a.strip() for a in re.split(r"\s+and\s+", plain(self.field("author"))) if a.strip()]
        if not authors:
            return plain(self.field("title")) or self.key
        families = [a.partition(",")[0] if "," in a else a for a in authors]
        if self.field("author").startswith("{{"):
            families = [plain(self.field("author"))]
        names = families[0] if len(families) == 1 else f"{families[0]} et al."
        if len(families) == 2 and families[1] != "others":
            names = f"{families[0]} and {families[1]}"
        return f"{names} {self.field('year')}".strip()


@functools.cache
def library() -> dict[str, Entry]:
    """The committed entries by key."""
    text = resources.files("bench.reports.cite").joinpath("citations.bib").read_text(encoding="utf-8")
    return {entry.key: entry for entry in parse(text)}


def of_part(citation: str, kind: str, name: str) -> list[Entry]:
    """The entries of a part's ``citation``, none if it is empty; plain words are the note of an entry on ``name``."""
    words = citation.split()
    if words and all(word in library() for word in words):
        return [library()[word] for word in words]
    if citation.lstrip().startswith("@"):
        found = [_disarmed(entry) for entry in parse(citation[:_MAX_CHARACTERS])]
        if found:
            return found
    if not words:
        return []
    key = re.sub(r"[^A-Za-z0-9]+", "-", f"{kind}-{name}").strip("-")[:60]
    # Styles sort what has no author by its field 'key'.
    fields = (("key", field_text(name)), ("title", f"{{{field_text(name)}}}"), ("note", field_text(citation)))
    return [Entry("misc", key, fields)]


def parse(text: str) -> list[Entry]:
    """The entries of BibTeX text; what is no entry is passed over.

    Left out are entries that do not end, and those with a value whose braces do not pair as BibTeX counts them: every
    brace, also one behind a backslash.
    """
    import bibtexparser

    logging.getLogger("bibtexparser").setLevel(logging.CRITICAL)  # it tells of each broken entry
    entries = []
    for block in bibtexparser.parse_string(text).entries:
        fields = [(f.key.lower(), " ".join(str(f.value).split())) for f in block.fields]
        key, is_whole = block.key.strip(), all(_FIELD.fullmatch(name) and _is_paired(value) for name, value in fields)
        if fields and is_whole and _KEY.fullmatch(key) and re.fullmatch(r"[a-z]+", block.entry_type.lower()):
            entries.append(Entry(block.entry_type.lower(), key, tuple(fields)))
    return entries


def _is_paired(value: str) -> bool:
    depth = 0
    for character in value:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return False
    return depth == 0


def field_text(text: str) -> str:
    """Plain words as a field: escaped, and without braces, which BibTeX counts even where LaTeX would not."""
    return latex_text(one_line(text, 400).translate(str.maketrans("{}", "()")))


def _disarmed(entry: Entry) -> Entry:
    """An entry from outside: a value with commands that are more than an accent or an address is set as plain words."""
    fields = []
    for name, value in entry.fields:
        is_address = name in ("url", "doi") and re.fullmatch(r"[\w.:/?=&%~+()<>;,-]+", value)
        is_harmless = "\\" not in _HARMLESS.sub("", value) and not re.search(r"(?<!\\)[%#&_^$]", value)
        fields.append((name, one_line(value, 1000) if is_address or is_harmless else field_text(value)))
    return Entry(entry.kind, entry.key, tuple(fields))


_ACCENTS = {"'": "\u0301", '"': "\u0308", "`": "\u0300", "^": "\u0302", "~": "\u0303", "v": "\u030c", "c": "\u0327"}


def plain(value: str) -> str:
    """A field's value as Unicode: accents composed, braces and commands gone."""
    import unicodedata

    def accented(match: re.Match[str]) -> str:
        return unicodedata.normalize("NFC", match[2] + _ACCENTS[match[1]])

    text = re.sub(r"\\(['\"`^~]|[vc](?![A-Za-z]))\s*\{?([A-Za-z])\}?", accented, value)
    text = text.replace("\\l", "\u0142").replace("\\o", "\u00f8").replace("``", "\u201c").replace("''", "\u201d")
    return one_line(re.sub(r"\\[A-Za-z]+|[{}\\]", "", text).replace("--", "\u2013"), 400)
