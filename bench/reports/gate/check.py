"""A run against its golden run: which metric moved by how much, which images moved it, what else differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.core.errors import NotComparable, one_line
from bench.core.typed import encode
from bench.records.folder import RunFolder
from bench.records.run import differences, read_run
from bench.records.types import Plan, RunRecord, Software
from bench.reports.compare.build import moved, refuse_unpaired
from bench.reports.document import Cell, Column
from bench.reports.gate.golden import machine
from bench.reports.gate.rules import Rule, Rules
from bench.reports.table.build import Table, build_table
from bench.stats.means import Inference, holm
from bench.stats.pairing import Paired, RowScores, pair, row_scores

Status = Literal["held", "moved", "missing", "undecided", "not judged"]
_APART = ("protocol", "data")  # of a plan: what has to be equal, and is refused elsewhere


@dataclass(frozen=True)
class Verdict:
    """One metric of one row.

    Attributes
    ----------
    row : the row's label.
    golden, run : the two numbers, over the images that both have.
    status : ``held``; ``moved``, further than a rule allows; ``missing`` in the run, of all images or of some;
        ``undecided``, a statistical rule with too few scenes; ``not judged``, for there is no number or no rule.
    said : why.
    limits : what was allowed, one text a rule's limit.
    images : how many images moved at all; ``ahead`` and ``behind`` those that moved most to the better and the worse.
    """

    row: str
    column: Column
    status: Status
    golden: float | None = None
    run: float | None = None
    said: str = ""
    limits: tuple[str, ...] = ()
    inference: Inference | None = None
    images: int = 0
    ahead: tuple[tuple[str, float], ...] = ()
    behind: tuple[tuple[str, float], ...] = ()

    @property
    def difference(self) -> float | None:
        """Run minus golden."""
        return None if self.run is None or self.golden is None else self.run - self.golden


@dataclass(frozen=True)
class Gate:
    """One run against one golden run. ``failed`` are images that failed in the run alone; ``differs`` what else is not
    the same, which is told and not judged."""

    label: str
    run: RunFolder
    golden: RunFolder
    rules: str
    verdicts: tuple[Verdict, ...]
    failed: tuple[str, ...]
    differs: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 held, 1 something moved or failed, 2 a metric is missing or cannot be decided, or none was judged."""
        statuses = {v.status for v in self.verdicts}
        if "moved" in statuses or self.failed:
            return 1
        return 2 if statuses & {"missing", "undecided"} or "held" not in statuses else 0


@dataclass(frozen=True)
class _Judged:
    """A metric of a row before Holm's method has gone over the statistical rules. ``lost`` says which images have a
    number in the golden run alone, though they did not fail."""

    verdict: Verdict
    rules: tuple[Rule, ...]
    paired: Paired
    lost: str = ""


def check(run: RunFolder, golden: RunFolder, rules: Rules, *, top: int = 3) -> Gate:
    """Hold a run against its golden run.

    Raises
    ------
    NotComparable
        Other data or another protocol, or another identity of a metric that both have.
    RfbenchError
        An unfinished or broken run, or a rule of a metric that the golden run has not.
    """
    advice = "choose the golden run of these data, or renew it (--update --reason WHY)"
    refuse_unpaired([run, golden], None, advice, same_policy=True)
    mine, theirs = ({e.kind: e for e in row_scores(folder)} for folder in (run, golden))
    table = build_table([golden])
    ours = _cells(build_table([run]))
    _refuse_other_fits(ours, _cells(table))
    failed = sorted(set(read_run(run).summary.failed) - set(read_run(golden).summary.failed))
    found: list[_Judged] = []
    for row in table.rows:
        for column in table.columns:
            sides, cell = (mine.get(row.estimate), theirs[row.estimate]), ours.get((row.estimate, column.metric))
            found.append(_judged(row.label, column, rules.of(column.metric), *sides, cell, failed, top))
    verdicts = _decided(found)
    newly = {m for e in mine.values() for m in e.numbers} - {m for e in theirs.values() for m in e.numbers}
    differs = [*_differs(run, golden)]
    if newly:
        differs.append(f"metrics that the golden run has not: {', '.join(sorted(one_line(m, 40) for m in newly))}")
    return Gate(table.rows[0].label, run, golden, rules.source, tuple(verdicts), tuple(failed), tuple(differs))


def _cells(table: Table) -> dict[tuple[str, str], Cell]:
    """By estimate and metric."""
    pairs = ((row, zip(table.columns, row.cells, strict=True)) for row in table.rows)
    return {(row.estimate, column.metric): cell for row, of in pairs for column, cell in of}


def _refuse_other_fits(run: Mapping[tuple[str, str], Cell], golden: Mapping[tuple[str, str], Cell]) -> None:
    """What a metric was fitted on is known at a run's end only, and stands with its value: plans do not have it."""
    for place in sorted(run.keys() & golden.keys()):
        mine, theirs = run[place], golden[place]
        if mine.value is not None and theirs.value is not None and mine.identity != theirs.identity:
            raise NotComparable(
                f"{place[1]}: found {mine.identity}, the golden run has {theirs.identity}; renew it (--update --reason "
                "WHY)"
            )


def _judged(
    label: str, column: Column, applied: tuple[Rule, ...], run: RowScores | None, golden: RowScores, cell: Cell | None,
    failed: Sequence[str], top: int,
) -> _Judged:  # fmt: skip
    name = column.metric
    before = golden.numbers.get(name)
    if before is None:
        return _Judged(Verdict(label, column, "not judged", said="no number in the golden run"), (), Paired())
    if run is None or name not in run.numbers:
        why = (cell and cell.reason) or ("not part of this run" if run else "the run has no such row")
        missing: Status = "missing" if applied else "not judged"
        return _Judged(Verdict(label, column, missing, golden=before, said=why), applied, Paired())
    of_set = golden.is_of_the_set(name)
    paired = Paired() if of_set and not any(r.statistical for r in applied) else pair(run, golden, name)
    after = run.numbers[name]
    if paired.a is not None and paired.b is not None:
        after, before = paired.a, paired.b
    ahead, behind = moved(paired.ids, paired.differences, column.direction, top)
    verdict = Verdict(
        label, column, "held" if applied else "not judged", before, after, "" if applied else "no rule",
        tuple(limit for rule in applied for limit in _limits(rule)), paired.inference,
        sum(d != 0 for d in paired.differences), ahead, behind,
    )  # fmt: skip
    before_it, now = golden.behind(name), {*run.behind(name), *failed}
    lost = [i for i in before_it if i not in now]
    return _Judged(verdict, applied, paired, _lost(lost, len(before_it), run, name) if lost else "")


def _lost(lost: Sequence[str], of: int, run: RowScores, metric: str) -> str:
    why = run.reasons[metric].get(lost[0], "it is not in the run")
    return f"{len(lost)} of {of} images have no number any more, such as {one_line(lost[0], 40)} ({why})"


def _decided(found: Sequence[_Judged]) -> Iterator[Verdict]:
    """The verdicts, with Holm's method over all statistical limits of the run."""
    tested = [
        (i, j) for i, one in enumerate(found) if one.verdict.status == "held"
        for j, rule in enumerate(one.rules) if rule.statistical and one.paired.inference
        and one.paired.inference.p is not None
    ]  # fmt: skip
    raw = [found[i].paired.inference.p or 0.0 for i, _ in tested]  # type: ignore[union-attr]
    adjusted = dict(zip(tested, holm(raw), strict=True))
    for i, one in enumerate(found):
        verdict = one.verdict
        if verdict.status != "held" or verdict.difference is None or verdict.golden is None:
            yield verdict
            continue
        direction = verdict.column.direction
        worse = not direction or (verdict.difference < 0 if direction == "up" else verdict.difference > 0)
        said: list[str] = []
        status: Status = verdict.status
        for j, rule in enumerate(one.rules):
            if rule.sides == "one" and not worse:
                continue
            far, size = "" if worse else " to the better", abs(verdict.difference)
            for limit in _exceeded(rule, size, abs(verdict.golden)):
                said.append(f"moved by more than {limit}{far}")
                status = "moved"
            if rule.statistical is None:
                continue
            p = adjusted.get((i, j))
            if p is not None and p < rule.statistical.alpha and size >= rule.statistical.effect:
                said.append(f"moved{far} at p = {p:.2g} (Holm over {len(tested)})")
                status = "moved"
            elif status != "moved" and (why := _undecidable(one.paired, rule.statistical.alpha, p, len(tested))):
                said.append(f"{why}; give an absolute or relative rule")
                status = "undecided"
        if one.lost:  # what is left may hold because of it
            said.append(one.lost)
            status = "missing" if status == "held" else status
        yield replace(verdict, status=status, said="; ".join(said))


def _undecidable(paired: Paired, alpha: float, p: float | None, tests: int) -> str | None:
    """Why a statistical rule could not have raised an alarm, whatever one metric did: holding says nothing then."""
    inference = paired.inference
    if p is None or inference is None:
        return paired.reason or (inference.reason if inference else None) or "no p-value"
    if inference.least is not None and tests * inference.least >= alpha:
        return (
            f"with {inference.scenes} scenes no p is below {inference.least:.2g}, which is not below {alpha:g} after "
            f"Holm's method over {tests} statistical rules"
        )
    return None


def _exceeded(rule: Rule, size: float, golden: float) -> Iterator[str]:
    if rule.absolute is not None and size > rule.absolute:
        yield f"{rule.absolute:g}"
    if rule.relative is not None and size > rule.relative * golden:
        yield f"{100 * rule.relative:g} % ({rule.relative * golden:.3g})"


def _limits(rule: Rule) -> Iterator[str]:
    sign = "±" if rule.sides == "two" else "worse "
    if rule.absolute is not None:
        yield f"{sign}{rule.absolute:g}"
    if rule.relative is not None:
        yield f"{sign}{100 * rule.relative:g} %"
    if rule.statistical is not None:
        effect = f", {rule.statistical.effect:g} or more" if rule.statistical.effect else ""
        yield f"{sign}p < {rule.statistical.alpha:g}{effect}"


# --- what else differs ----------------------------------------------------------------------------------------


def _differs(run: RunFolder, golden: RunFolder) -> Iterator[str]:
    """Versions, machine, model, weights, seeds: one short line each, golden first."""
    mine, theirs = run.record(), golden.record()
    before, after = _versions(theirs.software), _versions(mine.software)
    for name in sorted({*before, *after}):
        if before.get(name) != after.get(name):
            yield one_line(f"{name} {before.get(name) or 'absent'} -> {after.get(name) or 'absent'}", 120)
    old, new = machine(golden), machine(run)
    for part in sorted({*old, *new}):
        if old.get(part) != new.get(part):
            yield f"{part} {old.get(part, 'unknown')} -> {new.get(part, 'unknown')}"
    plans = [_settings(record, with_code=bool(mine.plan.model.code and theirs.plan.model.code))
             for record in (theirs, mine)]  # fmt: skip
    names = [_model_name(record.plan) for record in (theirs, mine)]
    if names[0] != names[1]:  # of another model everything differs
        yield one_line(f"model {names[0]} -> {names[1]}", 120)
        plans = [{k: v for k, v in plan.items() if k != "model"} for plan in plans]
    yield from differences(plans[0], plans[1], "golden", "run")


def _settings(record: RunRecord, *, with_code: bool) -> dict[str, object]:
    """What may differ between a run and its golden run; ``with_code`` where both were made by versions that hash it."""
    plan = {key: value for key, value in encode(record.plan).items() if key not in _APART}
    if not with_code:
        plan["model"].pop("code")
        plan.pop("revision")
    return plan


def _model_name(plan: Plan) -> str:
    """The model behind a label, as far as the record names one."""
    return str(plan.model.spec.get("name", ""))


def _versions(software: Software) -> dict[str, str]:
    commit = f"{software.commit[:10]}{' with changes' if software.dirty else ''}" if software.commit else None
    flat = {"rfbench": software.rfbench, "Python": software.python, **software.packages, "commit": commit}
    return {name: version for name, version in flat.items() if version}


def lines_moved(run: RunFolder, golden: RunFolder) -> list[str]:
    """What a renewal changes of the numbers: ``psnr_rgb 23.49 -> 23.52`` for each row and metric that differs."""
    if not golden.is_run or golden.summary() is None:
        return []
    before, after = (read_run(folder).summary.rows for folder in (golden, run))
    lines = []
    for kind in sorted({*before, *after}):
        old, new = (rows[kind].metrics if kind in rows else {} for rows in (before, after))
        for metric in sorted({*old, *new}):
            values = [side[metric].value if metric in side else None for side in (old, new)]
            if values[0] != values[1]:
                shown = " -> ".join("none" if v is None else f"{v:.7g}" for v in values)
                lines.append(one_line(f"{kind} {metric} {shown}", 120))
    return lines
