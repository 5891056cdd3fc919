"""The loop that writes a caption file: ask, check, ask again, and freeze it when every image has been answered.

While it works, ``captions/.NAME/`` holds ``job.json`` (what is asked, of whom: another job is refused) and one JSON an
image, written whole, so a kill costs the questions under way and nothing else. When no image is open, the CSV and its
card are written and the folder goes. Images whose answers all broke a rule are answered: they have a reason instead of
a caption. Images without an answer (the server was down) stay open, and the same command goes on with them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.captions.ask import Captioner, NoAnswer, cleaned
from bench.captions.checks import Rules
from bench.captions.pictures import show
from bench.captions.prompt import Prompt
from bench.core import provenance
from bench.core.errors import ItemError, RfbenchError, one_line
from bench.core.files import digest, safe_name, sweep_temporary, write_bytes, write_json
from bench.core.lock import lock
from bench.core.progress import Progress
from bench.core.texts import read_json
from bench.core.typed import decode, encode
from bench.data.captions import (
    Attempt,
    CaptionCard,
    CaptionJob,
    CaptionPictures,
    CaptionPrompt,
    CaptionRules,
    Tokens,
    check_name,
    csv_of,
    folder_of,
)
from bench.data.dataset import Dataset, Record
from bench.records.run import differences

_IMAGE_TOKENS = 1000  # a guess for one picture of 512 px; servers count between 85 and 1,500


@dataclass(frozen=True)
class Job:
    """What to caption and how; the fields are the options of ``rfbench caption``. ``attempts`` counts all of them."""

    dataset: Dataset
    name: str
    captioner: Captioner
    prompt: Prompt
    rules: Rules
    split: str = "test"
    source: str = "hr"
    stretch: str = "declared"
    mask: str = "none"
    side_px: int = 512
    attempts: int = 3
    limit: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.source == "lr" and self.mask != "none":
            raise RfbenchError("--mask: masks were drawn on the HR image, and captions of --source lr must not know it")
        for option, value in (("attempts", self.attempts), ("side-px", self.side_px), ("limit", self.limit)):
            if value is not None and value < 1:
                raise RfbenchError(f"--{option}: found {value}, expected 1 or more")


@dataclass
class Outcome:
    """What came of it. ``frozen`` is the CSV, or None with images still ``open`` (by id, why) or a limit; ``captions``
    and ``reasons`` by id; ``tokens`` in and out as far as they were told."""

    frozen: Path | None
    captions: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    open: dict[str, str] = field(default_factory=dict)
    tokens: tuple[int, int] = (0, 0)
    models: tuple[str, ...] = ()


def estimate(job: Job, prices: tuple[float, float] | None = None) -> str:
    """What the job will ask for, in one line, before it asks.

    Parameters
    ----------
    prices : of a million tokens in and out, in whatever money.
    """
    count = len(_records(job))
    prompt = round(len((job.prompt.system + job.prompt.ask).split()) * 1.4)
    each_in, each_out = prompt + _IMAGE_TOKENS * (2 if job.mask == "second" else 1), 60
    line = f"{count} images x about {each_in} tokens in and {each_out} out, at most {job.attempts} attempts each"
    if prices is None:
        return line
    once = count * (each_in * prices[0] + each_out * prices[1]) / 1e6
    return f"{line}: about {once:.2f}, at most {once * job.attempts:.2f} at {prices[0]:g} and {prices[1]:g} a million"


def make(job: Job) -> Outcome:
    """Caption what is not captioned yet; each failed check and each image left open is a line on stderr.

    Raises RfbenchError for captions that are frozen already, or begun by another job.
    """
    folder = folder_of(job.dataset)
    path = folder / f"{job.name}.csv"
    if path.is_file():
        raise RfbenchError(f"{path} is there already, and captions are frozen once; choose another --name")
    work = folder / f".{job.name}"
    with lock(work, "writes captions", remedy="wait for it, or choose another --name"):
        sweep_temporary(work)
        records = _records(job)
        _begin(job, work)
        done = {r.id: item for r in records if (item := _item(work, r)) is not None}
        outcome = Outcome(None)
        try:
            _ask_all(job, work, [r for r in records if r.id not in done], done, outcome)
        finally:
            _collect(job, records, done, outcome)
        if outcome.open or job.limit is not None:
            return outcome
        _freeze(job, path, done, outcome)
        outcome.frozen = path
    shutil.rmtree(work, ignore_errors=True)
    return outcome


def _records(job: Job) -> list[Record]:
    return sorted(job.dataset.records(job.split), key=lambda r: r.id)[: job.limit]


def _identity(job: Job) -> dict[str, Any]:
    """The fields of a ``CaptionJob``."""
    prompt = CaptionPrompt(**dataclasses.asdict(job.prompt), sha256=job.prompt.sha256)
    pictures = CaptionPictures(source=job.source, stretch=job.stretch, mask=job.mask, side_px=job.side_px)
    return {
        "name": job.name, "dataset": job.dataset.name, "split": job.split, "captioner": job.captioner.identity(),
        "prompt": prompt, "pictures": pictures, "rules": CaptionRules(**job.rules.identity()),
        "attempts": job.attempts,
    }  # fmt: skip


def _begin(job: Job, work: Path) -> None:
    mine, path = encode(CaptionJob(**_identity(job))), work / "job.json"
    if not path.is_file():
        write_json(path, mine)
        return
    what = differences(read_json(path), mine, "it has", "asked for")
    if what:
        raise RfbenchError(
            f"captions '{job.name}' were begun with other options ({'; '.join(what[:3])}); choose another --name, or "
            f"remove {work}"
        )


def _item(work: Path, record: Record) -> dict[str, Any] | None:
    """The answered row of an image; None where it is open, or its file is broken."""
    try:
        found = read_json(work / f"{safe_name(record.id)}.json")
    except RfbenchError:
        return None
    return found if isinstance(found, dict) and found.get("id") == record.id and "caption" in found else None


def _ask_all(job: Job, work: Path, todo: Sequence[Record], done: dict[str, dict[str, Any]], outcome: Outcome) -> None:
    """Ask for every open image, some at once; each answered one is committed at once."""
    lock = threading.Lock()
    total = len(todo) + len(done)
    with Progress(total, len(done), job.name, steps=("caption",)) as progress:
        pool = ThreadPoolExecutor(job.captioner.at_once)
        futures: dict[Future[dict[str, Any]], Record] = {}
        waiting = iter(todo)
        try:
            while True:
                while len(futures) < job.captioner.at_once and (record := next(waiting, None)) is not None:
                    futures[pool.submit(_ask_one, job, record, done, lock)] = record
                if not futures:
                    return
                for future in wait(futures, return_when=FIRST_COMPLETED).done:
                    record = futures.pop(future)
                    try:
                        item = future.result()
                    except NoAnswer as error:
                        outcome.open[record.id] = str(error)
                        progress.line(f"{record.id}: open, {one_line(error, 200)}")
                        continue
                    for tried in item["attempts"]:
                        for failure in tried["failures"]:
                            progress.line(f"{record.id}: {failure}")
                    write_json(work / f"{safe_name(record.id)}.json", item)
                    with lock:
                        done[record.id] = item
                    progress.advance("caption")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ask_one(job: Job, record: Record, done: dict[str, dict[str, Any]], lock: threading.Lock) -> dict[str, Any]:
    """One image's attempts, until one keeps every rule."""
    item: dict[str, Any] = {"id": record.id, "caption": "", "reason": "", "pictures_sha256": [], "attempts": []}
    try:
        parts = ("hr", "mask") if job.source == "hr" else ("lr", "mask")
        shown = show(job.dataset.load(record, parts), job.source, job.stretch, job.mask, job.side_px)
    except RfbenchError as error:  # a file that is broken is so tomorrow as well
        return item | {"reason": str(error) if isinstance(error, ItemError) else f"it cannot be read: {error}"}
    item["pictures_sha256"] = [hashlib.sha256(p).hexdigest() for p in shown.pictures]
    # A mask of the HR says nothing about a caption of the LR, which may not show the feature at all.
    mask = shown.mask if job.source == "hr" else None
    for attempt in range(job.attempts):
        answer = job.captioner.ask(job.prompt, shown.pictures, attempt)
        text = cleaned(answer.text)
        with lock:
            others = {i: o["caption"] for i, o in done.items() if i != record.id and o["caption"]}
        failures = [str(f) for f in job.rules.failures(text, mask, others)]
        item["attempts"].append({"answer": answer.text, "failures": failures, "tokens_in": answer.tokens_in,
                                 "tokens_out": answer.tokens_out, "model": answer.model})  # fmt: skip
        if not failures:
            return item | {"caption": text}
    reasons = "; ".join(item["attempts"][-1]["failures"])
    return item | {"reason": one_line(f"{job.attempts} attempts broke a rule, the last: {reasons}", 300)}


def _collect(job: Job, records: Sequence[Record], done: dict[str, dict[str, Any]], outcome: Outcome) -> None:
    items = [done[r.id] for r in records if r.id in done]
    outcome.captions = {i["id"]: i["caption"] for i in items if i["caption"]}
    outcome.reasons = {i["id"]: i["reason"] for i in items if not i["caption"]}
    tried = [a for i in items for a in i["attempts"]]
    outcome.tokens = (sum(a["tokens_in"] or 0 for a in tried), sum(a["tokens_out"] or 0 for a in tried))
    outcome.models = tuple(sorted({a["model"] for a in tried if a["model"]}))


def _freeze(job: Job, path: Path, done: dict[str, dict[str, Any]], outcome: Outcome) -> None:
    """The card first, the CSV last: with it the captions are frozen, and a card alone is written again."""
    data = csv_of(outcome.captions, outcome.reasons)
    card = CaptionCard(
        **_identity(job),
        csv_sha256=hashlib.sha256(data).hexdigest(),
        images_sha256=digest([[i, done[i]["pictures_sha256"]] for i in sorted(done)]),
        models_reported=list(outcome.models),
        captioned=len(outcome.captions),
        without=outcome.reasons,
        tokens=Tokens(*outcome.tokens),
        software=provenance.software(),
        answers={i: decode(done[i]["attempts"], list[Attempt], f"the answers for {i}") for i in sorted(done)},
    )
    write_json(path.with_suffix(".json"), encode(card))
    write_bytes(path, data)
