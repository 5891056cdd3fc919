"""Other people's checkpoints: opened without running anything in them, held against a network, converted once.

A torch checkpoint is a pickle, and a pickle is a program. Here torch's own restricted reader opens it, and whatever
other classes it names (a trainer's callbacks, a configuration) become inert stand-ins: nothing of them is imported or
called, and only tensors are kept. What a file must hold is fixed by the network: every name and shape, none missing
and none left over, so that the checkpoint of another model or version never loads by half.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import weights
from bench.core import places
from bench.core.claims import look_at_tensors
from bench.core.errors import RfbenchError, one_line
from bench.core.files import atomic_path, digest
from bench.core.pickles import DryRun

if TYPE_CHECKING:
    from torch import Tensor, nn

ENVIRONMENT_VARIABLE = "RFBENCH_CONVERTED"
META = "meta"
"""torch's device for tensors with a name and a shape and no numbers."""
_MAX_PICKLE_BYTES = 2**26  # of what names the tensors
_PICKLES_OF_OLD = 5  # in a file from before torch 1.6, ahead of its numbers
_SHOWN = 3  # names in a message


def read_state(path: Path, under: str = "", device: str = "cpu") -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU; entries of other kinds are left out.

    Parameters
    ----------
    path : a safetensors file, or what ``torch.save`` wrote.
    under : the key of the dict that holds them (``state_dict`` in a trainer's checkpoint); empty for the file's own.
    device : where the network will be. For ``meta`` the tensors have names and shapes alone, and their numbers are not
        read.

    Raises
    ------
    RfbenchError
        One line, if the file is cut, no checkpoint, hostile, or holds no tensors there.
    """
    place = META if device == META else "cpu"
    document = _safetensors(path, place) if path.suffix == ".safetensors" else _pickled(path, place)
    found = document.get(under) if under and isinstance(document, Mapping) else document
    if not isinstance(found, Mapping):
        keys = _some([k for k in document if isinstance(k, str)]) if isinstance(document, Mapping) else "no names"
        where = f"'{under}' with a dict of tensors" if under else "a dict of tensors"
        raise RfbenchError(f"{path.name}: found {keys}, expected {where}; it is the file of another model or version")
    import torch

    tensors = {k: v.detach() for k, v in found.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if not tensors:
        raise RfbenchError(f"{path.name}: found no tensors, expected those of a network; get the right file")
    return tensors


def _safetensors(path: Path, place: str) -> dict[str, Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        claims = look_at_tensors(path)
        if place == META:
            return {name: torch.empty(shape, device=META) for name, (_, shape) in claims.items()}
        return load_file(path)
    except (OSError, SafetensorError, RfbenchError) as error:
        raise _broken(path, error) from None


def _pickled(path: Path, place: str) -> Any:
    import torch

    try:
        _look_at(path)
        try:
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        except ValueError:  # the format before torch 1.6, which the restricted reader takes or refuses as a whole
            foreign = []
        stand_ins: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in foreign]
        with torch.serialization.safe_globals(stand_ins):
            # A file of today's format is mapped, not read, where its numbers are of no use.
            is_mapped = place == META and zipfile.is_zipfile(path)
            return torch.load(path, map_location=place, weights_only=True, mmap=is_mapped)
    except RfbenchError as error:
        raise RfbenchError(f"{path.name} is not opened: it {error}") from None
    except pickle.UnpicklingError as error:
        # torch wraps the reason into advice to switch its guard off.
        why = one_line(error.__context__ or type(error).__name__, 160)
        raise RfbenchError(
            f"{path.name} is not opened: {why}; expected tensors alone: it may be hostile, get the publisher's file"
        ) from None
    except Exception as error:  # whatever a reader meets in broken bytes
        raise _broken(path, error) from None


def _look_at(path: Path) -> None:
    """RfbenchError for a pickle that keeps torch's reader busy, or ends the interpreter (``bench.core.pickles``)."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.rpartition("/")[2] == "data.pkl":
                    if entry.file_size > _MAX_PICKLE_BYTES:
                        raise RfbenchError(f"names its tensors in {entry.file_size} bytes, expected a few")
                    DryRun(io.BytesIO(archive.read(entry))).load()
        return
    with path.open("rb") as file, contextlib.suppress(EOFError):  # the format before torch 1.6: one after the other
        for _ in range(_PICKLES_OF_OLD):
            DryRun(file).load()


class _Inert:
    """What a checkpoint wanted to make beside tensors. Nothing is done with it."""

    def __new__(cls, *args: Any, **named: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **named: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _broken(path: Path, error: Exception) -> RfbenchError:
    # How far an interpreter of bytes came is no reason that helps: "'ascii' codec can't decode byte 0x80".
    why = one_line(error, 120) if isinstance(error, RfbenchError | OSError) else f"a {type(error).__name__} inside"
    return RfbenchError(
        f"{path.name} is cut or no checkpoint ({why}); remove it, with {path.name}{weights.RECORDED} if that is there, "
        "and fetch it again"
    )


def check_state(state: Mapping[str, Tensor], network: nn.Module, what: str) -> None:
    """RfbenchError unless ``state`` has exactly the names and shapes of ``network`` (which may lie on the meta device).

    The message names the first few that are missing, left over or of another shape.
    """
    expected = network.state_dict()
    missing = [k for k in expected if k not in state]
    extra = [k for k in state if k not in expected]
    shapes = [
        f"{k} {_shape(state[k])} for {_shape(v)}"
        for k, v in expected.items()
        if k in state and state[k].shape != v.shape
    ]
    wrong = [
        f"{len(names)} {kind} ({_some(names)})"
        for kind, names in (("missing", missing), ("unexpected", extra), ("of another shape", shapes))
        if names
    ]
    if wrong:
        raise RfbenchError(
            f"{what}: of {len(expected)} expected tensors {', '.join(wrong)}; it is the checkpoint of another model or "
            "version"
        )


def load_state(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """``check_state``, then the tensors become the network's own, which may lie on the meta device until then."""
    check_state(state, network, what)
    network.load_state_dict({k: _aligned(v) for k, v in state.items()}, strict=True, assign=True)


def converted(name: str, revision: int, sources: Mapping[str, Path], make: Callable[[], dict[str, Tensor]]) -> Path:
    """The safetensors file that ``make`` gives for these sources: made once, then taken from the cache.

    Its name is that of the conversion (``name``, ``revision``) and of the sources' bytes, so a newer converter or
    another file never meets an old result. It lies in ``$RFBENCH_CONVERTED``, else in ``~/.cache/rfbench/converted``,
    with its own hash beside it, which is verified before each use; a damaged one is made again.

    Parameters
    ----------
    name, revision : of the converter; raise the revision whenever its result changes.
    sources : the verified files by name.
    make : the tensors by name; called only where nothing usable is there.
    """
    from safetensors.torch import save_file

    hashes = {file: weights.hash_of(path) for file, path in sorted(sources.items())}
    made_of = {"converter": name, "revision": revision, "sources": hashes}
    path = cache() / f"{name}-{digest(made_of)[:16]}.safetensors"
    known = weights.recorded(path)
    if known is not None and path.is_file() and weights.hash_of(path) == known.sha256:
        return path
    tensors = {k: _own(v) for k, v in sorted(make().items())}
    with atomic_path(path) as temporary:
        # One entry: the order of several is not fixed in the file.
        save_file(tensors, temporary, {"rfbench": json.dumps(made_of, sort_keys=True)})
    weights.record(path, source=", ".join(hashes))
    return path


def converted_state(
    name: str, revision: int, sources: Mapping[str, Path], make: Callable[[], dict[str, Tensor]], device: str = "cpu"
) -> dict[str, Tensor]:
    """The tensors of ``converted``. For the device ``meta`` nothing is kept: ``make`` gives names and shapes alone."""
    return make() if device == META else read_state(converted(name, revision, sources, make))


def cache() -> Path:
    """The folder of converted checkpoints."""
    return places.kept("converted", ENVIRONMENT_VARIABLE)


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor where torch would have put it: by how memory is aligned some kernels choose another order of sums, and
    the same weights from two files gave answers that differed in the last digits."""
    return tensor if tensor.is_contiguous() and tensor.data_ptr() % 64 == 0 else tensor.contiguous().clone()


def _own(tensor: Tensor) -> Tensor:
    """The tensor with a memory of its own, as safetensors wants it."""
    tensor = tensor.contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def _some(names: list[str]) -> str:
    shown = ", ".join(one_line(n, 80) for n in names[:_SHOWN])
    return (shown or "no names") + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
