"""From a finished run back to what its metrics looked at, without the model: stored predictions, the dataset, and the
code that scored them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from bench.core import registry
from bench.core.errors import RfbenchError, one_line
from bench.core.files import read_json, safe_name, sha256
from bench.core.options import build
from bench.data.captions import OWN, with_captions
from bench.data.dataset import Dataset, Record
from bench.metrics.base import Estimate
from bench.models.call import MAP, Answer
from bench.predict.plan import resolve_dataset
from bench.protocols.base import Protocol, Task
from bench.records.folder import RunFolder, differences
from bench.score.estimates import estimates


def replay(
    run: RunFolder, data: str | None = None, ids: Collection[str] | None = None
) -> Iterator[tuple[Task, dict[str, Estimate]]]:
    """The tasks of a finished run with the estimates (``sample``, perhaps ``mean``) that were scored, one at a time.

    Images that failed have none and are left out.

    Parameters
    ----------
    data : the dataset's folder or name; None for where the run found it.
    ids : only these images (every one of them must have been scored); None for all.

    Raises
    ------
    RfbenchError
        An unfinished run, other data than the run had, a protocol or a prediction that is not the one of the run.
    """
    stored = run.run()
    summary = run.summary()
    if summary is None:
        raise RfbenchError(f"{run.path}: found no summary.json, expected a finished run; run the same command again")
    plan = stored["plan"]
    protocol = protocol_of(plan["protocol"])
    dataset, records = dataset_of(run, data)
    hashes = scored_hashes(run)
    wanted = [r for r in records if ids is None or r.id in ids]
    missing = [i for i in ids or () if i not in {r.id for r in wanted} or hashes.get(i) is None]
    if missing:
        state = "failed in this run" if missing[0] in summary["failed"] else "is not among this run's images"
        raise RfbenchError(f"{run.path}: the image '{one_line(missing[0], 80)}' {state}; choose others")
    for record in wanted:
        if hashes.get(record.id) is not None:
            task = protocol.prepare(dataset.load(record))
            yield task, estimates(_answer(run, record.id, hashes[record.id]), task, protocol)


def protocol_of(identity: Mapping[str, Any]) -> Protocol:
    """The protocol with the identity that a run stored; RfbenchError if the one that is installed has another."""
    name = identity["name"]
    found = registry.load("protocols", name)
    fields = {f.name for f in dataclasses.fields(found)}
    options = {key: str(value) for key, value in identity.items() if key in fields}
    protocol: Protocol = build(found, options, what=f"protocol {name}")
    other = differences(dict(identity), protocol.identity(), "the run has", "this version")
    if other:
        raise RfbenchError(f"the protocol {name} is not the one of the run ({'; '.join(other[:3])}); run it again")
    return protocol


def dataset_of(run: RunFolder, data: str | None = None) -> tuple[Dataset, list[Record]]:
    """The dataset of a run and the run's records, in its order; RfbenchError unless all their bytes are the same."""
    plan = run.run()["plan"]
    wanted, captions = plan["data"], str(plan["protocol"].get("captions", OWN))
    if data is None:
        try:
            sessions = read_json(run.path / "host.json")["sessions"]
            data = str(sessions[-1]["data"])
            dataset = with_captions(resolve_dataset(data), captions)
        except (RfbenchError, LookupError, TypeError) as error:
            why = one_line(error, 160) if isinstance(error, RfbenchError) else "host.json does not say where it lies"
            raise RfbenchError(
                f"{run.path}: the dataset {one_line(wanted['name'], 60)} was not found again ({why}); give it with "
                "--data"
            ) from None
    else:
        dataset = with_captions(resolve_dataset(data), captions)
    of_split = {r.id: r for r in dataset.records(wanted["split"])}
    records = [of_split[i] for i in wanted["ids"] if i in of_split]
    fingerprint = dataset.fingerprint(records)
    if len(records) != len(wanted["ids"]) or fingerprint != wanted["fingerprint"]:
        raise RfbenchError(
            f"{run.path}: {one_line(data, 120)} is not the dataset of the run: found fingerprint {fingerprint[:12]}, "
            f"expected {wanted['fingerprint'][:12]}; give the unchanged one with --data"
        )
    return dataset, records


def scored_hashes(run: RunFolder) -> dict[str, str | None]:
    """The SHA-256 of each image's prediction as it was scored; None where the image failed."""
    frame = run.scores().drop_duplicates("id")
    return {
        i: None if isinstance(error, str) else str(digest)
        for i, error, digest in zip(frame["id"], frame["error"], frame["prediction_sha256"], strict=True)
    }


def _answer(run: RunFolder, image_id: str, digest: str | None) -> Answer:
    path = run.path / "predictions" / f"{safe_name(image_id)}.safetensors"
    if not path.is_file() or sha256(path) != digest:
        state = "is not the prediction that was scored" if path.is_file() else "is missing"
        raise RfbenchError(f"{path} {state}; restore it, or run it again into another --out")
    arrays, header = run.read_prediction(image_id)
    on_grid = {name: array for name, array in arrays.items() if not name.startswith(("native_", MAP))}
    maps = {name.removeprefix(MAP): array for name, array in arrays.items() if name.startswith(MAP)}
    return Answer(on_grid, header["unit"], tuple(header["bands"]), bool(header["normalised"]), maps=maps)
