"""Packages for tests, as an index would serve them: wheels of a few files, and of what is installed here."""

from __future__ import annotations

import importlib.metadata
import zipfile
from collections.abc import Mapping
from pathlib import Path


def wheel(folder: Path, name: str, version: str, files: Mapping[str, str]) -> Path:
    """A pure Python wheel of ``files`` (text by path)."""
    information = f"{name}-{version}.dist-info"
    metadata = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    contents = dict(files) | {f"{information}/{file}": text for file, text in metadata.items()}
    return _zip(folder / f"{name}-{version}-py3-none-any.whl", contents, information)


def installed_wheel(folder: Path, name: str, version: str, more: Mapping[str, str] | None = None) -> Path:
    """A wheel of a package that is installed here, from the files that its installer listed, under another version.

    ``more`` is text to add to the end of its files, by path. Its own tests are left out.
    """
    found = importlib.metadata.distribution(name)
    information, other = f"{found.name}-{version}.dist-info", ("/RECORD", "/INSTALLER", "/METADATA")
    contents: dict[str, str | bytes] = {}
    for file in found.files or ():
        if ".." in file.parts or {"__pycache__", "tests"} & {*file.parts} or str(file).endswith(other):
            continue
        path = f"{information}/{Path(*file.parts[1:])}" if file.parts[0].endswith(".dist-info") else str(file)
        contents[path] = Path(str(file.locate())).read_bytes() + (more or {}).get(path, "").encode()
    contents[f"{information}/METADATA"] = f"Metadata-Version: 2.1\nName: {found.name}\nVersion: {version}\n"
    tags = [
        line.partition(": ")[2] for line in (found.read_text("WHEEL") or "").splitlines() if line.startswith("Tag:")
    ]
    python, abi, _ = tags[0].split("-")
    platforms = ".".join(dict.fromkeys(tag.split("-")[2] for tag in tags))
    return _zip(folder / f"{found.name}-{version}-{python}-{abi}-{platforms}.whl", contents, information)


def _zip(path: Path, contents: Mapping[str, str | bytes], information: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    record = "".join(f"{name},,\n" for name in [*contents, f"{information}/RECORD"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in [*contents.items(), (f"{information}/RECORD", record)]:
            archive.writestr(name, data)
    return path
