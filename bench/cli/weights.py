"""``rfbench weights``: what pretrained files metrics and models need, which are here, and how to get the others."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli import complete
from bench.cli.help import Group
from bench.cli.listing import show, wide_option

if TYPE_CHECKING:
    from bench.core.progress import Progress
    from bench.weights import WeightsFile
    from bench.weights.transfer import Tick

_FOLDER = click.option(
    "--weights-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder of the files.  [default: $RFBENCH_WEIGHTS, ~/.cache/rfbench/weights]",
)
_EPILOG = """\b
Examples:
  rfbench weights ls
  rfbench weights fetch --metrics default,modern         # as in 'rfbench run'
  rfbench weights fetch adcsr          # all that a model or a metric needs
  rfbench weights fetch --all --weights-dir /media/stick
  rfbench weights fetch --all --from /media/stick        # without network
  rfbench weights verify
"""


@click.group("weights", cls=Group, epilog=_EPILOG)
def command() -> None:
    """List, fetch and verify the pretrained files of metrics and models.

    Nothing else fetches anything, and a file is used only if its SHA-256 is the listed one; of files whose publisher
    gives none, the one that was recorded when the file was first fetched.
    """


@command.command("ls", epilog=_EPILOG)
@_FOLDER
@wide_option
@click.option("--json", "as_json", is_flag=True, help="As JSON, with hashes and sources.")
def ls(weights_dir: Path | None, wide: bool, as_json: bool) -> None:
    """List the files: size, what needs each, whether it is here; with --wide also licence and folder.

    'found' means that a file of the right name and size lies there; 'rfbench weights verify' looks at its bytes.
    """
    from bench import weights

    needed = weights.users()
    rows = [_row(e, needed.get(e.file, weights.Users()), weights_dir) for e in weights.catalogue().values()]
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    headings = ("file", "size", "state", "where", "licence", "needed by")
    shown = [
        (r["file"], r["size"], r["state"], _where(r), r["licence"], " ".join([*r["metrics"], *r["models"]]))
        for r in rows
    ]
    show(headings, shown, ("file", "size", "state", "needed by"), wide=wide)
    missing = [r for r in rows if r["state"] != "found" and r["package"] is None]
    if missing:
        total = weights.megabytes(sum(r["bytes"] for r in missing))
        print(f"next: rfbench weights fetch --all gets the {len(missing)} that are not here ({total})", file=sys.stderr)


def _row(entry: WeightsFile, users: Any, weights_dir: Path | None) -> dict[str, Any]:
    from bench.core.errors import one_line
    from bench.weights import pinned, places

    there = places(entry, weights_dir)
    known = next((e for e in (pinned(entry, p) for p in there) if e.sha256), entry)
    right = next((p for p in there if _right_size(entry, p)), None)
    return {
        "file": entry.file,
        "bytes": known.bytes,
        "size": known.size,
        "sha256": known.sha256 or None,
        "sha256_is": "published" if entry.sha256 else "recorded" if known.sha256 else "not known yet",
        "licence": one_line(entry.licence, 100),
        "source": one_line(entry.source),
        "package": entry.package,
        "metrics": list(users.metrics),
        "models": list(users.models),
        "state": "found" if right else "missing" if not there else "wrong size" if known.sha256 else "not recorded",
        "path": str(right or there[0]) if there else None,
    }


def _right_size(entry: WeightsFile, path: Path) -> bool:
    """Whether a file has the size that is listed, or that was recorded with its hash."""
    from bench.weights import pinned

    known = pinned(entry, path)
    return bool(known.sha256) and path.stat().st_size == known.bytes


def _where(row: dict[str, Any]) -> str:
    if row["state"] == "found" and row["package"] and row["package"] in Path(row["path"]).parts:
        return f"the package {row['package']}"
    return "-" if row["path"] is None else str(Path(row["path"]).parent)


@command.command("fetch", epilog=_EPILOG)
@click.argument("names", nargs=-1, metavar="[FILE|MODEL[:OPTIONS]|METRICS]...", shell_complete=complete.model_or_metric)
@click.option("--all", "every", is_flag=True, help="Every file of the list.")
@click.option(
    "--metrics",
    metavar="NAMES",
    shell_complete=complete.metrics_list,
    help="What these metrics need; comma-separated, as in 'rfbench run'.",
)
@click.option(
    "--models", metavar="NAMES", shell_complete=complete.models_list, help="What these models need; comma-separated."
)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Copy from this folder instead of the network; only right files are copied.",
)
@_FOLDER
def fetch(
    names: tuple[str, ...],
    every: bool,
    metrics: str | None,
    models: str | None,
    source: Path | None,
    weights_dir: Path | None,
) -> int:
    """Bring files into the weights folder, from their publishers or from a folder.

    Sizes are shown first. Repeat a command that was interrupted: it goes on where it was. Exit code 2 if a file could
    not be had; the others are there then.
    """
    from bench import weights
    from bench.core.errors import RfbenchError, one_line
    from bench.weights.fetch import obtain

    entries = _chosen(names, every, metrics, models)
    folder = weights.target(weights_dir)
    if source is not None and not source.is_dir():
        raise RfbenchError(f"--from: {source} is not a folder; give the folder that holds the files")
    _announce(entries, folder, source)
    failed = 0
    for entry in entries:
        if source is not None:
            copies = _in_folder(source, entry)
        else:  # a folder that is filled for another machine takes what this one has
            copies = [p for p in weights.places(entry) if p.parent != folder and p != entry.in_package]
        try:
            with _Bar(entry) as tick:
                outcome = obtain(entry, folder, copies=copies, network=source is None, tick=tick)
        except RfbenchError as error:
            failed += 1
            print(f"error: {one_line(error, 600)}", file=sys.stderr)
            continue
        click.echo(
            f"{entry.file}: {_SAID[outcome].format(folder=folder, package=entry.package)}{_known_by(entry, folder)}"
        )
    if failed:
        print(f"{failed} of {len(entries)} files could not be had", file=sys.stderr)
    return 2 if failed else 0


_SAID = {
    "here": "is in {folder}",
    "carried": "is in the package {package}",
    "copied": "copied into {folder}",
    "fetched": "fetched into {folder}",
    "recorded": "is in {folder}",
}


def _in_folder(source: Path, entry: WeightsFile) -> list[Path]:
    """Where a file may lie in the folder of ``--from``: under its name, or as in a copy of its whole hub repository."""
    return [source / entry.file, *([source / inner] if (inner := entry.hub_path) else [])]


def _known_by(entry: WeightsFile, folder: Path) -> str:
    """A note on files whose hash is not, or not wholly, published."""
    from bench.weights import recorded

    known = None if entry.sha256 else recorded(folder / entry.file)
    if known is None:
        return _prefix(entry)
    return f" (sha256 {known.sha256[:8]}... recorded, since its publisher gives none; enforced from now on)"


def _prefix(entry: WeightsFile) -> str:
    """A note on files of which only the first digits of the hash are known."""
    from bench.weights import WHOLE_HASH

    known = len(entry.sha256)
    return (
        ""
        if known in (0, WHOLE_HASH)
        else f" (verified by its size and the {known} digits of its hash that are published)"
    )


def _chosen(names: tuple[str, ...], every: bool, metrics: str | None, models: str | None) -> list[WeightsFile]:
    """The entries that the options name, once each, in the order of the list."""
    from bench import weights
    from bench.core import registry
    from bench.core.errors import RfbenchError, unknown
    from bench.metrics.scorer import are_metrics, groups

    if every and (names or metrics is not None or models is not None):
        raise RfbenchError("--all is every file of the list; leave the other names out")
    found = weights.catalogue()
    wanted = set(found) if every else set()
    for name in names:
        if name in found:
            wanted.add(name)
        elif name.partition(":")[0] in registry.points("models"):
            wanted.update(_of_model(name))
        elif are_metrics(name):
            wanted.update(_of_metrics([name]))
        else:
            known = [*found, *registry.names("models"), *registry.names("metrics"), *groups()]
            raise unknown("weights file, model or metric", name, known, hint="'rfbench weights ls' lists the files")
    if metrics is not None:
        wanted.update(_of_metrics(_split(metrics, "--metrics")))
    if models is not None:
        wanted.update(file for name in _split(models, "--models") for file in _of_model(name))
    if not (names or every or metrics is not None or models is not None):
        raise RfbenchError("nothing is named; give files, --metrics NAMES, --models NAMES or --all")
    return [entry for file, entry in found.items() if file in wanted]


def _of_metrics(names: list[str]) -> list[str]:
    """The listed files of some metrics and groups of them. A group may hold metrics whose files no list has: pyiqa's,
    which are named beside; asked for by name they are an error, since nothing could be done."""
    from bench.core.errors import RfbenchError, one_line
    from bench.metrics.scorer import chosen, metric_class

    every = chosen(names)
    listed = [file for name in every if not name.startswith("pyiqa:") for file in metric_class(name).weights_files]
    others = [name for name in every if name.startswith("pyiqa:")]
    why = (
        f"{one_line(', '.join(others), 200)}: the files of other pyiqa metrics are not on the list; a run names the "
        "ones that it wants, and takes them from a weights folder or pyiqa's cache"
    )
    if set(others) & set(names):
        raise RfbenchError(why)
    if others:
        print(f"not among these: {why}", file=sys.stderr)
    return listed


def _of_model(text: str) -> list[str]:
    """The files that ``--model TEXT`` loads: of a system with several networks, those of the one that is asked for."""
    from bench.models.call import Model

    return list(Model(text).spec.weights)


def _split(text: str, option: str) -> list[str]:
    from bench.core.errors import RfbenchError

    found = [n.strip() for n in text.split(",") if n.strip()]
    if not found:
        raise RfbenchError(f"{option}: found no name, expected some, such as {option} NAME,NAME")
    return found


def _announce(entries: list[WeightsFile], folder: Path, source: Path | None) -> None:
    """What will be brought, with sizes and a total, before it is."""
    from bench.core.errors import one_line
    from bench.weights import megabytes, places

    if not entries:
        print("these need no weights", file=sys.stderr)
        return
    left, rows = [], []
    for entry in entries:
        mine = (folder / entry.file, entry.in_package)
        where = "here; to be verified"
        if not any(p in mine and _right_size(entry, p) for p in places(entry, folder if folder.is_dir() else None)):
            left.append(entry)
            where = str(source) if source is not None else one_line(entry.source, 120)
        rows.append((entry.file, entry.size, one_line(entry.licence, 60), where))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        print("  " + "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]), file=sys.stderr)
    total = ("" if all(e.sha256 for e in left) else "about ") + megabytes(sum(e.bytes for e in left))
    print(f"{len(left)} of {len(entries)} files, {total}, are to be brought into {folder}", file=sys.stderr)


class _Bar:
    """Progress in MB on stderr once the first bytes come; nothing for small files and those that are there."""

    def __init__(self, entry: WeightsFile) -> None:
        self._entry = entry
        self._bar: Progress | None = None
        self._shown = 0

    def __enter__(self) -> Tick:
        return self._tick

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def _tick(self, have: int) -> None:
        from bench.core.progress import Progress

        done, total = have // 1_000_000, self._entry.bytes // 1_000_000
        if self._bar is None and total:
            self._bar = Progress(total, done, self._entry.file, steps=("fetch",), unit="MB").__enter__()
            self._shown = done
        elif self._bar is not None and done != self._shown:
            self._bar.advance("fetch", done - self._shown)
            self._shown = done


@command.command("verify", epilog=_EPILOG)
@_FOLDER
def verify(weights_dir: Path | None) -> int:
    """Hash every file that is here again, a line each; exit code 1 if any is wrong."""
    from bench import weights
    from bench.core.errors import one_line

    wrong = seen = 0
    entries = weights.catalogue()
    for entry in entries.values():
        for path in weights.places(entry, weights_dir):
            seen += 1
            try:
                known = weights.pinned(entry, path)
                if not known.sha256:
                    click.echo(f"{path}: no hash was published or recorded; {entry.remedy.replace('gets', 'records')}")
                    continue
                found = weights.hash_of(path)
                right = found.startswith(known.sha256) and path.stat().st_size == known.bytes
                said = (
                    "right" + _prefix(entry) if right else f"WRONG: sha256 {found[:8]}..., {path.stat().st_size} bytes"
                )
                said += "" if entry.sha256 or not right else " (as recorded when it was first fetched)"
                said += "" if right else f", expected {known.short_hash}..., {known.bytes} bytes; {entry.remedy}"
            except OSError as error:
                right, said = False, f"WRONG: cannot be read ({error.strerror})"
            wrong += not right
            click.echo(f"{path}: {said}")
    for folder in weights.folders(weights_dir):
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            name = path.name.removesuffix(weights.RECORDED)
            if path.is_file() and name not in entries and not name.startswith("."):
                click.echo(f"{one_line(path)}: not on the list; only pyiqa:NAME metrics may use it")
    print(f"{seen} of {len(entries)} listed files are here, {wrong} wrong", file=sys.stderr)
    return 1 if wrong else 0
