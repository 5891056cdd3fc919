"""Images that another program made become the predictions of a run, which is then scored like any other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.core import provenance
from bench.core.errors import ItemError, RfbenchError, one_line
from bench.core.files import digest
from bench.core.image import RGB
from bench.core.progress import Progress
from bench.core.typed import decode
from bench.data import bands as band_names
from bench.data.find import resolve_dataset
from bench.predict.execute import now, session
from bench.predict.plan import DTYPES as _DTYPES
from bench.predict.plan import REVISION, make_room, plan_digest
from bench.predict.unit import keep, made_of
from bench.protocols.base import Protocol, Task
from bench.protocols.find import resolve_protocol
from bench.protocols.pictures import Pictures
from bench.records.folder import RunFolder
from bench.records.predictions import hash_of
from bench.records.types import FORMAT, DataRecord, ItemRecord, ModelRecord, Plan, RunRecord, Software
from bench.score.images import PICTURES, DatasetSource, FolderSource, Meaning, NeedsOption, Source
from bench.score.match import ID, Listing, Match, Matches, as_text, listing, match_folders, match_ids, some
from bench.score.replay import Tasks, said_by_host


@dataclass(frozen=True)
class Request:
    """Whose images are held against what; the fields are options of ``rfbench score``. None stands for "not said"."""

    pred: Path
    ref: Path | None = None
    data: str | None = None
    split: str | None = None
    protocol: str | None = None
    label: str | None = None
    unit: str = "display"
    scale: float | None = None
    ref_scale: float | None = None
    bands: str | None = None
    sensor: str | None = None
    pred_name: str = ID
    border_px: int | None = None
    quantise: str | None = None
    strict: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class _Found:
    """What a request came down to."""

    source: Source
    protocol: Protocol
    matches: Matches
    pred: Listing
    ref: Listing | None
    data: DataRecord

    @property
    def only_pred(self) -> list[str]:
        """Names of images without a reference; whole file names where the pattern does not fit them."""
        return [as_text(n) for n in (*self.matches.only_pred, *self.pred.strangers)]

    @property
    def only_ref(self) -> list[str]:
        """Names of references without an image."""
        return [as_text(n) for n in self.matches.only_ref]


def import_images(request: Request, out: Path, command_line: Sequence[str] = ()) -> RunFolder:
    """Make a run folder of a folder of images, matched by name with references (``ref``) or a dataset's ids (``data``).

    An image that cannot be read, or does not fit its reference, has failed in this run; the others go on.

    Raises
    ------
    RfbenchError
        Before anything is written: options that contradict each other, a folder without images, no match at all,
        pictures without a known white; a folder that holds another run.
    """
    _check(request)
    found = _against_folder(request) if request.data is None else _against_dataset(request)
    if request.strict and (found.only_pred or found.only_ref):
        raise RfbenchError(
            f"--strict: found names without a partner ({len(found.only_pred)} of images, {len(found.only_ref)} of "
            f"references), first {some([*found.only_pred, *found.only_ref], 1)}; add or remove them"
        )
    record = _record(request, found)
    folder = RunFolder(out.absolute())
    make_room(folder, record, fresh=request.fresh)
    first = _first(found)  # an option that is missing is told before a folder is made
    with folder.lock():
        folder.start(record)
        place = {"ref": str(request.ref.absolute())} if request.ref is not None else {"data": request.data}
        folder.begin_session(session("cpu", command_line) | {"stage": "import", **place})
        _read_all(found, folder, first)
        folder.predictions.finish(record.plan.data.ids)
        folder.tidy()
        folder.end_session({"ended": now()})
    return folder


def _first(found: _Found) -> Any:
    """The first image; RfbenchError where its numbers mean nothing without an option, as most likely all do."""
    first = found.source.load(found.matches.both[0])
    if isinstance(first, NeedsOption):
        raise RfbenchError(str(first))
    return first


def _read_all(found: _Found, folder: RunFolder, first: Any) -> None:
    matches = found.matches.both
    done = {m.id for m in matches if folder.predictions.is_done(as_text(m.id))}
    with Progress(len(matches), len(done), "images", ("read",)) as progress:
        for i, match in enumerate(matches):
            if match.id in done:
                continue
            loaded = first if i == 0 else found.source.load(match)
            if isinstance(loaded, ItemError):
                name = as_text(match.id)
                files = {"pred": {"name": as_text(match.pred[0])}}
                folder.predictions.commit(ItemRecord(id=name, scene_id=name, error=one_line(loaded, 600), files=files))
            else:
                keep(folder, made_of(loaded.task, loaded.answer, loaded.files))
            progress.advance("read")


def _record(request: Request, found: _Found) -> RunRecord:
    usual = {f.name: f.default for f in dataclasses.fields(Request)}
    options = {
        key: str(value)
        for key in ("unit", "scale", "ref_scale", "bands", "sensor", "pred_name", "split")
        if (value := getattr(request, key)) != usual[key]
    }
    files = [[as_text(m.id), [hash_of(found.pred.folder / n) for n in m.pred]] for m in found.matches.both]
    plan = Plan(
        model=ModelRecord(
            label=one_line(request.label or found.pred.folder.resolve().name, 60),
            spec={"name": "images"},
            options=options,
            adapter={"files_sha256": digest(files)},
        ),
        protocol=found.protocol.identity(),
        data=found.data,
        seed=0,
        draws=1,
        dtype=_DTYPES[0],
        device="cpu",
        batch_size=1,
        revision=REVISION,
    )
    partnerless = {"pred": found.only_pred, "ref": found.only_ref}
    others = {"pred": found.pred.others, "ref": found.ref.others if found.ref else 0}
    return RunRecord(
        format=FORMAT,
        plan=plan,
        plan_sha256=plan_digest(plan),
        software=decode(provenance.software(), Software, "software"),
        command="rfbench score --pred DIR " + ("--ref DIR" if request.ref is not None else "--data DIR"),
        without_partner={"names": partnerless, "ignored": others},
    )


_GOES_WITH = {"--ref": ("ref_scale", "border_px", "quantise"), "--data": ("split", "protocol")}
_INSTEAD = {
    "--ref": "leave it out (two folders of pictures have neither split nor protocol; --border-px cuts a border)",
    "--data": "leave it out (the dataset says what its numbers mean; --protocol paired:border_px=4,quantise=none)",
}


def _check(request: Request) -> None:
    if (request.ref is None) == (request.data is None):
        found = "neither --ref nor --data" if request.ref is None else "both --ref and --data"
        raise RfbenchError(
            f"found {found}, expected one of them: --ref DIR for a folder of references, --data DIR for a dataset's"
        )
    given = "--data" if request.ref is None else "--ref"
    for option, names in _GOES_WITH.items():
        for name in names if option != given else ():
            if getattr(request, name) is not None:
                raise RfbenchError(f"--{name.replace('_', '-')} goes with {option}, found {given}; {_INSTEAD[given]}")
    if request.unit != "display" and request.ref is not None:
        raise RfbenchError(
            f"--unit {request.unit} goes with --data, whose dataset says how it is displayed; with --ref both folders "
            "hold pictures"
        )
    for name in ("scale", "ref_scale"):
        value = getattr(request, name)
        if value is not None and not 0 < value < math.inf:
            raise RfbenchError(f"--{name.replace('_', '-')}: found {value:g}, expected a number above 0")
    if request.border_px is not None and request.border_px < 0:
        raise RfbenchError(f"--border-px: found {request.border_px}, expected 0 or more")


def _bands(text: str | None, sensor: str | None, *listings: Listing) -> tuple[str, ...] | None:
    """The names of ``--bands``; RfbenchError where all files have others by their format."""
    if sensor is not None:
        band_names.check_sensor(sensor)
    if text is None:
        return None
    bands = band_names.parse(text, sensor)
    endings = {Path(name).suffix.lower() for found in listings for names in found.files.values() for name in names}
    if len(bands) == len(RGB) and bands != RGB and endings <= {*PICTURES}:
        raise RfbenchError(
            f"--bands {' '.join(bands)}: found PNG and JPEG files alone, whose channels are R G B by their format; "
            "leave it out, or write other channels as TIFF, npy or npz"
        )
    return bands


def _meanings(options: Mapping[str, Any], bands: tuple[str, ...] | None) -> tuple[Meaning, Meaning]:
    """What the numbers of images and of references mean."""
    scale, ref_scale = (float(options[k]) if options.get(k) is not None else None for k in ("scale", "ref_scale"))
    sensor = options.get("sensor")
    theirs = Meaning("display", ref_scale if ref_scale is not None else scale, bands, "--ref-scale", sensor)
    return Meaning("display", scale, bands, sensor=sensor), theirs


def _against_folder(request: Request) -> _Found:
    assert request.ref is not None
    if request.pred.is_dir() and request.ref.is_dir() and request.pred.resolve() == request.ref.resolve():
        raise RfbenchError("--pred and --ref are one folder, expected two; every image would be held against itself")
    pred, ref = listing(request.pred, "--pred", request.pred_name), listing(request.ref, "--ref")
    options = {key: getattr(request, key) for key in ("scale", "ref_scale", "sensor")}
    ours, theirs = _meanings(options, _bands(request.bands, request.sensor, pred, ref))
    protocol = Pictures(quantise=None if request.quantise == "none" else 8, border_px=request.border_px or 0)
    matches = match_folders(pred, ref)
    hashes = [[as_text(m.id), [hash_of(ref.folder / n) for n in m.ref]] for m in matches.both]
    data = DataRecord(
        name="a folder of references",
        split="",
        fingerprint=digest(hashes),
        ids=tuple(as_text(m.id) for m in matches.both),
    )
    return _Found(FolderSource(pred, ref, ours, theirs, protocol), protocol, matches, pred, ref, data)


def _against_dataset(request: Request) -> _Found:
    assert request.data is not None
    pred = listing(request.pred, "--pred", request.pred_name)
    protocol, dataset = resolve_protocol(request.protocol or "paired"), resolve_dataset(request.data)
    split = request.split or "test"
    records = {r.id: r for r in dataset.records(split)}
    matches = match_ids(pred, list(records), f"dataset {dataset.name}, split {split}")
    unit: Any = request.unit
    meaning = Meaning(unit, request.scale, _bands(request.bands, request.sensor, pred), sensor=request.sensor)
    source = DatasetSource(pred, meaning, dataset, protocol, records)
    data = DataRecord(
        name=dataset.name,
        split=split,
        fingerprint=dataset.fingerprint([records[m.id] for m in matches.both]),
        ids=tuple(m.id for m in matches.both),
    )
    return _Found(source, protocol, matches, pred, None, data)


# --- again, for scoring ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PictureTasks(Tasks):
    """What pictures of another program are held against: a folder's, which must be the files that were found first."""

    protocol: Protocol
    source: FolderSource
    matches: Mapping[str, Match]
    hashes: Mapping[str, str | None]

    @property
    def ids(self) -> tuple[str, ...]:  # type: ignore[override]
        """The run's images."""
        return tuple(self.matches)

    def task(self, image_id: str) -> Task | ItemError:
        match = self.matches[image_id]
        path = self.source.ref.folder / match.ref[0]
        if self.hashes.get(image_id) not in (None, hash_of(path)):
            return ItemError(f"{one_line(path, 200)} is not the reference that the image was held against; restore it")
        return self.source.task(match)


def picture_tasks(run: RunFolder, folder: Path | None = None) -> PictureTasks:
    """The references of pictures; ``folder`` None for where the run found them."""
    record = run.record()
    said = str(folder) if folder is not None else said_by_host(run, "ref")
    if said is None or not Path(said).is_dir():
        raise RfbenchError(
            f"{run.path}: the folder of references was not found again ({one_line(said, 120)}); give it with --data"
        )
    ref = listing(Path(said), "--data")
    options = record.plan.model.options
    ours, theirs = _meanings(
        options, band_names.parse(options["bands"], options.get("sensor")) if "bands" in options else None
    )
    protocol = Pictures(**{k: v for k, v in record.plan.protocol.items() if k != "name"})
    nothing = Listing(Path(said), {})
    by_text = {as_text(stem): names for stem, names in ref.files.items()}
    missing = [i for i in record.plan.data.ids if i not in by_text]
    if missing:
        raise RfbenchError(
            f"{run.path}: {one_line(said, 120)} has no reference '{one_line(missing[0], 60)}' ({len(missing)} are "
            "missing); give the folder that the run was made with by --data"
        )
    matches = {i: Match(i, (), by_text[i]) for i in record.plan.data.ids}
    items = run.images()
    hashes = {i: item.files.get("ref", {}).get("sha256") for i, item in items.items()}
    return PictureTasks(protocol, FolderSource(nothing, ref, ours, theirs, protocol), matches, hashes)
