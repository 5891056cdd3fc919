"""What a captioner is asked.

The built-in prompt follows the rules that the RareFlow paper (its appendix on captions) gives for its own captioner, in
our words: the persona, the style and the content are the paper's; the list of what must not be said is lost in the text
of the paper that we have, so the exclusions are ours.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from bench.core.errors import RfbenchError
from bench.core.texts import read_text

REVISION = 1
PAPER = """\
You are an expert analyst of satellite images. You write captions for a text-to-image model, in the words that a person
would use to describe a photo of a landscape.

Style. Use everyday words and one natural, fluid sentence of about thirty words, in the present tense. Describe the
ground itself: never speak of the image, the photo, the view or the sensor.

Content. Begin with the main feature and name it in common words, such as landslide, thaw slump, ground collapse or
erosion scar, with its shape (crescent-shaped, bowl-shaped, a tongue of dirt). Then the colours and textures of ground,
vegetation and water. Then the setting, such as coastal cliff, green hillside, tundra plain or riverbank. Describe only
what can be seen.

Leave out: names of places, satellites and sensors; dates and times; numbers, distances and areas; guesses and hedges
such as "perhaps" or "appears to be"; headings, lists and markup."""
ASK = "Write the caption. Answer with the caption alone."
MASK_NOTES = {
    "none": "",
    "outline": " The red outline is not part of the ground: it marks the main feature. Do not mention it.",
    "second": " The second picture is a mask of the same ground: white is the main feature. Do not mention it.",
}


@dataclass(frozen=True)
class Prompt:
    """A system prompt, what follows it with every image, and where they come from (``paper`` or a file's name)."""

    name: str
    system: str
    ask: str

    @property
    def sha256(self) -> str:
        """The hash of both texts."""
        return hashlib.sha256(f"{self.system}\x1f{self.ask}".encode()).hexdigest()


def prompt_of(text: str, mask: str) -> Prompt:
    """``paper``, or the system prompt that the UTF-8 file ``text`` holds; RfbenchError if it cannot be read.

    Parameters
    ----------
    mask : how the mask is shown: ``none``, ``outline`` or ``second``.
    """
    ask = ASK + MASK_NOTES[mask]
    if text == "paper":
        return Prompt(f"paper, in our words (revision {REVISION})", PAPER, ask)
    try:
        system = read_text(Path(text)).strip()
    except (OSError, ValueError) as error:
        raise RfbenchError(f"--prompt {text}: not a readable UTF-8 file ({error}); give 'paper' or a file") from None
    if not system:
        raise RfbenchError(f"--prompt {text} is empty, expected a system prompt")
    return Prompt(Path(text).name, system, ask)
