"""Put the parts of a run that were made with ``--shard`` together: the same bytes as if it had been run at once."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.core.device import resolve_device
from bench.core.errors import RfbenchError, one_line
from bench.core.files import atomic_path, safe_name
from bench.predict.plan import SHARDS
from bench.records.folder import RunFolder
from bench.records.predictions import hash_of
from bench.records.run import differences
from bench.records.types import ItemRecord
from bench.score import execute

_GONE = ".gone"  # ends the hidden name of parts whose run is whole, while they are removed
_PART = re.compile(r"([1-9][0-9]{0,5})-of-([1-9][0-9]{0,5})")


def merge(
    places: Sequence[Path], command_line: Sequence[str] = (), *, data: str | None = None, keep: bool = False
) -> list[RunFolder]:
    """Make whole runs of all parts in some folders, and write their summaries; returns the runs.

    Nothing is predicted, and no metric computed that the parts have. An interrupted call is repeated, and so may be a
    finished one: runs that are whole stay as they are.

    Parameters
    ----------
    places : ``NAME.shards``, or folders that hold such.
    data : where the dataset lies now; None for where the parts found it.
    keep : whether the parts stay; they go once the run is whole.

    Raises
    ------
    RfbenchError
        A part is missing, or not finished, or of another plan.
    """
    found, done = _found(places)
    whole = [(place, _parts(place)) for place in found]
    runs = [_merged(place, parts) for place, parts in whole]
    asked = [_asked(parts) for _, parts in whole]
    for wanted in dict.fromkeys(one for of_run in asked for one in of_run):
        same = [run for run, of_run in zip(runs, asked, strict=True) if wanted in of_run]
        metrics, exact, device = wanted
        request = execute.Request(metrics, device=device, workers=0, exact_libraries=exact, data=data)
        execute.score(same, request, command_line)
    if not keep:
        for place in found:
            _remove(place)
    return [*done, *runs]


def _remove(place: Path) -> None:
    """Remove all parts of a run, or none: what a kill leaves has a name that no command reads."""
    away = place.with_name(f".{place.name}{_GONE}")
    place.rename(away)
    shutil.rmtree(away)


def _found(places: Sequence[Path]) -> tuple[list[Path], list[RunFolder]]:
    """The folders of parts in some places, and the runs of places in which nothing is left to merge."""
    found: list[Path] = []
    done: list[RunFolder] = []
    for place in (one.absolute() for one in places):
        is_one = place.name.endswith(SHARDS)
        for left in (place.parent if is_one else place).glob(f".*{SHARDS}{_GONE}"):
            shutil.rmtree(left)
        inside = [place] if is_one and place.is_dir() else [] if is_one else sorted(place.glob(f"*{SHARDS}"))
        runs = [place.with_name(place.name.removesuffix(SHARDS))] if is_one else sorted(place.glob("*"))
        whole = [run for run in map(RunFolder, runs) if run.is_run]
        if not inside and not whole:
            raise RfbenchError(f"{place} holds no parts of runs (NAME{SHARDS}); give the --out that --shard had")
        found += inside
        done += [] if inside else whole
    return found, done


def _parts(place: Path) -> list[RunFolder]:
    """The parts of a run in order; RfbenchError unless all are there and of one plan."""
    numbers = {tuple(map(int, m.groups())): p for p in place.iterdir() if (m := _PART.fullmatch(p.name))}
    counts = {n for _, n in numbers}
    if len(counts) != 1:
        said = "none" if not counts else f"parts of {' and of '.join(map(str, sorted(counts)))}"
        raise RfbenchError(f"{place}: found {said}, expected all parts of one number; remove the others")
    (n,) = counts
    missing = [i for i in range(1, n + 1) if (i, n) not in numbers or not RunFolder(numbers[i, n]).is_run]
    if missing:
        raise RfbenchError(
            f"{place}: found {n - len(missing)} of {n} parts; run the same command with --shard {missing[0]}/{n}"
        )
    parts = [RunFolder(numbers[i, n]) for i in range(1, n + 1)]
    first = parts[0].record()
    for part in parts[1:]:
        other = part.record()
        if other.plan_sha256 != first.plan_sha256:
            what = differences(other.plan, first.plan, "it has", "the first part")
            raise RfbenchError(f"{part.path} is of another run ({'; '.join(what[:2])}); run it again as the others")
    return parts


def _merged(place: Path, parts: Sequence[RunFolder]) -> RunFolder:
    """Bring predictions, records and scores of all parts into the run's folder."""
    run = RunFolder(place.with_name(place.name.removesuffix(SHARDS)))
    record = parts[0].record()
    ids = record.plan.data.ids
    if run.is_run and run.record().plan_sha256 != record.plan_sha256:
        raise RfbenchError(f"{run.path} holds another run than its parts in {place}; move it away")
    items: dict[str, tuple[RunFolder, ItemRecord]] = {}
    for part in parts:
        items |= {i: (part, item) for i, item in part.predictions.committed(ids).items()}
    if len(items) < len(ids):
        lacking = next(i for i in ids if i not in items)
        raise RfbenchError(
            f"{place}: {len(ids) - len(items)} of {len(ids)} images are in no part, first '{one_line(lacking, 80)}'; "
            "run the parts again, each goes on where it was"
        )
    with run.lock():
        run.start(record)
        for part, item in items.values():
            if item.prediction_sha256 is not None and not run.predictions.is_done(item.id):
                _bring(part, run, item)
            run.predictions.commit(item)
            for path in (part.path / "scoring").glob(f"{safe_name(item.id)}.*"):
                if path.suffix in (".json", ".safetensors"):
                    _link(path, run.path / "scoring" / path.name)
        run.predictions.finish(ids)
        for i, part in enumerate(parts, 1):
            for session in part.sessions():
                run.begin_session(session | {"shard": f"{i}/{len(parts)}"})
    return run


def _bring(part: RunFolder, run: RunFolder, item: ItemRecord) -> None:
    source = part.predictions.path(item.id)
    if hash_of(source) != item.prediction_sha256:
        raise RfbenchError(f"{source} is damaged or missing; run that part again, it is made anew")
    _link(source, run.predictions.path(item.id))


def _link(source: Path, target: Path) -> None:
    """Another name for a file, where the file system has such; else a copy."""
    with atomic_path(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def _asked(parts: Sequence[RunFolder]) -> list[tuple[tuple[str, ...] | None, bool, str]]:
    """What the parts were scored with, each once: the metrics as they were asked for, whether by the exact libraries,
    and on which device."""
    found = []
    for session in (s for part in parts for s in part.sessions() if s.get("stage") == "score" and "asked" in s):
        names = session["asked"]
        metrics = tuple(n for n in names if isinstance(n, str)) if isinstance(names, list) else None
        on_gpu = str(session.get("device", "")).startswith("cuda") and resolve_device("auto") != "cpu"
        found.append((metrics, session.get("exact_libraries") is True, "cuda" if on_gpu else "cpu"))
    return list(dict.fromkeys(found))
