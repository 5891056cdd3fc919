"""A captioner on this machine: an image-text-to-text model that transformers reads from a folder, without network."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.captions.ask import Answer, Captioner, NoAnswer
from bench.captions.prompt import Prompt
from bench.core.errors import RfbenchError, one_line
from bench.core.files import digest, sha256

_READ = (".json", ".jinja", ".model", ".txt")  # configuration, tokenizer and processor


class Local(Captioner):
    """A model folder with safetensors weights; greedy decoding, another seed's sampling from the second attempt on.

    Greedy answers never change, so a caption that broke a rule could not be asked for again: attempts after the first
    draw at temperature 0.7 from a generator seeded with ``seed + attempt``.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", dtype: str = "float32", max_tokens: int = 300,
                 seed: int = 0) -> None:  # fmt: skip
        if not (folder / "config.json").is_file():
            raise RfbenchError(
                f"--model {folder}: found no config.json, expected a transformers model folder or an URL"
            )
        self._weights = sorted(folder.glob("*.safetensors"))
        if not self._weights:
            raise RfbenchError(
                f"--model {folder}: found no .safetensors weights; other forms may run code and are not read"
            )
        self._folder, self._device, self._dtype = folder, device, dtype
        self._max_tokens, self._seed = max_tokens, seed
        self._loaded: tuple[Any, Any] | None = None

    def identity(self) -> dict[str, Any]:
        import transformers

        processor, _ = self._load()
        template = getattr(processor, "chat_template", None) or ""
        return {
            "kind": "local",
            "model": self._folder.resolve().name,
            "weights_sha256": digest([[p.name, sha256(p)] for p in self._weights]),
            "files_sha256": digest([[p.name, sha256(p)] for p in sorted(self._folder.iterdir()) if p.suffix in _READ]),
            "chat_template_sha256": hashlib.sha256(str(template).encode()).hexdigest(),
            "decoding": {
                "first": "greedy",
                "later": "temperature 0.7",
                "seed": self._seed,
                "max_tokens": self._max_tokens,
            },
            "dtype": self._dtype,
            "device": self._device.partition(":")[0],
            "transformers": transformers.__version__,
        }

    def ask(self, prompt: Prompt, pictures: Sequence[bytes], attempt: int) -> Answer:
        import PIL.Image
        import torch

        processor, model = self._load()
        images = [PIL.Image.open(io.BytesIO(p)).convert("RGB") for p in pictures]
        messages = [
            {"role": "system", "content": [{"type": "text", "text": prompt.system}]},
            {"role": "user", "content": [*({"type": "image"} for _ in images), {"type": "text", "text": prompt.ask}]},
        ]
        try:
            text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            inputs = processor(text=text, images=images, return_tensors="pt").to(self._device)
            for key, value in inputs.items():
                if torch.is_floating_point(value):
                    inputs[key] = value.to(model.dtype)
            given = int(inputs["input_ids"].shape[1])
            how: dict[str, Any] = {"do_sample": False}
            if attempt:
                torch.manual_seed(self._seed + attempt)
                how = {"do_sample": True, "temperature": 0.7}
            with torch.inference_mode():
                out = model.generate(**inputs, max_new_tokens=self._max_tokens, **how)[0][given:]
        except Exception as error:  # models, processors and templates each have errors of their own
            raise NoAnswer(f"{self._folder.name}: {type(error).__name__}: {one_line(error, 160)}") from error
        return Answer(processor.decode(out, skip_special_tokens=True), given, len(out), self._folder.resolve().name)

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            import torch
            from transformers import AutoModelForImageTextToText, AutoProcessor

            try:
                processor = AutoProcessor.from_pretrained(self._folder, local_files_only=True)
                model = AutoModelForImageTextToText.from_pretrained(
                    self._folder, local_files_only=True, use_safetensors=True, dtype=getattr(torch, self._dtype)
                )
            except Exception as error:  # as above
                raise RfbenchError(
                    f"--model {self._folder}: transformers cannot load it as an image-text-to-text model "
                    f"({type(error).__name__}: {one_line(error, 160)})"
                ) from None
            self._loaded = processor, model.to(self._device).eval()
        return self._loaded
