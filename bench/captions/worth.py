"""What captions are worth to a model: its runs that differ in nothing else, image by image against one of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.core.errors import NotComparable, RfbenchError, one_line, unknown
from bench.core.typed import encode
from bench.data.captions import NONE, images_fingerprint
from bench.records.folder import RunFolder
from bench.records.run import Run, differences, read_run
from bench.reports.numbers import decimals_of, shown
from bench.stats.means import LEVEL, holm
from bench.stats.pairing import Paired, pair, row_scores


@dataclass(frozen=True)
class Effect:
    """One metric with one variant of captions, minus the same with the base's; ``better`` where Holm's p is below 5 %:
    the variant's name, the base's, or empty."""

    metric: str
    title: str
    decimals: int | None
    variant: str
    paired: Paired
    p_holm: float | None
    better: str


@dataclass(frozen=True)
class Worth:
    """``values`` has each variant's mean by metric and variant, over the images that it has the metric of."""

    model: str
    dataset: str
    images: int
    base: str
    variants: tuple[str, ...]
    values: dict[str, dict[str, float]]
    effects: tuple[Effect, ...]


def worth(runs: Sequence[RunFolder], base: str | None = None, metrics: Sequence[str] | None = None) -> Worth:
    """Compare runs of one model that differ in ``captions`` alone.

    Parameters
    ----------
    base : the variant the others are held against.  [default: ``none`` where there is such a run, else the first]

    Raises
    ------
    RfbenchError
        Fewer than two runs, an unknown metric or base, a model that reads no captions.
    NotComparable
        Runs that differ in more than their captions, or two of one variant.
    """
    if len(runs) < 2:
        raise RfbenchError(f"found {len(runs)} run, expected at least two with other captions each")
    finished = [read_run(r) for r in runs]
    plans = [_without_captions(f) for f in finished]
    for other, run in zip(plans[1:], runs[1:], strict=True):
        what = differences(plans[0], other, runs[0].path.name, run.path.name)
        if what:
            raise NotComparable(f"these runs differ in more than their captions: {'; '.join(what[:3])}")
    if not finished[0].plan.reads_captions:
        raise RfbenchError(f"{runs[0].path.name}: its model reads no captions, so they are worth nothing to it")
    variants = [str(f.plan.protocol.get("captions")) for f in finished]
    twice = next((v for v in variants if variants.count(v) > 1), None)
    if twice is not None:
        raise NotComparable(f"two runs have the captions '{one_line(twice, 60)}'; leave one out")
    base = base or (NONE if NONE in variants else variants[0])
    if base not in variants:
        raise unknown("captions of these runs", base, variants)
    known = finished[0].metrics
    for name in metrics or ():
        if name not in known:
            raise unknown("metric of these runs", name, known)
    found = {v: row_scores(r)[0] for v, r in zip(variants, runs, strict=True)}  # draw 0
    chosen = [m for m in known if metrics is None or m in metrics]
    raw = [(m, v, pair(found[v], found[base], m)) for m in chosen for v in variants if v != base]
    tested = [i for i, (_, _, p) in enumerate(raw) if p.inference is not None and p.inference.p is not None]
    adjusted = dict(zip(tested, holm([raw[i][2].inference.p for i in tested]), strict=True))  # type: ignore[union-attr, misc]
    effects = []
    for i, (metric, variant, paired) in enumerate(raw):
        p, better = adjusted.get(i), ""
        if p is not None and p < 1.0 - LEVEL and paired.inference is not None:
            better = variant if (paired.inference.value > 0) == (known[metric].direction == "up") else base
        effects.append(Effect(metric, known[metric].title, decimals_of(known[metric]), variant, paired, p, better))
    values = {m: {v: e.numbers[m] for v, e in found.items() if m in e.numbers} for m in chosen}
    data = finished[0].plan.data
    label = one_line(finished[0].summary.rows["sample"].label, 80)
    return Worth(label, data.name, len(data.ids), base, tuple(variants), values, tuple(effects))


def _without_captions(run: Run) -> dict[str, Any]:
    plan = encode(run.plan)
    plan["protocol"]["captions"] = None
    plan["data"]["fingerprint"] = images_fingerprint(run.plan.data.fingerprint)
    return plan | {"metrics": {name: metric.identity for name, metric in run.metrics.items()}}


def to_markdown(found: Worth) -> str:
    """One table: a row a metric and variant, its value, the base's, the difference and what the data say of it."""
    lines = [
        f"What captions are worth to {found.model} on {found.dataset} ({found.images} images): each variant minus "
        f"'{one_line(found.base, 60)}', paired by image, {LEVEL:.0%} intervals over scenes, p adjusted by Holm.",
        "",
        f"| metric | captions | value | with {one_line(found.base, 40)} | difference | interval | p (Holm) | better |",
        "|:--|:--|--:|--:|--:|:--|--:|:--|",
    ]
    for e in found.effects:
        i = e.paired.inference
        if i is None:
            lines.append(
                f"| {e.title} | {e.variant} | – | – | – | {one_line(e.paired.reason or 'no value', 80)} | – | |"
            )
            continue
        interval = one_line(i.reason or "", 80)
        if i.low is not None and i.high is not None:
            interval = f"{shown(i.low, e.decimals, 1)} to {shown(i.high, e.decimals, 1)}"
        p_text = "–" if e.p_holm is None else f"{e.p_holm:.3g}"
        lines.append(
            f"| {e.title} | {e.variant} | {_cell(e.decimals, e.paired.a)} | {_cell(e.decimals, e.paired.b)} | "
            f"{shown(i.value, e.decimals, 1)} | {interval} | {p_text} | {e.better} |"
        )
    return "\n".join(lines)


def to_json(found: Worth) -> str:
    """The same at full precision."""
    rows = [
        {"metric": e.metric, "captions": e.variant, "value": e.paired.a, "base": e.paired.b, "p_holm": e.p_holm,
         "better": e.better or None, "reason": e.paired.reason,
         **({k: getattr(e.paired.inference, k) for k in ("value", "low", "high", "p", "n", "scenes")}
            if e.paired.inference else {})}
        for e in found.effects
    ]  # fmt: skip
    for row, e in zip(rows, found.effects, strict=True):
        row["difference"], row["value"] = (e.paired.inference.value if e.paired.inference else None), e.paired.a
    return json.dumps({"format": 1, "model": found.model, "dataset": found.dataset, "images": found.images,
                       "base": found.base, "variants": list(found.variants), "rows": rows}, indent=1)  # fmt: skip


def _cell(decimals: int | None, value: float | None) -> str:
    return "–" if value is None else shown(value, decimals)


WRITERS = {"markdown": to_markdown, "json": to_json}
