"""The adapter of every model that runs in a guest: an environment and process of its own (``ModelSpec.environment``).

A spec with ``environment=Environment(...)`` names ``"bench.models.guests.adapter:GuestAdapter"``, or a subclass of it,
as its adapter, and the model itself is the class that the environment's shim defines. Everything else (padding, tiles,
draws, checks) is the sealed call's, as for any other model.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.core.errors import RfbenchError, one_line
from bench.core.image import Array
from bench.models.guests import checkout, environment
from bench.models.guests.environment import Environment
from bench.models.guests.worker import GuestFailed, GuestLost, Launch, Worker, kept_log
from bench.models.spec import Adapter, Batch, ModelSpec, Prediction


class GuestAdapter(Adapter):
    """Answers by asking the guest. A crash starts it again; a batch that it crashed on is asked once more.

    A subclass may check its options in ``__init__``, and send the shim more than the batch by ``arrays``.
    """

    def __init__(self, **options: str) -> None:
        super().__init__(**options)
        self._worker: Worker | None = None
        self._device, self._dtype = "cpu", "float32"
        self._restarts: list[str] = []
        self._seen: dict[str, Any] = {}

    def arrays(self, batch: Batch) -> Mapping[str, np.ndarray]:
        """What the shim finds as ``batch.arrays`` beside the images."""
        return {}

    def weights(self) -> Mapping[str, Any]:
        """The paths that the shim gets as ``weights``, by file name: those of ``ModelSpec.weights``."""
        return {file: self.weights_path(file) for file in self._spec().weights}

    # --- what the harness asks --------------------------------------------------------------------------------

    def check(self) -> None:
        for name in self._spec().needs_options:
            if not self.options[name]:
                raise RfbenchError(f"needs the option {name}; write --model {self._spec().name}:{name}=...")
        self._launch(load=False)

    def identity(self) -> dict[str, Any]:
        asked = self._environment()
        return {
            "environment": {
                "requirements_sha256": asked.requirements_sha256(),
                "python": asked.python_version,
            }
        }

    def session(self) -> dict[str, Any]:
        found = {"guest": self._seen} if self._seen else {}
        if self._worker is not None:
            found["guest"] = self._seen | {"peak_bytes": self._worker.peak_bytes}
        return found | ({"restarts": list(self._restarts)} if self._restarts else {})

    def device_peak_bytes(self) -> int | None:
        return (self._worker.device_peak_bytes or None) if self._worker is not None else None

    def load(self, device: str, dtype: str) -> None:
        self.close()
        self._device, self._dtype = device, dtype
        self._start()

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def upscale(self, batch: Batch) -> Prediction:
        told, arrays = header(batch), {"images": batch.images}
        arrays |= {f"series{i}": one.values for i, one in enumerate(batch.series)}
        arrays |= self.arrays(batch)
        limit_s = self._environment().item_s * len(batch.ids) * batch.draws
        try:
            reply, found = self._running().upscale(told, arrays, limit_s)
        except GuestLost as error:
            self._worker = None
            if error.how != "idle":
                self._tell(batch.ids, error)
            if error.how in ("late", "garbled"):  # it would be so again
                raise
            reply, found = self._again(told, arrays, limit_s)
        return _prediction(reply, found)

    # --- the guest --------------------------------------------------------------------------------------------

    def _again(
        self, told: Mapping[str, Any], arrays: Mapping[str, np.ndarray], limit_s: float
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The batch once more, in a new guest."""
        try:
            return self._running().upscale(told, arrays, limit_s)
        except GuestLost as error:
            self._worker = None
            raise RfbenchError(f"{error} (twice)") from None

    def _tell(self, ids: Sequence[str], error: GuestLost) -> None:
        where = f"{', '.join(ids[:3])}: " if ids else ""
        text = one_line(f"{where}{error}", 300)
        self._restarts.append(text)
        log = kept_log(self._spec().name)
        print(f"warning: {self._spec().name}: {text}; it is started again (its log: {log})", file=sys.stderr)

    def _running(self) -> Worker:
        return self._worker if self._worker is not None else self._start()

    def _start(self, *, again: bool = True) -> Worker:
        try:
            self._worker = Worker(self._launch(load=True), self._device, self._dtype)
        except (GuestFailed, GuestLost) as error:
            if again and isinstance(error, GuestLost) and error.how == "killed":
                self._tell((), error)
                return self._start(again=False)
            # With a cause where the model itself is at fault, as for an adapter that cannot be imported.
            cause = None if isinstance(error, GuestFailed) and error.told else error
            raise RfbenchError(f"model {self._spec().name}: {error}") from cause
        except MemoryError as error:
            raise RfbenchError(f"model {self._spec().name}: out of memory while loading ({error})") from None
        self._seen = {k: self._worker.hello[k] for k in ("python", "numpy", "torch") if k in self._worker.hello}
        return self._worker

    def _launch(self, *, load: bool) -> Launch:
        """All that the guest needs, just found; Unavailable with the command that brings what is missing."""
        spec, asked = self._spec(), self._environment()
        built = environment.need(spec.name, asked, self._device)
        folder = checkout.need(spec.name, spec.commit) if asked.checkout else None
        _, _, cls = asked.shim.partition(":")
        weights = self.weights() if load else {}
        return Launch(
            spec.name, built.interpreter, asked.shim_file(), cls, folder, self.options, weights, asked.start_s,
            asked.idle_s,
        )  # fmt: skip

    def _spec(self) -> ModelSpec:
        if self.spec is None:
            raise RfbenchError("an adapter of a model with an environment is made by rfbench, which gives it its spec")
        return self.spec

    def _environment(self) -> Environment:
        found = self._spec().environment
        if found is None:
            raise RfbenchError(f"model {self._spec().name}: its adapter needs the spec's environment; state it there")
        return found


def header(batch: Batch) -> dict[str, Any]:
    """What the guest is told of a batch beside its arrays."""
    return {
        "size": list(batch.size),
        "bands": list(batch.bands),
        "ids": list(batch.ids),
        "captions": list(batch.captions),
        "seeds": [list(s) for s in batch.seeds],
        "offset": list(batch.offset),
        "dates": list(batch.dates),
        "target_dates": list(batch.target_dates),
        "gsd_m": batch.gsd_m,
        "series": [[list(one.bands), list(one.dates)] for one in batch.series],
    }


def _prediction(reply: Mapping[str, Any], arrays: dict[str, Array]) -> Prediction:
    """What the guest gave, as far as it is shaped like a prediction; the sealed call looks at the rest."""
    maps = {name[4:]: arrays.pop(name) for name in list(arrays) if name.startswith("map:")}
    other = sorted(set(arrays) - {"samples", "mean", "std"})
    if other:
        raise RfbenchError(f"upscale gave {one_line(', '.join(other), 80)}, expected samples, mean, std, maps or facts")
    facts = reply.get("facts") or ()
    if not isinstance(facts, list | tuple) or not all(isinstance(f, dict) for f in facts):
        raise RfbenchError(f"facts are {one_line(facts, 60)}, expected one dict of numbers an image")
    return Prediction(**arrays, maps=maps, facts=tuple(facts))
