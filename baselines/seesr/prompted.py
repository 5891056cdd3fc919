"""What SeeSR and OSEDiff share as models of rfbench: a prompt of tags, a text encoder, and how networks are filled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from baselines.seesr import prompts, tagger, text
from baselines.seesr.spec import DAPE, RAM, TAGGER_FILES, THRESHOLDS, WORDS
from bench.models import Published, RfbenchError, choice, converted, load_state, randomise, read_state, sha256

_TAGGER_REVISION = 1

Tensors = Mapping[str, torch.Tensor]
Renamed = Callable[[Any, Tensors], dict[str, torch.Tensor]]


class Prompted(Published):
    """Options: ``tags`` (``tagger``: found by RAM in this process; ``files``: from the folder ``prompts``; ``manual``:
    ``text``, and no image tokens), ``prompts`` (with ``tagger``, where its tags are kept), ``prompt`` (the user's own
    words), ``base`` (a diffusers folder of the base model, instead of the listed files).

    ``base_files`` says where files lie in such a folder of the model ``base_name``.
    """

    base_files: ClassVar[Mapping[str, str]]
    base_name: ClassVar[str]

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self.tags = choice(options, "tags", "tagger", "files", "manual")
        self.folder = Path(options["prompts"]) if options["prompts"] else None
        for name, needed in (("text", "manual"), ("prompts", "files")):
            if self.tags == needed and not options[name]:
                raise RfbenchError(
                    f"tags={needed} needs the option {name}; write {self.system}:tags={needed},{name}=..."
                )
        if options["text"] and self.tags != "manual":
            raise RfbenchError(f"option text: found one with tags={self.tags}, expected tags=manual; leave it out")
        if self.folder and self.tags == "manual":
            raise RfbenchError("option prompts: found one with tags=manual, expected tags=files or tags=tagger")
        self.base = Path(options["base"]) if options["base"] else None
        if self.base is not None:
            if self.is_random:
                raise RfbenchError("option base: found one with weights=random, which reads no files; leave it out")
            for inner in self.base_files.values():
                if not (self.base / inner).is_file():
                    raise RfbenchError(
                        f"base: found no {inner} in {self.base}, expected a diffusers folder of {self.base_name}"
                    )
        self.precomputed = prompts.Precomputed(self.folder) if self.folder and self.tags == "files" else None
        self.provider: prompts.OfWholes | None = None

    def label(self) -> str | None:
        """Tags that the user gave are not the published inference, and are not called so."""
        return super().label() or (f"{self.system}-manual-tags" if self.tags == "manual" else None)

    def unread(self) -> set[str]:
        """The listed files that these options do without."""
        return {*(TAGGER_FILES if self.tags != "tagger" else ()), *(self.base_files if self.base else ())}

    def identity(self) -> dict[str, Any]:
        found = super().identity()
        if self.precomputed:
            found["prompts_sha256"] = self.precomputed.fingerprint()
        if self.base:
            found["base_sha256"] = {name: sha256(self.base / inner) for name, inner in self.base_files.items()}
        return found

    def filled(self, make: Callable[[], Any], file: str, device: str, dtype: torch.dtype, renamed: Renamed) -> Any:
        """The network that ``make`` builds, with random weights or those of ``file``.

        ``renamed`` brings the file's tensors under the network's names.
        """
        if self.is_random:
            net = make()
            randomise(net, f"{self.system}/{file}")
        else:
            # CLIP computes a buffer when it is made, so it cannot be made without memory.
            with torch.device("cpu" if renamed is text.from_published else "meta"):
                net = make()
            load_state(net, renamed(net, read_state(self.path(file), device=device)), file)
        # torch's own: diffusers' warns of parts to be kept in float32, and names none
        return torch.nn.Module.to(net.eval().requires_grad_(False), device=device, dtype=dtype)

    def path(self, file: str) -> Path:
        """Where a file lies: in the user's folder of the base model, or among the weights."""
        return self.base / self.base_files[file] if self.base and file in self.base_files else self.weights_path(file)

    def load_prompts(self, encoder: Any, vocabulary: str, merges: str, device: str) -> None:
        """Make ready what ``provider`` and ``embedding`` need: the text encoder, its tokenizer's files, the tagger."""
        self.text = encoder
        self.tokenize: text.Tokenize = text.byte_tokenizer
        if not self.is_random:
            self.tokenize = text.clip_tokenizer(self.path(vocabulary), self.path(merges))
        self.provider = prompts.OfWholes(self._provider(device))
        self._embedded: dict[str, torch.Tensor] = {}

    def close(self) -> None:
        self.provider = self.text = None
        self._embedded = {}

    def embedding(self, words: str) -> torch.Tensor:
        """The embedding of a text, float (1, 77, width)."""
        if len(self._embedded) > 1000:
            self._embedded.clear()
        if words not in self._embedded:
            self._embedded[words] = text.embed(self.text, self.tokenize, words)
        return self._embedded[words]

    def _provider(self, device: str) -> prompts.PromptProvider:
        if self.precomputed:
            return self.precomputed
        if self.tags == "manual":
            return prompts.Manual(self.options["text"].removeprefix("[").removesuffix("]"))
        found, name = self._tagger(device)
        return prompts.Kept(found, self.folder, name) if self.folder else found

    def _tagger(self, device: str) -> tuple[tagger.Tagger, str]:
        """The tagger, and a name that says what its answers depend on."""
        size = tagger.SMALL if self.is_tiny else tagger.FULL
        net = tagger.RecognizeAnything(size)
        if self.is_random:
            randomise(net, f"{self.system}/tagger")
            words, thresholds = [f"tag {i}" for i in range(size.tags)], np.full(size.tags, 0.5, np.float32)
            name = f"{self.system}-random-{self.options['size']}"
        else:
            words, thresholds = tagger.read_words(self.weights_path(WORDS), self.weights_path(THRESHOLDS), size.tags)
            sources = {file: self.weights_path(file) for file in (RAM, DAPE)}

            def convert() -> dict[str, torch.Tensor]:
                return tagger.from_published(
                    net, read_state(sources[RAM], "model", device), read_state(sources[DAPE], device=device)
                )

            if device == "meta":
                load_state(net.to(device), convert(), f"{RAM} and {DAPE}")
                return tagger.Tagger(net, words, thresholds), ""
            path = converted("seesr-tagger", _TAGGER_REVISION, sources, convert)
            load_state(net, read_state(path), f"{RAM} and {DAPE}")
            name = path.stem  # it holds a hash of both files and of the conversion
        return tagger.Tagger(net.eval().requires_grad_(False).to(device), words, thresholds), name
