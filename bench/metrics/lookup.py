"""What another library reads while it builds a network: found here, hashed and written down, never fetched.

A library that brings its own way to its weights looks into caches of its own and downloads what is not there. Within
``files_of`` nothing is downloaded, the weights folders are looked into first, and every file of weights that is
opened is hashed before it is read, however it came there. So a metric whose files no list names can still say in its
identity which ones it used.

Offline variables of the libraries (``HF_HUB_OFFLINE``) would not do instead: of the libraries only the Hugging Face hub
has one, it is read once when a library is imported, and none says which file was read. So Python itself is asked, by an
audit hook, of which PEP 578 makes exactly this promise: it hears of every file that is opened and every host that is
looked for, by whatever library; outside ``files_of`` and in other threads it does nothing.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import re
import sys
import sysconfig
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import weights
from bench.core.errors import Unavailable, one_line
from bench.metrics.networks import replaced

SUFFIXES = frozenset(
    (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".mat", ".pkl", ".pickle", ".npy", ".npz", ".h5", ".onnx", ".tar")
)
"""What files of weights end in. Others are opened too: configurations, and the sources of packages."""

_COPIES_OF_TORCH_HUB = ("pyiqa.utils.download_util", "timm.models._hub")
_LOADERS_OF_CLIP = ("pyiqa.archs.clip_model", "pyiqa.archs.afineclip_model", "clip.clip")

_active = threading.local()
"""Of this thread: ``read`` is called with each file that it opens for reading, ``reach`` with hosts it looks for."""


@contextlib.contextmanager
def files_of(what: str, weights_dir: Path | None = None) -> Iterator[dict[str, str]]:
    """Within the block a library finds its files here or not at all; yields the SHA-256 of each that it read, by name.

    Files are looked for in the weights folders, then in the caches of pyiqa and torch.hub; those of the Hugging Face
    hub in its own. Files that installed packages carry belong to those packages' versions and are not noted.

    Raises
    ------
    Unavailable
        In the block: for a file that is not here, with its name; for one whose bytes are not those that the committed
        list, its name (``net-1a2b3c4d.pth``) or the hub says; for code that would be run from the hub's cache.
    """
    import torch

    found: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rfbench-")))
        hub = Path(torch.hub.get_dir())
        caches = [hub / "checkpoints", hub / "clip"]
        pyiqa = _imported("pyiqa.utils.download_util")
        if pyiqa is not None:
            caches.insert(0, Path(pyiqa.DEFAULT_CACHE_DIR))
        folders = [*weights.folders(weights_dir), *caches]
        # Their caches are an empty folder that ends with the block, into which links are laid as files are asked for.
        for module in _with("DEFAULT_CACHE_DIR", "pyiqa."):
            stack.enter_context(replaced(module, DEFAULT_CACHE_DIR=str(place / "pyiqa")))
        if hasattr(torch.hub, "_hub_dir"):
            stack.enter_context(replaced(torch.hub, _hub_dir=str(place / "hub")))
        stack.enter_context(_no_downloads(what, folders, weights_dir))
        stack.enter_context(_noting(what, found))
        yield found


def _with(attribute: str, prefix: str = "") -> list[Any]:
    """The loaded modules that have an attribute, without waking those that load themselves when asked."""
    loaded = list(sys.modules.items())
    return [m for name, m in loaded if name.startswith(prefix) and attribute in getattr(m, "__dict__", {})]


@functools.cache
def _imported(module: str) -> Any:
    """A module by its name, or None where it or something that it needs is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def _door(module: str, **attributes: Any) -> contextlib.AbstractContextManager[None]:
    """``replaced`` for a module that may not be installed."""
    found = _imported(module)
    return contextlib.nullcontext() if found is None else replaced(found, **attributes)


# --- no downloads -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _no_downloads(what: str, folders: list[Path], weights_dir: Path | None) -> Iterator[None]:
    """A library that wants to fetch a file gets it from ``folders``, or Unavailable that names it.

    It covers the doors that the packages use: torch.hub, pyiqa's and timm's copies of it, CLIP's own, urllib, and the
    Hugging Face hub, which is switched to its offline mode (files that are already in its cache are still found). What
    comes through another door is stopped where it looks for a host.
    """
    import urllib.request

    import torch

    wanted: list[str] = []

    def refuse(url: Any, *args: Any, **kwargs: Any) -> Any:
        text = str(getattr(url, "full_url", url))
        wanted.append(_name(text))
        raise Unavailable(_not_here(what, wanted[-1], text))

    def give(url: str, target: str, *args: Any, **kwargs: Any) -> None:
        for name in dict.fromkeys((Path(target).name, _name(url))):
            path = _search(name, folders, weights_dir)
            if path is not None:
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                Path(target).symlink_to(path.resolve())
                return
        refuse(url)

    def clip(url: str, root: str) -> str:  # its addresses hold the whole hash
        path = _search(_name(url), [*folders, Path(root)], weights_dir)
        if path is None:
            refuse(url)
        elif weights.hash_of(path) not in url:
            raise Unavailable(f"weights wrong: {what} found another {path.name} than {one_line(url, 160)}")
        return str(path)

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(torch.hub, download_url_to_file=give))
        stack.enter_context(replaced(urllib.request, urlopen=refuse))
        _listen()
        before, _active.reach = getattr(_active, "reach", None), refuse
        stack.callback(setattr, _active, "reach", before)
        for name in _COPIES_OF_TORCH_HUB:
            stack.enter_context(_door(name, download_url_to_file=give))
        for name in _LOADERS_OF_CLIP:
            stack.enter_context(_door(name, _download=clip))
        if importlib.util.find_spec("huggingface_hub"):
            stack.enter_context(_hub_offline(wanted))
        try:
            yield
        except Unavailable:
            raise
        except Exception as error:  # each library has errors of its own for a file that it was not given
            if not wanted:
                raise
            raise Unavailable(
                f"{what} needs the file {wanted[0]}, which is not here; bring a hub's cache that has it (HF_HOME)"
            ) from error


def _name(address: str) -> str:
    return one_line(urllib.parse.unquote(address.split("?")[0].rstrip("/").rsplit("/", 1)[-1]), 100)


def _search(name: str, folders: list[Path], weights_dir: Path | None) -> Path | None:
    if name in weights.listed():  # a package may carry it, and a wrong one may stand before the right one
        with contextlib.suppress(Unavailable):
            return weights.find(name, weights_dir)
    return next((folder / name for folder in folders if name and (folder / name).is_file()), None)


def _not_here(what: str, name: str, address: str) -> str:
    remedy = weights.listed()[name].remedy if name in weights.listed() else "put it into --weights-dir"
    return f"{what} needs the file {name}, which is not here; {remedy} ({one_line(address, 160)})"


@contextlib.contextmanager
def _hub_offline(wanted: list[str]) -> Iterator[None]:
    """The Hugging Face hub without network; the files that it was asked for and did not have go to ``wanted``."""
    from huggingface_hub import constants, file_download

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(constants, HF_HUB_OFFLINE=True))
        inner: Callable[..., Any] | None = getattr(file_download, "_hf_hub_download_to_cache_dir", None)
        if inner is not None:
            download = inner

            def noted(*args: Any, **kwargs: Any) -> Any:
                try:
                    return download(*args, **kwargs)
                except Exception:  # noted, and raised again
                    wanted.append(f"{kwargs.get('filename', 'of the hub')} of {kwargs.get('repo_id', '?')}")
                    raise

            stack.enter_context(replaced(file_download, _hf_hub_download_to_cache_dir=noted))
        yield


# --- what is read -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _noting(what: str, found: dict[str, str]) -> Iterator[None]:
    """Hash every file of weights that this thread opens within the block, before it is read.

    Python tells of each file that it opens. safetensors opens its own in another language, so its one door is watched.
    """
    _listen()
    packages = _package_folders()
    hub = _hub_folders()

    def read(path: str) -> None:
        path = os.path.abspath(path)  # noqa: PTH100 - links stay: the name is that of the link
        if path.endswith(".py") and path.startswith(hub):
            raise Unavailable(f"{what} would run code from the hub's cache ({one_line(Path(path).name, 60)})")
        if Path(path).suffix.lower() in SUFFIXES and not path.startswith(packages) and os.path.isfile(path):  # noqa: PTH113
            _note(what, Path(path), found)

    with contextlib.ExitStack() as stack:
        before, _active.read = getattr(_active, "read", None), read
        stack.callback(setattr, _active, "read", before)
        if importlib.util.find_spec("safetensors"):
            import safetensors

            original = safetensors.safe_open

            def safe_open(filename: Any, *args: Any, **kwargs: Any) -> Any:
                _tell(filename)
                return original(filename, *args, **kwargs)

            for module in _with("safe_open"):
                if vars(module)["safe_open"] is original:
                    stack.enter_context(replaced(module, safe_open=safe_open))
        yield


def _note(what: str, path: Path, found: dict[str, str]) -> None:
    name, real = path.name, path.resolve()
    has = weights.hash_of(real)
    in_name = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", name)
    expected = [weights.listed()[name].sha256] if name in weights.listed() else [in_name[1]] if in_name else []
    if re.fullmatch("[0-9a-f]{64}", real.name):  # so the hub calls its large files
        expected.append(real.name)
    for digits in expected:
        if not has.startswith(digits):
            raise Unavailable(
                f"weights wrong: {what} found {one_line(name, 80)} with sha256 {has[:8]}..., expected {digits[:8]}..."
            )
    if found.setdefault(name, has) != has:
        found[f"{name}@{has[:8]}"] = has


def _tell(path: Any) -> None:
    read = getattr(_active, "read", None)
    if read is None or not isinstance(path, str | bytes | os.PathLike):
        return
    _active.read = None  # hashing opens the file too
    try:
        read(os.fsdecode(path))
    finally:
        _active.read = read


_listening = threading.Lock()
_listens = False


def _listen() -> None:
    """Have Python tell of files and hosts: asked once, and only when needed, for it cannot be told to stop."""
    global _listens
    with _listening:
        if not _listens:
            sys.addaudithook(_on_event)
            _listens = True


def _on_event(event: str, details: tuple[Any, ...]) -> None:
    if event in ("socket.getaddrinfo", "socket.connect") and getattr(_active, "reach", None) is not None:
        _active.reach(details[0] if event == "socket.getaddrinfo" else details[1])
    elif event == "open" and getattr(_active, "read", None) is not None:
        path, _, flags = details
        if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
            _tell(path)


def _package_folders() -> tuple[str, ...]:
    """Where installed packages and Python itself lie."""
    places = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    places |= {p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")}
    return tuple(os.path.join(place, "") for place in places if place)  # noqa: PTH118 - ends in a separator


def _hub_folders() -> tuple[str, ...]:
    if not importlib.util.find_spec("huggingface_hub"):
        return ()
    from huggingface_hub import constants

    return tuple(os.path.join(p, "") for p in (constants.HF_HUB_CACHE, constants.HF_HOME))  # noqa: PTH118
