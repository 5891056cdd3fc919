"""The interface of a captioner: pictures and a prompt in, one raw answer out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.captions.prompt import Prompt
from bench.core.errors import RfbenchError


class NoAnswer(RfbenchError):
    """A captioner gave no answer that can be judged: the image stays open, and the same command asks again."""


@dataclass(frozen=True)
class Answer:
    """What came back: the text as it was given, tokens in and out (None: not told), and the model's name of itself."""

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    model: str = ""


class Captioner(ABC):
    """A vision-language model, here or behind an endpoint."""

    at_once: int = 1
    """How many questions may be under way; ``ask`` is called from that many threads."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the answers, as far as it is known before the first one. No secret, no path."""

    @abstractmethod
    def ask(self, prompt: Prompt, pictures: Sequence[bytes], attempt: int) -> Answer:
        """One answer; ``attempt`` counts from 0. Raises NoAnswer where there is none."""


def cleaned(text: str) -> str:
    """A raw answer without what frames it: surrounding white space, and one pair of quotation marks around it all.

    Nothing else is touched: what breaks a rule is asked again, never mended.
    """
    text = text.strip()
    for opening, closing in (('"', '"'), ("“", "”")):
        inner = text[1:-1]
        if (
            len(text) > 2
            and text[0] == opening
            and text[-1] == closing
            and opening not in inner
            and closing not in inner
        ):
            return inner.strip()
    return text
