"""What SeeSR reads of an image beside its pixels: tags, and the image tokens of the tagger that found them.

They come from the tagger (``tagger.py``), from files, or from the user. A file belongs to one image: safetensors with
``tokens``, float32 (145, 512), and one entry of metadata ``prompt``, a JSON object with the image's ``id``, its
``tags`` (``"mountain, river"``) and perhaps the ``lr_sha256`` of the 8-bit LR that they are of, and which ``tagger``
found them.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from baselines.seesr.network import TOKEN_WIDTH, TOKENS
from bench.models import RfbenchError, atomic_path, digest, safe_name, sha256

SUFFIX = ".safetensors"
ADDED, NEGATIVE = "clean, high-resolution, 8k", "dotted, noise, blur, lowres, smooth"
"""What the published inference adds to every prompt, and its negative prompt."""


@dataclass(frozen=True)
class Tags:
    """Tags as one text, and the tokens, float32 (145, 512)."""

    text: str
    tokens: npt.NDArray[np.float32]


def prompt_text(tags: str, user: str) -> str:
    """The whole prompt, punctuation as published."""
    return f"{tags}, {user},{ADDED}"


class PromptProvider(ABC):
    """Where tags come from."""

    @abstractmethod
    def tags(self, image_id: str, lr: npt.NDArray[np.uint8]) -> Tags:
        """The tags of an image, from its id and its 8-bit LR (h, w, 3)."""


class Manual(PromptProvider):
    """The same words for every image, and no tokens: a deviation from the published inference."""

    def __init__(self, text: str) -> None:
        self.text = text

    def tags(self, image_id: str, lr: npt.NDArray[np.uint8]) -> Tags:
        return Tags(self.text, np.zeros((TOKENS, TOKEN_WIDTH), np.float32))


class Precomputed(PromptProvider):
    """A folder with a file for each image."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir() or not any(folder.glob(f"*{SUFFIX}")):
            raise RfbenchError(
                f"prompts: found no folder with files *{SUFFIX} at {folder}, expected one for each image; "
                "a run with tags=tagger,prompts=FOLDER writes them"
            )

    def fingerprint(self) -> str:
        """A hash of every file's name and bytes."""
        return digest({path.name: sha256(path) for path in sorted(self.folder.glob(f"*{SUFFIX}"))})

    def tags(self, image_id: str, lr: npt.NDArray[np.uint8]) -> Tags:
        path = _path(self.folder, image_id)
        if not path.is_file():
            raise RfbenchError(
                f"prompts: found no file {path.name} in {self.folder}, expected one for each image; "
                "a run with tags=tagger,prompts=FOLDER writes it"
            )
        return read_tags(path, image_id, lr)


class Kept(PromptProvider):
    """A tagger whose answers are kept in a folder, and taken from there for the same LR and the same tagger.

    ``tagger`` is its name, with all that can change its answers: tags of random weights, say, are never taken for those
    of the published ones.
    """

    def __init__(self, inner: PromptProvider, folder: Path, tagger: str) -> None:
        self.inner, self.folder, self.tagger = inner, folder, tagger

    def tags(self, image_id: str, lr: npt.NDArray[np.uint8]) -> Tags:
        path = _path(self.folder, image_id)
        if path.is_file():
            prompt = _read(path)[1]
            if "tagger" not in prompt:
                raise RfbenchError(
                    f"{path.name}: found tags that no tagger wrote, which tags=tagger would replace; read them with "
                    "tags=files, or name another folder by prompts="
                )
            if prompt["tagger"] == self.tagger and _is_of(prompt, lr):
                return read_tags(path, image_id, lr)
        made = self.inner.tags(image_id, lr)
        write_tags(self.folder, image_id, made, lr, self.tagger)
        return made


class OfWholes:
    """The tags of images and of their tiles: an image that does not fit into memory is cut into tiles after it was
    tried whole, and a tile has the tags of the whole then. Pixels decide what is a tile, not sizes."""

    def __init__(self, inner: PromptProvider) -> None:
        self.inner = inner
        self._whole: tuple[str, tuple[int, int], npt.NDArray[np.uint8], Tags] | None = None

    def tags(
        self,
        image_id: str,
        lr: npt.NDArray[np.uint8],
        offset: tuple[int, int] = (0, 0),
        seen: npt.NDArray[np.uint8] | None = None,
    ) -> Tags:
        """``offset`` is the (row, column) of these pixels in the whole image; ``seen`` what the tags are found in,
        where it is not the LR itself."""
        if self._whole is not None:
            of, (top, left), whole, tags = self._whole
            row, column = offset[0] - top, offset[1] - left
            part = whole[row : row + lr.shape[0], column : column + lr.shape[1]] if min(row, column) >= 0 else None
            if of == image_id and part is not None and np.array_equal(part, lr):
                return tags
        found = self.inner.tags(image_id, lr if seen is None else seen)
        self._whole = image_id, offset, lr, found
        return found


def write_tags(
    folder: Path, image_id: str, tags: Tags, lr: npt.NDArray[np.uint8] | None = None, tagger: str = ""
) -> Path:
    """Write the file of one image, atomically; with ``lr`` a run on other pixels of the image refuses it."""
    from safetensors.numpy import save_file

    prompt: dict[str, Any] = {"id": image_id, "tags": tags.text}
    if lr is not None:
        prompt["lr_sha256"] = _hash(lr)
    if tagger:
        prompt["tagger"] = tagger
    path = _path(folder, image_id)
    with atomic_path(path) as temporary:
        save_file({"tokens": tags.tokens}, temporary, {"prompt": json.dumps(prompt, sort_keys=True)})
    return path


def read_tags(path: Path, image_id: str, lr: npt.NDArray[np.uint8]) -> Tags:
    """The tags of an image from its file.

    Raises
    ------
    RfbenchError
        For a file that is broken, of another image, or of another LR.
    """
    tokens, prompt = _read(path)
    if prompt["id"] != image_id:
        raise RfbenchError(f"{path.name}: found the tags of '{prompt['id']}', expected those of '{image_id}'")
    if not _is_of(prompt, lr):
        raise RfbenchError(
            f"{path.name}: found tags of another LR image (another protocol, or changed data), expected this one's; "
            "make them again with tags=tagger"
        )
    return Tags(prompt["tags"], tokens)


def _path(folder: Path, image_id: str) -> Path:
    return folder / f"{safe_name(image_id)}{SUFFIX}"


def _is_of(prompt: dict[str, Any], lr: npt.NDArray[np.uint8]) -> bool:
    """Whether tags are of this LR, as far as their file says."""
    return "lr_sha256" not in prompt or prompt["lr_sha256"] == _hash(lr)


def _read(path: Path) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    expected = f"tokens, float32 {TOKENS}x{TOKEN_WIDTH}, and a prompt with id and tags"
    try:
        with safe_open(path, "np") as file:
            tokens = file.get_tensor("tokens") if "tokens" in file.keys() else None  # noqa: SIM118 - no dict
            prompt = json.loads((file.metadata() or {}).get("prompt", "null"))
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise RfbenchError(f"{path.name} is cut or no file of tags ({error}), expected {expected}") from None
    if not isinstance(prompt, dict) or not all(isinstance(prompt.get(k), str) for k in ("id", "tags")):
        raise RfbenchError(f"{path.name}: found no prompt with id and tags, expected {expected}")
    if tokens is None or tokens.shape != (TOKENS, TOKEN_WIDTH) or tokens.dtype != np.float32:
        found = "no tokens" if tokens is None else f"tokens, {tokens.dtype} {'x'.join(map(str, tokens.shape))}"
        raise RfbenchError(f"{path.name}: found {found}, expected {expected}")
    if not np.isfinite(tokens).all():
        raise RfbenchError(f"{path.name}: found tokens that are not finite, expected {expected}")
    return tokens, prompt


def _hash(lr: npt.NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(lr.shape).encode() + np.ascontiguousarray(lr).tobytes()).hexdigest()
