"""One input: a seed's files with some replaced, added, linked or removed, and arguments. Also its form on disk."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.seeds import tree


@dataclass(frozen=True)
class Link:
    """A symbolic link to ``target`` in the place of a file."""

    target: str


@dataclass(frozen=True)
class Case:
    """An input of ``target``: ``files`` differ from the seed's (None: removed), ``args`` are the target's own."""

    target: str
    seed: str | None = None
    files: dict[str, bytes | Link | None] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=dict)

    def lay_out(self, folder: Path) -> None:
        """Write the files below ``folder``, as far as the file system takes their names."""
        wanted: dict[str, bytes | Link | None] = {**(tree(self.seed) if self.seed else {}), **self.files}
        folder.mkdir(parents=True)
        for name, content in wanted.items():
            path = folder / name
            if content is None or ".." in Path(name).parts or Path(name).is_absolute():
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(content, Link):
                    path.symlink_to(content.target)
                else:
                    path.write_bytes(content)
            except (OSError, ValueError):  # no file can have that name, so none can lie there
                continue

    def to_json(self) -> str:
        """The case as a file of the corpus; bytes as text where they are plain, else as base64."""
        files: dict[str, Any] = {}
        for name, content in self.files.items():
            if isinstance(content, Link):
                files[name] = {"link": content.target}
            elif content is not None:
                try:
                    files[name] = {"text": content.decode("ascii")}
                except UnicodeDecodeError:
                    files[name] = {"base64": base64.b64encode(content).decode()}
            else:
                files[name] = None
        value = {"target": self.target, "seed": self.seed, "files": files, "args": self.args}
        return json.dumps(value, indent=1) + "\n"  # ASCII, so that lone surrogates survive

    @classmethod
    def from_json(cls, text: str) -> Case:
        """What ``to_json`` wrote."""
        value = json.loads(text)
        files: dict[str, bytes | Link | None] = {}
        for name, content in value["files"].items():
            if content is None:
                files[name] = None
            elif "link" in content:
                files[name] = Link(content["link"])
            else:
                files[name] = content["text"].encode() if "text" in content else base64.b64decode(content["base64"])
        return cls(value["target"], value["seed"], files, value["args"])
