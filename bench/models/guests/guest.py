"""The guest's side: serves one model in an environment of its own. Needs Python 3.8 and numpy 1.20, nothing of rfbench.

The host (``bench.models.guests.worker``) starts this file with three pipe ends and a private folder::

    python guest.py REQUESTS ANSWERS LIFELINE FOLDER

Headers are lines of JSON on the first two pipes, never on stdout, which belongs to the model's own code; arrays are
``.npy`` files in the folder. Nobody ever writes to the lifeline: it ends when the host does, however the host ended.

A model is a class in a file (the shim)::

    class Model:
        def __init__(self, options, weights, checkout): ...   # texts by name, paths by file name, a folder or None
        def load(self, device, dtype): ...                    # "cpu" or "cuda", "cuda:1"; "float32", ...
        def upscale(self, batch): return {"mean": ...}        # or samples, std, maps, facts: bench.models.Prediction

``from rfbench_guest import ...`` gives it what is public here.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import random
import select
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

PROTOCOL = 1
_HERE = Path(__file__).resolve()


class UserError(Exception):
    """What the user can mend: its message is shown as it is, without the kind and place of an exception."""


class Series:
    """A time series of the LR: ``values`` (T, h, w, C) as stored, ``bands`` and ISO ``dates``."""

    def __init__(self, values: np.ndarray, bands: list[str], dates: list[str]) -> None:
        self.values, self.bands, self.dates = values, tuple(bands), tuple(dates)


class Batch:
    """N images of one size, with the fields of ``bench.models.Batch``.

    ``images`` float32 (N, h, w, C); ``size`` (height, width) of the answer; ``bands``; ``ids`` and ``captions`` one an
    image; ``seeds`` N lists of K; ``offset`` (row, column) of a tile; ``series`` of each image or empty; ``dates``
    and ``target_dates``; ``gsd_m``; ``arrays``: what the model's adapter sends beside them, by name.
    """

    def __init__(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.images = arrays.pop("images")
        self.size, self.offset = tuple(header["size"]), tuple(header["offset"])
        self.bands, self.ids, self.captions = (tuple(header[k]) for k in ("bands", "ids", "captions"))
        self.seeds = tuple(tuple(s) for s in header["seeds"])
        self.dates, self.target_dates = tuple(header["dates"]), tuple(header["target_dates"])
        self.gsd_m = header["gsd_m"]
        self.series = tuple(Series(arrays.pop(f"series{i}"), *s) for i, s in enumerate(header["series"]))
        self.arrays = arrays

    @property
    def draws(self) -> int:
        """K, the number of draws that are wanted (1 for a deterministic model)."""
        return len(self.seeds[0])

    def noise(self, channels: int, cells_per_px: float = 1.0, size: tuple[int, int] | None = None) -> np.ndarray:
        """Standard normal noise float32 (N, K, rows, columns, channels), the same as ``bench.models.Batch.noise``."""
        import numpy as np

        rows, columns = size or tuple(round(n * cells_per_px) for n in self.images.shape[1:3])
        top, left = (round(o * cells_per_px) for o in self.offset)
        field = sys.modules["rfbench_seeds"].noise_field
        draws = [[field(s, top, left, rows, columns, channels) for s in seeds] for seeds in self.seeds]
        return np.array(draws, np.float32)

    def seed_everything(self, image: int, draw: int) -> None:
        """Start Python's, numpy's and torch's global generators for one image and draw, for code that uses them.

        A tile has a seed of its own: the same noise in every tile would show as a pattern.
        """
        import numpy as np

        text = f"{self.seeds[image][draw]}/{self.offset[0]}/{self.offset[1]}"
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - the global one is meant
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(seed)


# --- the process ----------------------------------------------------------------------------------------------


def main() -> None:
    """Serve until the host is gone or nothing was asked for a while."""
    requests, answers, lifeline = (int(word) for word in sys.argv[1:4])
    folder = Path(sys.argv[4])
    for fd in (requests, answers, lifeline):
        os.set_inheritable(fd, False)
    _watch(lifeline, (requests, answers), folder)
    # The folder of this file holds modules of rfbench, whose names are the model's to use.
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != _HERE.parent]
    sys.modules["rfbench_guest"] = sys.modules[__name__]
    server = _Server(requests, answers, folder)
    import numpy

    python = ".".join(map(str, sys.version_info[:3]))
    server.answer({"type": "hello", "protocol": PROTOCOL, "python": python, "numpy": numpy.__version__})
    server.serve()


def _watch(lifeline: int, others: tuple[int, ...], folder: Path) -> None:
    """A small process beside this one that ends it, and what it started, when the host is gone.

    A thread would have to wait for the interpreter, which a long call into C may hold; the signal that Linux sends
    when a parent dies comes when the thread that started the child dies, and to the child alone.
    """
    guest = os.getpid()  # started as the leader of its process group
    if os.fork():
        return
    os.setpgid(0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for fd in others:
        os.close(fd)
    try:
        os.read(lifeline, 1)
    finally:
        with contextlib.suppress(OSError):
            os.killpg(guest, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)


class _Server:
    def __init__(self, requests: int, answers: int, folder: Path) -> None:
        self.requests, self.answers, self.folder = requests, answers, folder
        self.rest, self.count = b"", 0
        self.idle_s: float | None = None
        self.model: Any = None

    def serve(self) -> None:
        while True:
            request = self.next_request()
            if request is None:
                return
            started = time.monotonic()
            try:
                reply = {"load": self.load, "upscale": self.upscale}[request["type"]](request)
            except (Exception, SystemExit) as error:
                traceback.print_exc()
                sys.stderr.flush()
                reply = _described(error)
                _free_memory()
            reply["id"], reply["seconds"] = request["id"], time.monotonic() - started
            reply["peak_bytes"], reply["device_peak_bytes"] = _peak_bytes(), _device_peak_bytes()
            self.answer(reply)

    def next_request(self) -> dict[str, Any] | None:
        """The next header, or None where the host is gone or has not asked for ``idle_s``."""
        while b"\n" not in self.rest:
            if not select.select([self.requests], [], [], self.idle_s)[0]:
                self.answer({"type": "idle"})
                return None
            part = os.read(self.requests, 1 << 16)
            if not part:
                return None
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\n")
        request: dict[str, Any] = json.loads(line.decode())
        return request

    def answer(self, header: dict[str, Any]) -> None:
        data = (json.dumps(header) + "\n").encode()
        while data:
            data = data[os.write(self.answers, data) :]

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        self.idle_s = request["idle_s"]
        _module("rfbench_seeds", request["seeds"])
        if request["checkout"]:
            sys.path.insert(0, request["checkout"])
        shim = _module("rfbench_shim", request["shim"])
        _settle(request)
        self.model = getattr(shim, request["class"])(request["options"], request["weights"], request["checkout"])
        self.model.load(request["device"], request["dtype"])
        _settle(request)
        versions = {n: getattr(sys.modules[n], "__version__", "") for n in ("torch",) if n in sys.modules}
        return {"type": "loaded", "versions": versions}

    def upscale(self, request: dict[str, Any]) -> dict[str, Any]:
        import numpy as np

        _settle(request)
        arrays = {}
        for name, file in request["arrays"].items():
            arrays[name] = np.load(self.folder / file, allow_pickle=False)
            (self.folder / file).unlink()
        found = dict(self.model.upscale(Batch(request, arrays)))
        facts = [{k: float(v) for k, v in of_one.items()} for of_one in found.pop("facts", ())]
        named = {"map:" + k: v for k, v in (found.pop("maps", None) or {}).items()}
        named.update((k, v) for k, v in found.items() if v is not None)
        written = {}
        for i, (name, values) in enumerate(named.items()):
            if not isinstance(values, np.ndarray):
                raise TypeError(f"{name} is a {type(values).__name__}, expected a numpy array")
            self.count += 1
            file = f"answer-{self.count}-{i}.npy"
            np.save(self.folder / file, values, allow_pickle=False)
            written[name] = {"file": file, "shape": list(values.shape), "dtype": values.dtype.str}
        return {"type": "result", "arrays": written, "facts": facts}


def _peak_bytes() -> int:
    import resource  # POSIX alone; the host imports this file everywhere

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _device_peak_bytes() -> int:
    """The most that torch held on any one CUDA device in this process's life; 0 where it uses none."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_available() or not cuda.is_initialized():
        return 0
    return max(cuda.max_memory_allocated(i) for i in range(cuda.device_count()))


def _module(name: str, path: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _settle(request: dict[str, Any]) -> None:
    """Torch's threads and repeatable arithmetic, as in the host, once the model has brought torch."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "set_num_threads"):
        return
    if torch.get_num_threads() != request["threads"]:
        torch.set_num_threads(request["threads"])
    with contextlib.suppress(AttributeError, TypeError):  # before torch 1.11
        torch.set_deterministic_debug_mode("warn")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def _described(error: BaseException) -> dict[str, Any]:
    kind = "" if isinstance(error, UserError) else type(error).__name__
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _not_the_model(f.filename)][-1:]
    where = "".join(f"{Path(f.filename).name} line {f.lineno}, {f.name}" for f in frames if kind)
    words = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
    memory = isinstance(error, MemoryError) or kind == "OutOfMemoryError"
    memory = memory or (isinstance(error, RuntimeError) and any(w in str(error) for w in words))
    return {"type": "error", "kind": kind, "message": str(error), "where": where, "memory": memory}


def _not_the_model(filename: str) -> bool:
    return filename.startswith("<") or "site-packages" in filename or Path(filename).resolve() == _HERE


def _free_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
