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


def installed_wheel(folder: Path, name: str) -> Path:
    """A wheel of a package that is installed here, from the files that its installer listed."""
    found = importlib.metadata.distribution(name)
    files = {
        str(f): Path(str(f.locate())) for f in found.files or () if ".." not in f.parts and "__pycache__" not in f.parts
    }
    information = next(f.partition("/")[0] for f in files if f.endswith(".dist-info/METADATA"))
    tags = [
        line.partition(": ")[2] for line in (found.read_text("WHEEL") or "").splitlines() if line.startswith("Tag:")
    ]
    python, abi, _ = tags[0].split("-")
    platforms = ".".join(dict.fromkeys(tag.split("-")[2] for tag in tags))
    contents = {path: file.read_bytes() for path, file in files.items() if not path.endswith(("/RECORD", "/INSTALLER"))}
    stem = information.removesuffix(".dist-info")
    return _zip(folder / f"{stem}-{python}-{abi}-{platforms}.whl", contents, information)


def _zip(path: Path, contents: Mapping[str, str | bytes], information: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    record = "".join(f"{name},,\n" for name in [*contents, f"{information}/RECORD"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in [*contents.items(), (f"{information}/RECORD", record)]:
            archive.writestr(name, data)
    return path
