"""Golden runs: what is kept of a run, where, and why it was made and renewed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.core.errors import RfbenchError, one_line
from bench.core.files import finish_commit, is_temporary, json_bytes, read_json, safe_name, write_together
from bench.records.folder import RunFolder
from bench.records.run import Run, find_runs, read_run

FORMAT = 1
_FEATURES = "features.safetensors"
_FEATURES_BYTES = 2**20  # of ECE some kB; FID's of many images do not belong beside code
HISTORY = "golden.json"
_WHOLE = ("images.parquet", "scores.parquet", _FEATURES)  # beside run.json and summary.json, by the run's format


def pairs(run: Path, against: Path) -> list[tuple[RunFolder, RunFolder]]:
    """Each run of ``run`` with its golden run in ``against``.

    One and one belong together whatever they are called; else they are matched by the labels of their models. A folder
    of runs has to have one of every golden run, so that none is forgotten.
    """
    runs, golden = find_runs([run]), find_runs([against])
    for folder in golden:
        _finish(folder)
    if len(runs) == len(golden) == 1:
        return [(runs[0], golden[0])]
    mine, theirs = _by_label(runs), _by_label(golden)
    forgotten = set() if RunFolder(run).is_run else theirs.keys() - mine.keys()
    for label in sorted((mine.keys() - theirs.keys()) | forgotten):
        lacks, where = ("golden run", against) if label in mine else ("run", run)
        step = (
            f"'rfbench gate {mine[label].path} --against {against} --update --reason WHY' makes one"
            if label in mine
            else "run that model too, or name one golden run"
        )
        raise RfbenchError(f"found no {lacks} of '{label}' in {where}; {step}")
    return [(mine[label], theirs[label]) for label in sorted(mine)]


def label_of(folder: RunFolder) -> str:
    """What a run's model is called."""
    return one_line(folder.record().plan.model.label or folder.path.resolve().name, 80)


def _by_label(folders: Sequence[RunFolder]) -> dict[str, RunFolder]:
    found: dict[str, RunFolder] = {}
    for folder in folders:
        other = found.setdefault(label_of(folder), folder)
        if other is not folder:
            raise RfbenchError(f"{other.path} and {folder.path} are both of '{label_of(folder)}'; name one of them")
    return found


def targets(run: Path, against: Path) -> list[tuple[RunFolder, RunFolder]]:
    """Each run of ``run`` with the folder in which its golden run is, or will be."""
    runs = find_runs([run])
    if len(runs) == 1 and RunFolder(against).is_run:
        found = [(runs[0], RunFolder(against))]
    else:
        found = [(folder, RunFolder(against / safe_name(label))) for label, folder in sorted(_by_label(runs).items())]
    for _, folder in found:
        _finish(folder)
    return found


def _finish(golden: RunFolder) -> None:
    """Do what a renewal that was killed had still to do; a run with its images is none of ours."""
    if not (golden.path / "host.json").exists():
        finish_commit(golden.path)


def renew(run: RunFolder, golden: RunFolder, reason: str, moved: Sequence[str]) -> None:
    """Keep ``run`` as the golden run in ``golden``, with the reason and what it moved; earlier reasons stay.

    RfbenchError for a run that is not complete, or has failed images; and where ``golden`` holds a run as it was made.
    """
    if (golden.path / "host.json").exists():  # the scores of one run beside the predictions of another
        raise RfbenchError(
            f"{golden.path} is a run with all its files, which a golden run would overwrite; give --against another "
            "folder"
        )
    found = read_run(run)
    if found.summary.failed:
        raise RfbenchError(
            f"{run.path}: found {len(found.summary.failed)} failed images, expected a complete run; run the same "
            "command again"
        )
    files: dict[str, bytes | None] = {**_kept(found)}
    last = (run.sessions() or [{}])[-1]
    entry = {
        "reason": one_line(reason, 1000),
        "date": one_line(last.get("started", ""), 40)[:10],
        "rfbench": found.record.software.rfbench,
        "commit": found.record.software.commit,
        **machine(run),
        "moved": list(moved),
    }
    earlier = history(golden)
    if earlier and earlier[-1].get("reason") == entry["reason"] and _holds(golden.path, files):
        return  # the same command again, after a kill perhaps: its record is not doubled
    files[HISTORY] = json_bytes({"format": FORMAT, "renewals": [*earlier, entry]})
    before = [*golden.path.glob("scores/*/*"), *(golden.path / name for name in _WHOLE)]
    names = {p.relative_to(golden.path).as_posix() for p in before if p.is_file() and not is_temporary(p)}
    # As one: numbers that were renewed without the record of why would pass for the old ones.
    write_together(golden.path, {**files, **dict.fromkeys(names - files.keys())})
    for folder in golden.path.glob("scores/*"):
        if not any(folder.iterdir()):
            folder.rmdir()


def _holds(folder: Path, files: Mapping[str, bytes | None]) -> bool:
    """Whether these files are there with these bytes."""
    return all((folder / name).is_file() and (folder / name).read_bytes() == data for name, data in files.items())


def _kept(run: Run) -> dict[str, bytes]:
    """The files of a run that a golden run has, by their paths in it: all numbers, small features of metrics of the
    set, and no image."""
    files = ["run.json", "summary.json"]
    if run.folder.is_format1:
        files += ["scores.parquet", _FEATURES]
    else:
        files += ["images.parquet"]
        for metric in run.metrics.values():
            folder = run.folder.scored.metric(metric.identity, metric.name).path.relative_to(run.folder.path)
            files += [f"{folder.as_posix()}/{name}" for name in ("metric.json", "scores.parquet", _FEATURES)]
    paths = {name: run.folder.path / name for name in files}
    return {
        name: path.read_bytes()
        for name, path in paths.items()
        if path.is_file() and (path.name != _FEATURES or path.stat().st_size <= _FEATURES_BYTES)
    }


def history(golden: RunFolder) -> list[dict[str, Any]]:
    """Why a golden run was made and renewed, the first first; empty for a run that is no golden one."""
    if not (golden.path / HISTORY).is_file():
        return []
    found = read_json(golden.path / HISTORY)
    renewals = found.get("renewals") if isinstance(found, dict) and found.get("format") == FORMAT else None
    if not isinstance(renewals, list) or not all(isinstance(r, dict) for r in renewals):
        raise RfbenchError(f"{golden.path / HISTORY} is not a history of format {FORMAT}; restore it, or remove it")
    return renewals


def machine(folder: RunFolder) -> dict[str, str]:
    """The processor and the accelerator that a run was made on, as far as it is known."""
    renewals, sessions = history(folder), folder.sessions()
    found = renewals[-1] if renewals else sessions[-1].get("machine") if sessions else None
    parts = ("processor", "accelerator")
    return {part: one_line(found[part], 80) for part in parts if isinstance(found, dict) and found.get(part)}
